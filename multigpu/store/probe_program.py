"""The probe as one text that any python3 runs from its standard input.

A fact of pyinfra is one command, so the rooms of `multigpu/host/probe/` travel together: each is
put into a module of its own name, and then the probe runs as if it were installed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import multigpu.host.probe
from multigpu.store import texts

NAME = "multigpu.host.probe"
# Each after those that it imports.
ROOMS = ("files", "pci", "system", "tools", "toolchain", "amd", "nvml", "ours")

LOADER = '''\
"""The probe of multigpu, see multigpu/host/probe/."""
import sys
import types


def room(name, source):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


'''


@cache
def program() -> str:
    """The whole program: Python 3.9+, stdlib only, ASCII."""
    here = Path(multigpu.host.probe.__file__).parent
    rooms = [f"room({f'{NAME}.{r}'!r}, {texts.read(here / f'{r}.py')!r})\n" for r in ROOMS]
    main = f"room({NAME!r}, {texts.read(here / '__init__.py')!r}).main()\n"
    return LOADER + "".join(rooms) + main
