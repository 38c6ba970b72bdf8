"""What is ours on a host: systemd units and files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnitState:
    """A systemd unit of ours (`systemctl show`). `revision` is the one its process carries,
    `command_sha256` the hash of its command line as /proc/PID/cmdline gives it.

    `started_at` is the Unix time at which the main process started.
    """

    name: str
    load_state: str | None = None
    active_state: str | None = None
    sub_state: str | None = None
    result: str | None = None
    n_restarts: int | None = None
    main_pid: int | None = None
    need_daemon_reload: bool | None = None
    unit_file_state: str | None = None
    revision: str | None = None
    command_sha256: str | None = None
    started_at: float | None = None


@dataclass(frozen=True)
class ManagedFile:
    """A file of ours on the host, by content. `sha256` is None when the file could not be read.

    `content` is kept only for the stamps that say which runtime is installed, and of unit files the
    first line; `modified_at` is the Unix time of the last change of content (mtime).
    """

    path: str
    sha256: str | None
    size_bytes: int | None = None
    mode: str | None = None
    owner: str | None = None
    content: str | None = None
    modified_at: float | None = None


@dataclass(frozen=True)
class Generation:
    """Which directory of /opt/multigpu/runtimes a service runs from, and which one it ran from
    before; names, None where there is none."""

    service: str
    current: str | None = None
    previous: str | None = None
