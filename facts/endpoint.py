"""What runs of endpoints on a host: the package, and what each working HAProxy says of itself."""

from __future__ import annotations

from pyinfra.api import FactBase
from typing_extensions import override

from multigpu.endpoint_seen import EndpointsSeen, read

TIMEOUT_S = 30
# HAProxy answers on a socket that only root opens; its "show info" is HAProxy's management guide,
# "Unix Socket commands". The start of a process is field 22 of proc(5)'s stat.
_PROGRAM = r"""
import glob, json, os, socket, time
def info(path):
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(3)
        channel.connect(path)
        channel.sendall(b"show info\n")
        text = b"".join(iter(lambda: channel.recv(65536), b"")).decode("utf-8", "replace")
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return {name.lower(): value for name, value in said.items()}
def started_at(pid):
    ticks = int(open("/proc/%s/stat" % pid).read().rpartition(")")[2].split()[19])
    uptime = float(open("/proc/uptime").read().split()[0])
    return round(time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK"), 2)
found = {"installed": os.access("/usr/sbin/haproxy", os.X_OK), "workers": {}}
for path in glob.glob("/run/multigpu-endpoint-*/admin.sock"):
    try:
        said = info(path)
        worker = {"description": said.get("description"), "started_at": started_at(said["pid"])}
    except (OSError, ValueError, KeyError, IndexError):
        continue
    found["workers"][path.split("/")[2]] = worker
print(json.dumps(found))
"""


class Endpoints(FactBase[EndpointsSeen | None]):
    """The endpoints of this host; None: unknown."""

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self) -> str:
        return f"python3 - <<'MULTIGPU_ENDPOINTS'\n{_PROGRAM}\nMULTIGPU_ENDPOINTS\n"

    @override
    def process(self, output: list[str]) -> EndpointsSeen | None:
        return read("\n".join(output))
