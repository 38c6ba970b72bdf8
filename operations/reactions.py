"""Reactions beyond a restart: installed where they are wished, removed where they no longer are."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from facts.reactions import ReactionsSeen
from multigpu.react_unit import FILES, FLAG, PATH, SERVICE, ReactUnits

# Verified under their final names before anything is replaced; root's file comes before the units.
_INSTALL = """\
import json, os, subprocess, sys, tempfile
files = json.loads(sys.argv[1])
units = [file for file in files if not file["path"].endswith(".json")]
with tempfile.TemporaryDirectory() as directory:
    names = [os.path.join(directory, os.path.basename(unit["path"])) for unit in units]
    for name, unit in zip(names, units):
        open(name, "w").write(unit["content"])
    done = subprocess.run(["systemd-analyze", "verify", "--recursive-errors=no", *names],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or done.stdout.strip():
        sys.exit("multigpu: systemd-analyze verify refuses the units of reactions: "
            + done.stdout.decode("utf-8", "replace").strip())
for file in files:
    new = file["path"] + ".multigpu-new"
    with open(new, "w") as target:
        os.fchmod(target.fileno(), int(file["mode"], 8))
        target.write(file["content"])
        target.flush()
        os.fsync(target.fileno())
    os.replace(new, file["path"])
for words in (["daemon-reload"], ["enable", "--quiet", *sys.argv[2:]],
              ["restart", sys.argv[2]], ["start", sys.argv[3]]):
    subprocess.run(["systemctl", *words], check=True)
"""
_REMOVE = f"systemctl disable --now --quiet {PATH} {SERVICE} 2>/dev/null; "
_REMOVE += f"rm -f {' '.join(FILES)} {FLAG} && systemctl daemon-reload"


@operation()
def reactions(
    *, seen: ReactionsSeen, wanted: ReactUnits | None
) -> Generator[StringCommand, None, None]:
    """As wished: the units enabled and root's file as rendered, or nothing of it there."""
    if wanted is None:
        if seen.files or seen.on:
            yield remove_reactions()
        else:
            host.noop("reactions beyond a restart are off")
        return
    if seen.on and seen.files == {file.path: file.content for file in wanted.files}:
        host.noop("reactions beyond a restart are as wished")
        return
    manifest = json.dumps([asdict(file) for file in wanted.files])
    words = (QuoteString(_INSTALL), QuoteString(manifest), PATH, SERVICE)
    yield StringCommand("python3", "-c", *words)


def remove_reactions() -> StringCommand:
    """Nobody reads requests any more, and supervisors fence by themselves again."""
    return StringCommand("sh", "-c", QuoteString(_REMOVE))


@operation()
def unfence(
    *, program: str, fences: Mapping[str, tuple[str, ...]]
) -> Generator[StringCommand, None, None]:
    """Remove these fences (`host`, or a service with its cards) unless their reason stands."""
    if not fences:
        host.noop("nothing is fenced")
        return
    words = (QuoteString(f"{name}={','.join(cards)}") for name, cards in fences.items())
    yield StringCommand("python3", QuoteString(program), "unfence", *words)
