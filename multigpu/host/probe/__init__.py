"""Print one captured machine: the raw text of every tool, as one ASCII JSON document.

Sent whole to a host (multigpu/store/probe_program.py) or run as a module; the output is what
`multigpu.parse.capture.read` reads, what the tests keep as machines, and what a bug report holds.
Nothing is judged here. The document:

    schema     1
    tools      command line -> rc, stdout and stderr as lists of lines, seconds, timed_out;
               or rc null and missing true
    files      path -> text, null when it could not be read
    system     cpus, cpu_model, numa_nodes, kernel, machine (`uname -m`), glibc, python, uid,
               hostname, machine_id (key of the pseudonyms, which replace it), IOMMU group types
               with their counts
    disks      mount point or directory -> free bytes
    pci        GPUs and every port above them: link, class, NUMA node, driver, error counters, BARs
    kfd        AMD: path below /sys/class/kfd/kfd/topology/nodes -> text; null without KFD
    kfd_device state of /dev/kfd, null when it is not there
    kfd_processes  pid of every process of KFD -> name, cgroup, and bytes of VRAM by gpu_id
    amdgpu     PCI address of every AMD display function -> sysfs file of amdgpu -> text
    nvml       PCI address of every NVIDIA card -> memory_bus_width, num_gpu_cores, max_sm_clock,
               max_mem_clock; null where NVML gave no answer
    processes  pid of every process that holds VRAM of an NVIDIA card -> its cgroup
    main_processes  MainPID of every unit of ours -> MULTIGPU_REVISION of its environment, the hash
               of its command line, and the Unix time at which it started
    managed    files of ours: sha256, size, mode, owner, mtime; content only for stamps of runtimes
               (all of it) and for units (the first line)
    toolchain  machine (`uname -m`), interpreters with whether they have ensurepip, programs that
               installing and building need with their path and what they print of their version,
               header files of toolkits that are there; read in every run, bounded in time
    runtimes   names of the directories below /opt/multigpu/runtimes, and of each service the names
               that its record links to: current, previous
    paths      the asked paths -> size, mode, owner, mtime, null when there is nothing
    incomplete names of the parts that did not answer in time
    end        the end marker: without it the document was cut

Whole run below 20 s: parts run in threads, tools in their own process group, and a tool that
cannot be killed (a driver in uninterruptible sleep) is left behind. Python 3.9+, stdlib only.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import threading
import time
from typing import Any, Dict, List, Sequence, Tuple

from multigpu.host.probe.amd import read_amdgpu, read_kfd, read_kfd_processes
from multigpu.host.probe.files import path_state, under
from multigpu.host.probe.nvml import read_nvml
from multigpu.host.probe.ours import read_cgroups, read_main_processes, read_managed, read_paths
from multigpu.host.probe.pci import read_pci
from multigpu.host.probe.system import read_disks, read_files, read_system
from multigpu.host.probe.toolchain import read_runtimes, read_toolchain
from multigpu.host.probe.tools import (
    COMMANDS,
    DRIVER_S,
    LSPCI,
    TOOL_S,
    Part,
    Parts,
    kernel_log,
    lspci_of,
    run_tool,
    show_units,
    single_cards,
    tool_record,
)

SCHEMA = 1
END = "multigpu-capture-end"

WHOLE_S = 17.0


def gather(parts: Parts, deadline: float) -> Tuple[Dict[str, Any], List[str]]:
    """Run every part in its own thread; give what came before the deadline and what did not."""
    results: Dict[str, Any] = {}

    def work(name: str, part: Part) -> None:
        results[name] = part()

    threads = {
        name: threading.Thread(target=work, args=(name, part), daemon=True)
        for name, part in parts.items()
    }
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    done = dict(results)
    return done, [name for name in parts if name not in done]


def tool_parts(root: str, limit: float) -> Parts:
    """The tools by command line."""
    parts: Parts = {
        command: functools.partial(run_tool, command.split(), min(seconds, limit))
        for command, seconds in COMMANDS
    }
    parts["systemctl show"] = lambda: show_units(root, min(TOOL_S, limit))
    parts[LSPCI] = lambda: lspci_of(
        [d["address"] or "" for d in read_pci(root)], min(TOOL_S, limit)
    )
    parts["journalctl -k"] = lambda: kernel_log(min(TOOL_S, limit))
    return parts


def capture(root: str, paths: Sequence[str], limit: float) -> Dict[str, Any]:
    """The whole document."""
    started = time.monotonic()
    deadline = started + min(WHOLE_S, limit + 3.0)
    tools = tool_parts(root, limit)
    rooms: Parts = {
        "files": lambda: read_files(root),
        "system": lambda: read_system(root),
        "disks": lambda: read_disks(root),
        "pci": lambda: read_pci(root),
        "kfd": lambda: read_kfd(root),
        "kfd_device": lambda: path_state(under(root, "/dev/kfd")) or None,
        "kfd_processes": lambda: read_kfd_processes(root),
        "amdgpu": lambda: read_amdgpu(root),
        "nvml": lambda: read_nvml(root, limit),
        "managed": lambda: read_managed(root),
        "paths": lambda: read_paths(root, paths),
        "toolchain": lambda: read_toolchain(root, min(TOOL_S, limit)),
        "runtimes": lambda: read_runtimes(root),
    }
    first, late = gather({**tools, **rooms}, deadline)
    ran = {name: first.get(name, tool_record(None, b"", b"", limit, True)) for name in tools}
    cards = single_cards(ran, first.get("pci"), min(TOOL_S, limit))
    extra, slow = gather(cards, deadline)
    ran.update(extra)
    second, last = gather(
        {
            "processes": lambda: read_cgroups(ran),
            "main_processes": lambda: read_main_processes(ran),
        },
        max(deadline, time.monotonic() + 1.0),
    )
    return {
        "schema": SCHEMA,
        "seconds": round(time.monotonic() - started, 2),
        "tools": ran,
        **{name: first.get(name) for name in rooms},
        **second,
        "incomplete": late + slow + last,
        "end": END,
    }


def main() -> None:
    """Print the document and leave at once: a stuck thread must not hold the exit."""
    parser = argparse.ArgumentParser(prog="probe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--path", action="append", default=[], help="also report this path")
    parser.add_argument("--root", default="/", help="read files below this directory")
    parser.add_argument("--timeout", type=float, default=DRIVER_S, help="seconds for each tool")
    arguments = parser.parse_args()
    document = capture(arguments.root, arguments.path, arguments.timeout)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    sys.stdout.flush()
    os._exit(0)
