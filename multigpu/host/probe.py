"""Print one captured machine: the raw text of every tool, as one ASCII JSON document.

Sent whole to a host as `python3 - [--path P]... <<'EOF'`, or run as a program; the output is what
`multigpu.parse.capture.read` reads, what the tests keep as machines, and what a bug report holds.
Nothing is judged here. The document:

    schema     1
    tools      command line -> rc, stdout and stderr as lists of lines, seconds, timed_out;
               or rc null and missing true
    files      path -> text, null when it could not be read
    system     cpus, cpu_model, numa_nodes, kernel, machine (`uname -m`), glibc, python, uid,
               hostname, machine_id (key of pseudonyms, never kept in a file), IOMMU group types
               with their counts
    disks      mount point -> free bytes
    pci        GPUs and every port above them: link, class, NUMA node, driver, error counters, BARs
    kfd        AMD: path below /sys/class/kfd/kfd/topology/nodes -> text; null without KFD
    kfd_device state of /dev/kfd, null when it is not there
    kfd_processes  pid of every process of KFD -> name, cgroup, and bytes of VRAM by gpu_id
    amdgpu     PCI address of every AMD display function -> sysfs file of amdgpu -> text
    processes  pid of every process that holds VRAM of an NVIDIA card -> its cgroup
    main_processes  MainPID of every unit of ours -> MULTIGPU_REVISION of its environment, the hash
               of its command line, and the Unix time at which it started
    managed    files of ours: sha256, size, mode, owner, mtime; content only for stamps of runtimes
               (all of it) and for units (the first line)
    paths      the asked paths -> size, mode, owner, mtime, null when there is nothing
    incomplete names of the parts that did not answer in time
    end        the end marker: without it the document was cut

Whole run below 20 s: parts run in threads, tools in their own process group, and a tool that
cannot be killed (a driver in uninterruptible sleep) is left behind. Python 3.9+, stdlib only.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import glob
import grp
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

Part = Callable[[], Any]
Parts = Dict[str, Part]

SCHEMA = 1
END = "multigpu-capture-end"

TOOL_S = 10.0
WHOLE_S = 17.0

# Eight cards without the persistence daemon take seconds per call: the driver starts each of them.
DRIVER_S = 14.0

COMMANDS: Tuple[Tuple[str, float], ...] = (
    ("nvidia-smi -q -x", DRIVER_S),
    ("nvidia-smi --query-gpu=index,pci.bus_id,compute_cap --format=csv,noheader", DRIVER_S),
    ("nvidia-smi topo -m", DRIVER_S),
    ("nvidia-smi topo -mp", DRIVER_S),
    ("nvidia-smi topo -p2p r", DRIVER_S),
    ("nvidia-smi topo -p2p w", DRIVER_S),
    ("nvidia-smi nvlink -s", DRIVER_S),
    ("amd-smi static --json", TOOL_S),
    ("systemd-detect-virt", TOOL_S),
    ("systemctl --version", TOOL_S),
    ("modinfo -F license nvidia", TOOL_S),
)
LSPCI = "lspci -vvv -D -nn"
KERNEL_LOG = "journalctl -k -b -q --no-pager --no-hostname -o short-unix"

# What is kept of the kernel log: GPUs, their links, and programs that died of either.
KERNEL_LINES = re.compile(
    r"NVRM|nvidia|nvswitch|SXid|amdgpu|\bAER\b|available PCIe bandwidth|fallen off the bus|D3cold|"
    r"Out of memory|oom-kill|segfault .*(nccl|rccl|cuda|hip|ggml|torch)",
    re.IGNORECASE,
)
KERNEL_FIRST, KERNEL_LAST = 100, 400

FILES = (
    "/etc/os-release",
    "/opt/rocm/.info/version",
    "/proc/cmdline",
    "/proc/driver/nvidia/params",
    "/proc/driver/nvidia/version",
    "/proc/meminfo",
    "/sys/class/dmi/id/product_name",
    "/sys/class/dmi/id/sys_vendor",
    "/sys/module/nvidia/version",
)

DISKS = ("/", "/var/lib")

UNIT_FILES = "/etc/systemd/system/multigpu-*"
MANAGED = (
    UNIT_FILES,
    "/etc/multigpu/**",
    "/opt/multigpu/host/*",
    "/opt/multigpu/wheels/**",
    "/var/lib/multigpu/models/**",
)
FIRST_LINE = 200
STAMPS = "/opt/multigpu/runtimes/*/installed"

UNIT_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "NeedDaemonReload",
    "UnitFileState",
)

# Display controllers and processing accelerators; an NVSwitch is a bridge (0680).
GPU_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
PCI_FILES = (
    "vendor",
    "device",
    "class",
    "current_link_speed",
    "current_link_width",
    "max_link_speed",
    "max_link_width",
    "numa_node",
    "local_cpulist",
    "subsystem_vendor",
    "subsystem_device",
    "resource",
    "aer_dev_correctable",
    "aer_dev_fatal",
    "aer_dev_nonfatal",
)
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$")

# Hundreds of lines per card that nobody plans with; the rest of the XML stays as printed.
SUPPORTED_CLOCKS = re.compile(r"<supported_clocks>.*?</supported_clocks>", re.DOTALL)

LARGEST_HASHED_BYTES = 16 << 20


def text_of(data: bytes) -> str:
    """Bytes as text; what is not UTF-8 is kept as a backslash escape."""
    return data.decode("utf-8", "backslashreplace")


def read_text(path: str) -> Optional[str]:
    """A small file as text without the final newline, None when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return text_of(stream.read(1 << 20)).rstrip("\n")
    except OSError:
        return None


