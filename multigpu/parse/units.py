"""Readers of what is ours on a host: units, files, and which unit a process belongs to."""

from __future__ import annotations

from multigpu.hardware import ManagedFile, UnitState
from multigpu.parse.shape import integer, items, mapping, real, text, whole


def read_units(show: str, main_processes: object) -> tuple[UnitState, ...]:
    """Units from `systemctl show`, blocks parted by empty lines; a unit named twice counts once.

    `main_processes` maps a MainPID to its revision, the hash of its command line, and its start.
    """
    known = mapping(main_processes)
    units: dict[str, UnitState] = {}
    for block in show.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = values.get("Id")
        if name and values.get("LoadState") != "not-found":
            units[name] = _unit(name, values, known)
    return tuple(units[name] for name in sorted(units))


def _unit(name: str, values: dict[str, str], main_processes: dict[str, object]) -> UnitState:
    pid = whole(values.get("MainPID"))
    process = mapping(main_processes.get(str(pid)))
    return UnitState(
        name=name,
        load_state=values.get("LoadState") or None,
        active_state=values.get("ActiveState") or None,
        sub_state=values.get("SubState") or None,
        result=values.get("Result") or None,
        n_restarts=whole(values.get("NRestarts")),
        # systemd writes 0 where there is no main process.
        main_pid=pid or None,
        need_daemon_reload={"yes": True, "no": False}.get(values.get("NeedDaemonReload", "")),
        unit_file_state=values.get("UnitFileState") or None,
        revision=text(process.get("revision")),
        command_sha256=text(process.get("command_sha256")),
        started_at=real(process.get("started_at")),
    )


def read_files(managed: object) -> tuple[ManagedFile, ...]:
    """Files of ours by path."""
    entries = [mapping(entry) for entry in items(managed)]
    files = {name: _file(name, entry) for entry in entries if (name := text(entry.get("path")))}
    return tuple(files[path] for path in sorted(files))


def read_paths(paths: object) -> tuple[ManagedFile, ...]:
    """Those of the asked paths that exist, files and directories, by path."""
    found = {path: mapping(state) for path, state in mapping(paths).items()}
    return tuple(_file(path, found[path]) for path in sorted(found) if found[path])


def _file(path: str, entry: dict[str, object]) -> ManagedFile:
    return ManagedFile(
        path=path,
        sha256=text(entry.get("sha256")),
        size_bytes=None if entry.get("directory") is True else integer(entry.get("size")),
        mode=text(entry.get("mode")),
        owner=text(entry.get("owner")),
        content=text(entry.get("content")),
        modified_at=real(entry.get("mtime")),
    )


def unit_of(cgroup: str | None) -> str | None:
    """The innermost service or scope of a /proc/PID/cgroup; None for a bare session slice.

    cgroup v2 has one line `0::/system.slice/ollama.service`; v1 names systemd's tree
    `1:name=systemd:/...`.
    """
    for line in (cgroup or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers in ("", "name=systemd"):
            names = [n for n in path.split("/") if n.endswith((".service", ".scope"))]
            if names:
                return names[-1]
    return None
