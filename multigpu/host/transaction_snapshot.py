"""What is in place on a host that keeps no generations yet, as one: to return to.

Taken once, when the first generation is staged on a host that an earlier version served.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, Dict, List, Optional

from multigpu.host import transaction_units as units
from multigpu.host.transaction_store import Manifest, Store, read

UNITS = "/etc/systemd/system/"
ENDPOINT = "multigpu-endpoint-"
START_S = 600


def of_host(store: Store, document: Manifest) -> Optional[Manifest]:
    """The files that are in the place of those of `document`, and those that it takes away; None
    where none of their units is active.
    """
    told = (document.get("told") or {}).get("obsolete") or ()
    paths = [*(file["path"] for file in document["files"]), *told]
    files = [f for path in dict.fromkeys(paths) if (f := found(store, path)) is not None]
    names = [f["path"][len(UNITS) :] for f in files if f["path"].startswith(UNITS)]
    started = [name for name in names if units.active(name)]
    if not started:
        return None
    known = {unit["name"]: unit for unit in document["units"]}
    processes = [name for name in started if not name.startswith(ENDPOINT)]
    text = "".join(f"{f['path']}\n{f['content']}\n" for f in files)
    return {
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "files": files,
        "units": [unit(name, known.get(name, {})) for name in processes if carried(name)],
        "endpoints": [e for name in started if (e := endpoint(store, name)) is not None],
        "enable": [name for name in names if units.enabled(name)],
        "requires": [],
        "runtimes": [],
    }


def found(store: Store, path: str) -> Optional[Dict[str, str]]:
    """One file as it lies there; None when it does not."""
    content = read(store.at(path))
    if content is None:
        return None
    mode = os.stat(store.at(path)).st_mode & 0o7777
    return {"path": path, "mode": f"{mode:04o}", "content": content.decode("utf-8", "replace")}


def carried(name: str) -> Optional[str]:
    """The revision that the unit's process carries."""
    return units.revision(units.show(name, "MainPID").get("MainPID", "0"))


def unit(name: str, known: Dict[str, Any]) -> Dict[str, Any]:
    """A process of which only the name and its revision are known for sure.

    Its cards are taken to be those of the new unit of that name.
    """
    plain = name[len("multigpu-") : -len(".service")]
    return {
        "name": name,
        "wish": known.get("wish", plain),
        "revision": carried(name),
        "command_sha256": None,
        "start_s": known.get("start_s", START_S),
        "gpus": known.get("gpus", []),
        "port": known.get("port", 0),
        "server": plain,
    }


def endpoint(store: Store, name: str) -> Optional[Dict[str, Any]]:
    """An endpoint by its unit's name and its configuration; None where it is none of ours."""
    if not name.startswith(ENDPOINT):
        return None
    wish = name[len(ENDPOINT) : -len(".service")]
    content = read(store.at(f"/etc/multigpu/endpoint-{wish}.cfg")) or b""
    config = content.decode("utf-8", "replace")
    revision = re.search(r"multigpu-revision-(\w+)", config)
    return {
        "name": name,
        "wish": wish,
        "revision": carried(name),
        "config_revision": revision[1] if revision else "",
        "socket": f"/run/{ENDPOINT}{wish}/admin.sock",
        "servers": server_names(config),
    }


def server_names(config: str) -> List[str]:
    """Engines that a configuration names."""
    return re.findall(r"^\s*server\s+(\S+)", config, re.MULTILINE)