# --- tools -----------------------------------------------------------------------------------


def run_tool(argv: Sequence[str], seconds: float) -> Dict[str, Any]:
    """Run one tool in its own process group and keep what it printed."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=tool_environment(),
        )
    except FileNotFoundError:
        return {"rc": None, "missing": True}
    except OSError as error:
        return tool_record(None, b"", str(error).encode("utf-8", "replace"), 0.0, False)
    output, errors, timed_out = wait_for(process, seconds)
    return tool_record(process.returncode, output, errors, time.monotonic() - started, timed_out)


def wait_for(process: subprocess.Popen[bytes], seconds: float) -> Tuple[bytes, bytes, bool]:
    """Output, errors and whether the time ran out; never waits for what cannot be killed."""
    try:
        output, errors = process.communicate(timeout=seconds)
        return output, errors, False
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
    try:
        output, errors = process.communicate(timeout=1.0)
    except subprocess.TimeoutExpired as stuck:
        output, errors = stuck.output or b"", stuck.stderr or b""
    return output, errors, True


def kill_group(pid: int) -> None:
    """Kill a tool and whatever it started; start_new_session made its pid the group's id."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        return


def tool_environment() -> Dict[str, str]:
    """Untranslated output, and the directories that a non-login shell leaves out of PATH."""
    path = os.environ.get("PATH", "")
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**os.environ, "LC_ALL": "C", "PATH": f"{path}:{usual}" if path else usual}


def tool_record(
    rc: Optional[int], output: bytes, errors: bytes, seconds: float, timed_out: bool
) -> Dict[str, Any]:
    """The JSON value of one tool's run."""
    stdout = SUPPORTED_CLOCKS.sub("<!-- supported_clocks left out -->", text_of(output))
    return {
        "rc": rc,
        "seconds": round(seconds, 2),
        "timed_out": timed_out,
        "stdout": stdout.split("\n"),
        "stderr": text_of(errors).split("\n"),
    }


def show_units(root: str, seconds: float) -> Dict[str, Any]:
    """`systemctl show` of every unit of ours: loaded ones by pattern, the others by their file."""
    names = {os.path.basename(path) for path in glob.glob(under(root, UNIT_FILES))}
    known = sorted(name for name in names if "@." not in name and not name.endswith(".d"))
    properties = ",".join(UNIT_PROPERTIES)
    argv = ["systemctl", "show", "--no-pager", f"--property={properties}", "multigpu-*", *known]
    return run_tool(argv, seconds)


def lspci_of(addresses: Sequence[str], seconds: float) -> Dict[str, Any]:
    """lspci in full for these devices only: a large server's whole output has a megabyte."""
    record = run_tool(LSPCI.split(), seconds)
    paragraphs = "\n".join(record.get("stdout", [])).split("\n\n")
    kept = [text for text in paragraphs if text.split(" ", 1)[0] in set(addresses)]
    return {**record, **({"stdout": "\n\n".join(kept).split("\n")} if "stdout" in record else {})}


