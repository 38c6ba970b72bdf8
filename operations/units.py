"""Text of units that no transaction brings: those of the host; and taking units away."""

from __future__ import annotations

import io
import json
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FileUploadCommand, QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.hardware import Host
from multigpu.install import PREFIX
from multigpu.units import UNIT_DIRECTORY, TextFile
from operations.common import Staging

# Unit files are verified before anything is swapped in: an unknown key is only a warning to
# systemd-analyze (rc 0), so any line on stderr refuses. Verified under their final names, in a
# directory of their own; environment files come first, so that a unit never sees half of them.
# Another run waits its turn; the staging directory goes, however this ends.
_SWAP = """\
import fcntl, json, os, shutil, subprocess, sys, tempfile
staging, lock = sys.argv[1], os.open(sys.argv[2], os.O_RDONLY)
def verify(units):
    with tempfile.TemporaryDirectory() as directory:
        names = []
        for unit in units:
            names.append(os.path.join(directory, os.path.basename(unit["path"])))
            shutil.copyfile(os.path.join(staging, unit["staged"]), names[-1])
        for name in names:
            done = subprocess.run(
                ["systemd-analyze", "verify", "--recursive-errors=no", name],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if done.returncode or done.stderr.strip():
                sys.exit("multigpu: systemd-analyze verify refuses %s: %s" % (
                    os.path.basename(name), done.stderr.decode("utf-8", "replace").strip()))
def check(files):
    secrets = dict(os.environ, SECRETS="/etc/multigpu/credentials")
    for file in files:
        path = os.path.join(staging, file["staged"])
        done = subprocess.run(["/usr/sbin/haproxy", "-c", "-f", path], env=secrets,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.exit("multigpu: haproxy -c refuses %s: %s" % (
                os.path.basename(file["path"]), done.stdout.decode("utf-8", "replace").strip()))
def swap(manifest):
    for file in manifest:
        new = file["path"] + ".multigpu-new"
        os.makedirs(os.path.dirname(new), exist_ok=True)
        with open(os.path.join(staging, file["staged"]), "rb") as source, open(new, "wb") as target:
            os.fchmod(target.fileno(), int(file["mode"], 8))
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    for file in manifest:
        os.replace(file["path"] + ".multigpu-new", file["path"])
fcntl.flock(lock, fcntl.LOCK_EX)
try:
    manifest = json.load(open(os.path.join(staging, "manifest")))
    units = [file for file in manifest if file["path"].endswith(".service")]
    verify(units)
    check([file for file in manifest if file["path"].endswith(".cfg")])
    swap(manifest)
    if units:
        subprocess.run(["systemctl", "daemon-reload"], check=True)
finally:
    shutil.rmtree(staging, ignore_errors=True)
"""


@operation()
def install_text(
    *, machine: Host, units: tuple[generation.Unit, ...]
) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Install several files as one step: staged, verified, swapped; nothing when all are equal."""
    files = generation.files_to_install(machine, units)
    if not files:
        host.noop("unit and environment files are as rendered")
        return
    staging = Staging()
    yield staging.create()
    for number, file in enumerate(files):
        yield staging.put(io.BytesIO(file.content.encode()), str(number))
    yield staging.put(io.BytesIO(_manifest(files).encode()), "manifest")
    yield StringCommand("python3", "-c", QuoteString(_SWAP), staging.path, PREFIX)


def _manifest(files: tuple[TextFile, ...]) -> str:
    return json.dumps(
        [
            {"path": file.path, "staged": str(number), "mode": file.mode}
            for number, file in enumerate(files)
        ]
    )


def remove_unit(name: str) -> StringCommand:
    """Stop, disable and delete one unit of ours with its environment file."""
    service = name.removeprefix("multigpu-").removesuffix(".service")
    return StringCommand(
        StringCommand("systemctl", "disable", "--now", "--quiet", QuoteString(name)),
        ";",
        StringCommand("rm", "-f", QuoteString(f"{UNIT_DIRECTORY}/{name}")),
        StringCommand("&&", "rm", "-f", QuoteString(f"/etc/multigpu/{service}.env")),
        StringCommand("&&", "rm", "-f", QuoteString(f"/etc/multigpu/{service}.cfg")),
        StringCommand("&&", "rm", "-f", QuoteString(f"/etc/multigpu/{service}.plan.json")),
        StringCommand("&&", "systemctl", "daemon-reload"),
        StringCommand(";", "systemctl", "reset-failed", QuoteString(name), "2>/dev/null;", "true"),
    )
