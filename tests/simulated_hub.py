"""A simulated hub: an HTTP server of ours that answers the part of the hub's API that we use.

One repository per name; gated ones want the token. Large files are redirected to another origin
(`storage`), which refuses whoever shows it a token, as a signed address does. Runs as a program,
too: `python simulated_hub.py FOLDER PORT TOKEN` serves FOLDER/org/name/*; names ending in -gated
want the token.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.scripted_server import Handler, Server, Turn

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 1000


class SimulatedHub(Server):
    """`repositories`: repo id -> file name -> content. `gated`: repo ids that want `token`."""

    def __init__(self, storage: str | None = None, token: str = "", port: int = 0) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.token, self.storage = token, storage
        super().__init__()
        if port:
            self.server_close()
            ThreadingHTTPServer.__init__(self, ("0.0.0.0", port), HubHandler)
        self.RequestHandlerClass = HubHandler


class HubHandler(Handler):
    server: SimulatedHub

    def do_GET(self) -> None:
        self.server.seen.append(_seen(self))
        words = [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]
        if words[:2] == ["api", "models"]:
            return self.model("/".join(words[2:4]), words[5] if len(words) > 5 else "main")
        if len(words) > 4 and words[2] == "resolve":
            return self.file("/".join(words[:2]), words[3], "/".join(words[4:]))
        path = urlsplit(self.path).path
        if path not in self.server.contents:
            return self.say(404, "EntryNotFound")
        # Planning asks for the first bytes, by a range that has an end.
        header = re.fullmatch(r"bytes=0-\d+", self.headers.get("Range") or "")
        slow = path.startswith("/slow/") and not header
        turn = Turn(pause_s=0.1, chunk=1 << 18) if slow else Turn()
        return self.answer(turn, self.server.contents[path], None)

    def allowed(self, repo_id: str, revision: str) -> bool:
        """True when the repository and its revision are there for who asks."""
        if repo_id not in self.server.repositories:
            self.say(404, "RepoNotFound")
        elif revision not in ("main", "v1", COMMIT):
            self.say(404, "RevisionNotFound")
        elif repo_id in self.server.gated and self.token != self.server.token:
            self.say(403 if self.token else 401, "GatedRepo")
        else:
            return True
        return False

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def say(self, status: int, code: str) -> None:
        message = {"X-Error-Code": code, "X-Error-Message": f"{code} of the simulated hub"}
        self.answer(Turn(status=status, headers=message), b"{}", None)

    def model(self, repo_id: str, revision: str) -> None:
        if not self.allowed(repo_id, revision):
            return
        files = self.server.repositories[repo_id]
        siblings = [_sibling(name, content) for name, content in files.items()]
        found = {"id": repo_id, "sha": COMMIT, "private": False, "siblings": siblings}
        self.answer(Turn(headers={"Content-Type": "application/json"}), _json(found), None)

    def file(self, repo_id: str, revision: str, name: str) -> None:
        if not self.allowed(repo_id, revision):
            return
        content = self.server.repositories[repo_id].get(name)
        if content is None:
            return self.say(404, "EntryNotFound")
        commit = {"X-Repo-Commit": COMMIT}
        if len(content) > LARGE_BYTES and self.server.storage:
            place = f"{self.server.storage}/{repo_id}/{name}?signature=s"
            linked = {
                "Location": place,
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            }
            return self.answer(Turn(status=302, headers={**commit, **linked}), b"", None)
        self.answer(Turn(headers=commit), content, f'"{_blob_id(content)}"')


def _seen(handler: Handler) -> Any:
    from tests.scripted_server import Seen

    return Seen(handler.command, handler.path, dict(handler.headers))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    """As `?blobs=true` tells it: large files are in LFS, with their sha256."""
    row: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
    if len(content) > LARGE_BYTES:
        sha256 = hashlib.sha256(content).hexdigest()
        row["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
    return row


def main() -> None:
    """Serve a folder on all addresses; its /slow/NAME.gguf are sent at about 2.5 MiB/s."""
    folder, port, token = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    hub = SimulatedHub(token=token, port=port)
    hub.contents = {f"/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*.gguf")}
    for path in folder.glob("*/*/**/*"):
        if path.is_file():
            repo_id = "/".join(path.relative_to(folder).parts[:2])
            name = path.relative_to(folder / repo_id).as_posix()
            hub.repositories.setdefault(repo_id, {})[name] = path.read_bytes()
            if repo_id.endswith("-gated"):
                hub.gated.add(repo_id)
    print("ready", flush=True)
    threading.Thread(target=hub.serve_forever).start()


if __name__ == "__main__":
    main()