def kernel_log(seconds: float) -> Dict[str, Any]:
    """The kernel's lines about GPUs since boot, from the journal, else from its ring buffer."""
    record = run_tool(KERNEL_LOG.split(), seconds)
    if not any(line.strip() for line in record.get("stdout", [])):
        record = run_tool(["dmesg"], seconds)
    lines = [line for line in record.get("stdout", []) if KERNEL_LINES.search(line)]
    if len(lines) > KERNEL_FIRST + KERNEL_LAST:
        left_out = len(lines) - KERNEL_FIRST - KERNEL_LAST
        lines = [*lines[:KERNEL_FIRST], f"... {left_out} lines left out", *lines[-KERNEL_LAST:]]
    return {**record, **({"stdout": lines} if "stdout" in record else {})}


def single_cards(tools: Dict[str, Any], devices: Any, limit: float) -> Parts:
    """One query per card, for when nvidia-smi refuses to speak of any because one has no handle."""
    record = tools.get(COMMANDS[0][0], {})
    said = "\n".join(record.get("stdout", []) + record.get("stderr", []))
    if "</nvidia_smi_log>" in said or "device handle" not in said:
        return {}
    cards = [
        device["address"]
        for device in devices or []
        if device["vendor"] == "0x10de" and (device["class"] or "").startswith(GPU_CLASSES)
    ]
    commands = [f"{COMMANDS[0][0]} -i {address}" for address in cards]
    return {command: functools.partial(run_tool, command.split(), limit) for command in commands}


# --- files, PCI, system ----------------------------------------------------------------------


def under(root: str, path: str) -> str:
    """The path below another root directory; `/` leaves it as it is."""
    return path if root == "/" else root.rstrip("/") + path


def outside(root: str, path: str) -> str:
    """The way back from `under`."""
    return path if root == "/" else path[len(root.rstrip("/")) :]


def read_files(root: str) -> Dict[str, Optional[str]]:
    """Text of the constant list of files."""
    return {path: read_text(under(root, path)) for path in FILES}


def read_pci(root: str) -> List[Dict[str, Optional[str]]]:
    """Every GPU and every port above it, each once, by address."""
    base = under(root, "/sys/bus/pci/devices")
    found: Dict[str, Dict[str, Optional[str]]] = {}
    for address in sorted(os.listdir(base)) if os.path.isdir(base) else []:
        if not (read_text(f"{base}/{address}/class") or "").startswith(GPU_CLASSES):
            continue
        directory = os.path.realpath(f"{base}/{address}")
        while PCI_ADDRESS.match(os.path.basename(directory)):
            name = os.path.basename(directory)
            found.setdefault(name, pci_device(directory))
            directory = os.path.dirname(directory)
    return [found[address] for address in sorted(found)]


def pci_device(directory: str) -> Dict[str, Optional[str]]:
    """One device of sysfs; `parent` is the port above, None below the root complex."""
    parent = os.path.basename(os.path.dirname(directory))
    driver = f"{directory}/driver"
    return {
        "address": os.path.basename(directory),
        "parent": parent if PCI_ADDRESS.match(parent) else None,
        "driver": os.path.basename(os.path.realpath(driver)) if os.path.exists(driver) else None,
        **{name: read_text(f"{directory}/{name}") for name in PCI_FILES},
    }


def read_system(root: str) -> Dict[str, Any]:
    """What Python itself knows of the machine, and the IOMMU groups."""
    nodes = glob.glob(under(root, "/sys/devices/system/node/node[0-9]*"))
    return {
        "cpus": os.cpu_count(),
        "cpu_model": cpu_model(root),
        "hostname": platform.node() or None,
        "machine_id": read_text(under(root, "/etc/machine-id")),
        "numa_nodes": len(nodes) or None,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "glibc": glibc_version(),
        "python": list(sys.version_info[:3]),
        "uid": os.geteuid(),
        "iommu_groups": iommu_groups(root),
    }


def cpu_model(root: str) -> Optional[str]:
    """The first processor's name."""
    match = re.search(
        r"^model name\s*:\s*(.+)$", read_text(under(root, "/proc/cpuinfo")) or "", re.M
    )
    return match[1].strip() if match else None


