"""Service values to systemd text: one unit and one environment file per process.

Templates come in as text, so that nothing here opens a file. Quoting follows systemd.service(5)
("Command lines") and systemd.exec(5) ("EnvironmentFile=").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined

from multigpu.plan import Plan, Service, Setting, Wish

USER = "multigpu"
UNIT_DIRECTORY = "/etc/systemd/system"
CONFIG_DIRECTORY = "/etc/multigpu"
MARK = "# Rendered by multigpu "
"""How our files begin. A multigpu-*.service without it is somebody else's."""
UNIT_TEMPLATE, ENVIRONMENT_TEMPLATE = "multigpu.service.j2", "multigpu.env.j2"
STOP_S = 40
CUDA_DEVICES = ("char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "char-nvidia-caps")

# "#" and ";" at the begin of a line are comments, even within a continued one; a CR ends a line.
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%$+=:,./-]+")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\x7f": "\\x7f"} | {
    chr(code): f"\\x{code:02x}" for code in range(1, 32)
}


@dataclass(frozen=True)
class TextFile:
    """A file to install on the host: absolute path, content, mode in octal digits."""

    path: str
    content: str
    mode: str = "0644"

    @property
    def sha256(self) -> str:
        """Of the UTF-8 content, hexadecimal."""
        return hashlib.sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True)
class RenderedUnit:
    """One process as systemd will run it. `revision` is what its process will carry.

    `wish` names the wished service that the process belongs to; replicas share it.
    """

    service: Service
    revision: str
    files: tuple[TextFile, ...]
    start_s: int
    bind: str = "127.0.0.1"
    wish: str = ""
    argv: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The unit's name."""
        return unit_name(self.service)

    @property
    def command_sha256(self) -> str:
        """Hash of the command line as the kernel will show it in /proc/PID/cmdline."""
        return hashlib.sha256("".join(f"{word}\0" for word in self.argv).encode()).hexdigest()

    @property
    def url(self) -> str:
        """Where the service answers on its own host."""
        return local_url(self.bind, self.service.port)


def unit_name(service: Service) -> str:
    """`multigpu-chat.service`."""
    return f"multigpu-{service.name}.service"


def local_url(bind: str, port: int) -> str:
    """How a service that listens at `bind` is reached from its own host."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def exec_word(word: str) -> str:
    """One argument of ExecStart=: quoted, with specifiers and variables made literal."""
    literal = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN_WORD.fullmatch(literal):
        return literal
    return '"' + "".join(_ESCAPES.get(c, c) for c in literal) + '"'


def exec_line(argv: Iterable[str]) -> str:
    """ExecStart= with each flag and its values on a line of their own."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(exec_word(word))
    return " \\\n  ".join(" ".join(line) for line in lines if line)


def env_value(value: str) -> str:
    """One value of an environment file, quoted when it needs to be."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    for special in '\\"`$':
        value = value.replace(special, "\\" + special)
    return f'"{value}"'


def comment(text: str) -> str:
    """One line. systemd before 254 lets a backslash at its end swallow the next line."""
    return " ".join(text.split()).rstrip("\\ ")


def _environment() -> Environment:
    # Unit files are no HTML: nothing is escaped here, the filters do systemd's quoting.
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, autoescape=False
    )
    environment.filters |= {"exec_line": exec_line, "env_value": env_value, "comment": comment}
    return environment


def render(
    plan: Plan,
    service: Service,
    *,
    host_program: str,
    extra: tuple[Setting, ...],
    templates: Mapping[str, str],
) -> RenderedUnit:
    """The unit of one process. `host_program` is the path of the program archive on the host.

    Raises jinja2.UndefinedError when a template names a value that is not there.
    """
    jinja = _environment()
    environment_file = f"{CONFIG_DIRECTORY}/{service.name}.env"
    values = {
        "plan_file": f"plans/{plan.host}.yaml",
        "service": service,
        "summary": summary(plan),
        "user": USER,
        "environment_file": environment_file,
        "state": f"multigpu/{plan.wish.name}",
        "argv": supervised(service, host_program, plan.wish),
        "start_s": plan.wish.start_s,
        "stop_s": STOP_S,
        "device_allow": device_allow(plan.wish.devices),
        "settings": (*service.environment, *extra),
    }
    environment = jinja.from_string(templates[ENVIRONMENT_TEMPLATE]).render(values)
    template = jinja.from_string(templates[UNIT_TEMPLATE])
    revision = digest(template.render(values, revision="") + environment)
    unit = template.render(values, revision=revision)
    return RenderedUnit(
        service,
        revision,
        (
            # Only systemd reads it; an operator may have put a token into env.
            TextFile(environment_file, environment, "0600"),
            TextFile(f"{UNIT_DIRECTORY}/{unit_name(service)}", unit),
        ),
        plan.wish.start_s,
        plan.wish.bind,
        plan.wish.name,
        supervised(service, host_program, plan.wish),
    )


def supervised(service: Service, host_program: str, wish: Wish) -> tuple[str, ...]:
    """The engine's command line under the supervisor that gives it a readiness gate."""
    health = local_url(wish.bind, service.port) + service.health_path
    gate = ("--health", health, "--start-s", str(wish.start_s), "--exclusive")
    return ("/usr/bin/python3", host_program, "supervise", *gate, "--", *service.argv)


def device_allow(devices: Iterable[str] | None) -> tuple[str, ...]:
    """Device groups that the processes may open; llama.cpp's RPC devices are no device files."""
    remote = devices is not None and all(name.startswith("RPC") for name in devices)
    return () if remote else CUDA_DEVICES


def summary(plan: Plan) -> str:
    """One phrase for Description=: what runs over which cards."""
    cards = ",".join(str(gpu) for gpu in plan.chosen.gpus)
    simulated = " (simulated)" if plan.simulated else ""
    return f"{plan.chosen.runtime} {plan.chosen.strategy} on GPU {cards}{simulated}"


def digest(text: str) -> str:
    """Short content hash: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
