"""What a host fetches of a model, where it lies there, and how far that is: values only.

The directory is named by the content of the files, so that a model has the same path whether it
came from the hub, a mirror, or the controller. `multigpu.host.fetch` does the work on the host.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from multigpu.errors import ModelError
from multigpu.install import MODELS, PREFIX, Upload
from multigpu.model_reference import HUB, shard_addresses
from multigpu.plan import ModelFile, ModelSpec, Setting, Source

SCHEMA = 1
STAMP, STATUS = "complete", "status.json"
UNIT = "multigpu-fetch-"
"""How the names of the transient units begin that fetch a model."""
CREDENTIAL = "hf_token"
"""The name by which the fetch program finds the token."""
FETCHED = (Source.HUB, Source.URL)
OFFLINE = (
    Setting("HF_HUB_OFFLINE", "1", "the model lies on this host; serving asks the hub for nothing"),
    Setting("TRANSFORMERS_OFFLINE", "1", "as above, for Transformers"),
)


@dataclass(frozen=True)
class Fetch:
    """A model that a unit of its own brings to the host.

    `path` is what the runtime is given, `files` maps absolute paths to sizes in bytes, `spec` is
    what the program reads. `credential` is the path of the hub's token on the host, None where the
    service has none; `proxy` what the unit gets as https_proxy.
    """

    name: str
    path: str
    directory: str
    files: Mapping[str, int]
    spec: Upload
    credential: str | None = None
    proxy: str | None = None

    @property
    def stamp(self) -> str:
        """The file that says that all files are there and verified."""
        return f"{self.directory}/{STAMP}"

    @property
    def status(self) -> str:
        """The file that says how far it is."""
        return f"{self.directory}/{STATUS}"

    @property
    def unit(self) -> str:
        """The transient unit."""
        return f"{UNIT}{self.directory.rpartition('/')[2]}.service"

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(self.files.values())


def fetch(
    model: ModelSpec,
    *,
    endpoint: str = HUB,
    credential: str | None = None,
    proxy: str | None = None,
) -> Fetch | None:
    """How the model gets onto the host; None for one that is there or comes from the controller.

    Raises ModelError for a plan that does not say which files (of an older version of multigpu).
    """
    if model.source not in FETCHED:
        return None
    if not model.files:
        raise ModelError(f"{model.name}: the plan does not say its files: run deploys/plan.py")
    folder = "" if model.format == "gguf" else model.path.rpartition("/")[2] + "/"
    directory = f"{MODELS}/{content_name(model)}"
    base = f"{directory}/{folder}"
    hub = model.source is Source.HUB
    return Fetch(
        model.name,
        f"{base}{model.files[0].path}" if model.format == "gguf" else base.rstrip("/"),
        directory,
        {f"{base}{file.path}": file.size_bytes for file in model.files},
        _spec(model, directory, folder, endpoint),
        credential if hub else None,
        proxy,
    )


def offline(model: ModelSpec) -> tuple[Setting, ...]:
    """Variables that keep an engine from asking the hub; llama.cpp never does."""
    return () if model.format == "gguf" else OFFLINE


def local_path(model: ModelSpec) -> str:
    """The path that a runtime is given, on the host where the model is fetched."""
    fetched = fetch(model) if model.files else None
    return model.path if fetched is None else fetched.path


def content_name(model: ModelSpec) -> str:
    """12 hexadecimal digits by content; of one GGUF the begin of its sha256, as for an upload."""
    if model.format == "gguf" and len(model.files) == 1 and model.files[0].sha256:
        return model.files[0].sha256[:12]
    rows = "".join(f"{f.path} {f.sha256 or f.blob_id}\n" for f in model.files)
    return hashlib.sha256(rows.encode()).hexdigest()[:12]


def _spec(model: ModelSpec, directory: str, folder: str, endpoint: str) -> Upload:
    addresses = _addresses(model, endpoint)
    spec = {
        "schema": SCHEMA,
        "directory": directory,
        "stamp": STAMP,
        "hub": endpoint if model.source is Source.HUB else None,
        "allow_http": any(urlsplit(address).scheme == "http" for address in addresses),
        "files": [_entry(f, folder, a) for f, a in zip(model.files, addresses, strict=True)],
    }
    content = json.dumps(spec, indent=1, sort_keys=True).encode() + b"\n"
    name = hashlib.sha256(content).hexdigest()[:12]
    return Upload(f"{PREFIX}/host/fetch-{name}.json", content=content, size_bytes=len(content))


def _entry(file: ModelFile, folder: str, address: str) -> dict[str, object]:
    if not file.sha256 and not file.blob_id:
        raise ModelError(f"{file.path} has no hash in the plan: run deploys/plan.py")
    hashed = {"sha256": file.sha256} if file.sha256 else {"blob_id": file.blob_id}
    return {
        "path": f"{folder}{file.path}",
        "url": address,
        "size_bytes": file.size_bytes,
        **hashed,
    }


def _addresses(model: ModelSpec, endpoint: str) -> tuple[str, ...]:
    if model.source is Source.URL:
        return shard_addresses(model.path)
    return tuple(
        hub_address(endpoint, model.path, model.revision, file.path) for file in model.files
    )


def hub_address(endpoint: str, repo_id: str, revision: str | None, path: str) -> str:
    """Where the hub serves a file of a commit (huggingface_hub's hf_hub_url)."""
    return f"{endpoint}/{repo_id}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"


def file_name(address: str) -> str:
    """The last part of an address, as it is called on the host."""
    return unquote(urlsplit(address).path).rpartition("/")[2]


# --- how far it is -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """One look at a fetch: `busy` while its unit runs or waits to."""

    busy: bool
    complete: bool
    line: str | None = None
    reason: str | None = None


def watched(text: str) -> Watched:
    """Reads `systemctl show -p ActiveState -p Job`, `stamp` if it is there, and the status file."""
    lines = [line.strip() for line in text.splitlines()]
    shown = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("{"))
    status = _status(next((line for line in lines if line.startswith("{")), ""))
    waiting = shown.get("Job", "0") not in ("", "0")
    busy = waiting or shown.get("ActiveState", "") in ("activating", "active", "reloading")
    reason = status.get("reason")
    return Watched(busy, "stamp" in lines, progress(status), str(reason) if reason else None)


def _status(line: str) -> Mapping[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def progress(status: Mapping[str, object]) -> str | None:
    """`42 % of 18.2 GiB, 87.3 MiB/s, 2 min left`; None where nothing is known."""
    done, total = status.get("bytes_done"), status.get("bytes_total")
    if not isinstance(done, int) or not isinstance(total, int) or total <= 0:
        return None
    parts = [f"{100 * done // total} % of {size(total)}"]
    speed, left = status.get("mib_per_s"), status.get("seconds_left")
    if isinstance(speed, int | float):
        parts.append(f"{speed:.1f} MiB/s")
    if isinstance(left, int | float):
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def size(count: int) -> str:
    """Bytes as MiB, from 1 GiB on as GiB."""
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