def glibc_version() -> Optional[str]:
    """`2.39`, None on another C library."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1]
    except (ValueError, OSError, IndexError):
        return None


def iommu_groups(root: str) -> Dict[str, int]:
    """Type of an IOMMU group (identity, DMA, DMA-FQ, blocked, unknown) -> how many groups."""
    counts: Dict[str, int] = {}
    for group in glob.glob(under(root, "/sys/kernel/iommu_groups/[0-9]*")):
        kind = read_text(f"{group}/type") or "unknown"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def read_disks(root: str) -> Dict[str, Optional[int]]:
    """Free bytes for a normal user."""
    free: Dict[str, Optional[int]] = {}
    for path in DISKS:
        try:
            free[path] = shutil.disk_usage(under(root, path)).free
        except OSError:
            free[path] = None
    return free


# --- AMD -------------------------------------------------------------------------------------

KFD = "/sys/class/kfd/kfd"
KFD_FILES = (
    "properties",
    "gpu_id",
    "name",
    "io_links/*/properties",
    "p2p_links/*/properties",
    "mem_banks/*/properties",
)
AMDGPU_FILES = (
    "mem_info_vram_total",
    "mem_info_vram_used",
    "mem_info_vis_vram_total",
    "vbios_version",
    "unique_id",
    "revision",
    "product_name",
    "current_compute_partition",
    "current_memory_partition",
    "gpu_busy_percent",
    "power_dpm_force_performance_level",
    "xgmi_hive_info/xgmi_hive_id",
    "ras/umc_err_count",
)
HWMON_FILES = (
    "power1_cap",
    "power1_cap_default",
    "power1_cap_max",
    "power1_average",
    "power1_input",
    "temp1_input",
)


def read_kfd(root: str) -> Optional[Dict[str, str]]:
    """Nodes of KFD's topology with their links and memory banks; None without KFD."""
    base = under(root, f"{KFD}/topology/nodes")
    if not os.path.isdir(base):
        return None
    paths = [path for name in KFD_FILES for path in glob.glob(f"{base}/*/{name}")]
    return texts({path[len(base) + 1 :]: path for path in sorted(paths)})


def texts(paths: Dict[str, str]) -> Dict[str, str]:
    """Name -> text of the files that can be read."""
    found = {name: read_text(path) for name, path in paths.items()}
    return {name: text for name, text in found.items() if text is not None}


def read_kfd_processes(root: str) -> Dict[str, Dict[str, Any]]:
    """Processes that use a GPU through KFD; a file `vram_<gpu_id>` says how many bytes it holds."""
    found: Dict[str, Dict[str, Any]] = {}
    for directory in sorted(glob.glob(under(root, f"{KFD}/proc/[0-9]*"))):
        pid = os.path.basename(directory)
        held = {path.rpartition("vram_")[2]: path for path in glob.glob(f"{directory}/vram_*")}
        found[pid] = {
            "name": read_text(under(root, f"/proc/{pid}/comm")),
            "cgroup": read_text(under(root, f"/proc/{pid}/cgroup")),
            "vram": texts(held),
        }
    return found


def read_amdgpu(root: str) -> Dict[str, Dict[str, str]]:
    """Files of amdgpu in sysfs by PCI address; `drm` names the render node."""
    found: Dict[str, Dict[str, str]] = {}
    for directory in sorted(glob.glob(under(root, "/sys/bus/pci/devices/*"))):
        if read_text(f"{directory}/vendor") != "0x1002":
            continue
        if not (read_text(f"{directory}/class") or "").startswith(GPU_CLASSES):
            continue
        files = {name: f"{directory}/{name}" for name in AMDGPU_FILES}
        for name in HWMON_FILES:
            for path in glob.glob(f"{directory}/hwmon/hwmon*/{name}"):
                files[name] = path
        nodes = [os.path.basename(path) for path in glob.glob(f"{directory}/drm/renderD*")]
        drm = {"drm": " ".join(sorted(nodes))} if nodes else {}
        found[os.path.basename(directory)] = {**texts(files), **drm}
    return found


# --- what is ours ----------------------------------------------------------------------------


def read_managed(root: str) -> List[Dict[str, Any]]:
    """Files of ours by content hash; of stamps the content, of units the line they begin with."""
    patterns = [under(root, pattern) for pattern in (*MANAGED, STAMPS)]
    found = {path for pattern in patterns for path in glob.glob(pattern, recursive=True)}
    return [managed_file(root, path) for path in sorted(found) if os.path.isfile(path)]


def managed_file(root: str, path: str) -> Dict[str, Any]:
    """One file; sha256 is None when it cannot be read or is no file of ours by its size."""
    place = outside(root, path)
    file: Dict[str, Any] = {"path": place, "sha256": sha256_of(path), **path_state(path)}
    if fnmatch.fnmatch(place, STAMPS):
        file["content"] = read_text(path)
    elif fnmatch.fnmatch(place, UNIT_FILES):
        file["content"] = (read_text(path) or "").partition("\n")[0][:FIRST_LINE]
    return file


def sha256_of(path: str) -> Optional[str]:
    """Hash of a small file."""
    try:
        if os.path.getsize(path) > LARGEST_HASHED_BYTES:
            return None
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None


def path_state(path: str) -> Dict[str, Any]:
    """Size, permission bits, owner and change of content; empty when there is nothing."""
    try:
        state = os.stat(path)
    except OSError:
        return {}
    return {
        "size": state.st_size,
        "mode": f"{stat.S_IMODE(state.st_mode):04o}",
        "owner": owner_of(state),
        "mtime": state.st_mtime,
        "directory": stat.S_ISDIR(state.st_mode),
    }


def owner_of(state: os.stat_result) -> str:
    """`user:group`, numbers where there is no name."""
    try:
        user = pwd.getpwuid(state.st_uid).pw_name
    except KeyError:
        user = str(state.st_uid)
    try:
        group = grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        group = str(state.st_gid)
    return f"{user}:{group}"


def read_paths(root: str, paths: Sequence[str]) -> Dict[str, Optional[Dict[str, Any]]]:
    """State of the paths asked for."""
    return {path: path_state(under(root, path)) or None for path in paths}


def read_cgroups(tools: Dict[str, Any]) -> Dict[str, Optional[str]]:
    """cgroup of each process that nvidia-smi lists; it names the systemd unit."""
    queries = [run for command, run in tools.items() if command.startswith(COMMANDS[0][0])]
    printed = "\n".join(line for run in queries for line in run.get("stdout", []))
    pids = sorted(set(re.findall(r"<pid>(\d{1,9})</pid>", printed)), key=int)
    return {pid: read_text(f"/proc/{pid}/cgroup") for pid in pids}


def read_main_processes(tools: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """Revision, command line by hash, and start of each unit's main process; no environment."""
    lines = tools.get("systemctl show", {}).get("stdout", [])
    pids = re.findall(r"^MainPID=([1-9]\d{0,8})$", "\n".join(lines), re.MULTILINE)
    return {pid: main_process(pid) for pid in pids}


def main_process(pid: str) -> Dict[str, Any]:
    """What one running process carries; the command line only by hash, for it may say anything."""
    return {
        "revision": revision_of(pid),
        "command_sha256": sha256_of(f"/proc/{pid}/cmdline"),
        "started_at": started_at(pid),
    }


def revision_of(pid: str) -> Optional[str]:
    """The revision a running process was started with."""
    for line in (read_text(f"/proc/{pid}/environ") or "").split("\0"):
        if line.startswith("MULTIGPU_REVISION="):
            return line.partition("=")[2]
    return None


def started_at(pid: str) -> Optional[float]:
    """Unix time of a process's start, to about 20 ms; None when it is gone.

    /proc/stat's btime has whole seconds only, too coarse beside the time of a file written just
    before the start.
    """
    try:
        # The program's name, in parentheses, may hold blanks; starttime is field 22 (proc(5)).
        ticks = int((read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()[19])
        uptime = float((read_text("/proc/uptime") or "").split()[0])
    except (ValueError, IndexError):
        return None
    return round(time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK"), 2)


# --- the whole -------------------------------------------------------------------------------


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
        "managed": lambda: read_managed(root),
        "paths": lambda: read_paths(root, paths),
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


if __name__ == "__main__":
    main()
