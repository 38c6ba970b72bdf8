"""Service values to systemd text: one unit and one environment file per process.

Templates come in as text, so that nothing here opens a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from multigpu import credentials, sandbox, supervision
from multigpu.listening import DRAIN_S, beside, wanted
from multigpu.plan import Credential, Plan, Service, Setting, Wish
from multigpu.unit_text import digest, environment

USER = "multigpu"
"""Owner of fetched models, and the group of all services."""
LONGEST_USER = 31
"""useradd(8) takes 32 characters, ps(1) shows a number instead of 32."""
UNIT_DIRECTORY = "/etc/systemd/system"
CONFIG_DIRECTORY = "/etc/multigpu"
MARK = "# Rendered by multigpu "
"""How our files begin. A multigpu-*.service without it is somebody else's."""
UNIT_TEMPLATE, ENVIRONMENT_TEMPLATE = "multigpu.service.j2", "multigpu.env.j2"
HARDENING_TEMPLATE = "hardening.j2"
GAVE_UP = "multigpu-gave-up@.service"
"""What OnFailure= starts, once, when a service is not started again."""


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

    `wish` names the wished service that the process belongs to; replicas share it. `credentials`
    are the paths on the host of the secrets that it gets.
    """

    service: Service
    revision: str
    files: tuple[TextFile, ...]
    start_s: int
    bind: str = "127.0.0.1"
    wish: str = ""
    argv: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()

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


def account(service: str) -> str:
    """The user that the processes of a service run as: `multigpu-chat`, 31 characters at most.

    One user per service: another one can neither read its key in /proc nor lose its files in
    /dev/shm when the first one stops (RemoveIPC=). All are members of the group `multigpu`.
    """
    name = f"{USER}-{service}"
    return name if len(name) <= LONGEST_USER else f"{name[:22]}-{digest(service)[:8]}"


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
    jinja = environment(templates)
    settings = (*service.environment, *extra)
    environment_file = f"{CONFIG_DIRECTORY}/{service.name}.env"
    values = {
        "plan_file": f"plans/{plan.host}.yaml",
        "service": service,
        "wish": plan.wish.name,
        "summary": summary(plan),
        "user": account(plan.wish.name),
        "group": USER,
        "credentials": credential_paths(plan.wish, service),
        "multi_process": plan.chosen.runtime not in sandbox.ONE_PROCESS,
        "environment_file": environment_file,
        "state": f"multigpu/{plan.wish.name}",
        "argv": supervised(service, host_program, plan),
        "start_s": plan.wish.start_s,
        "stop_s": supervision.STOP_S + (DRAIN_S if wanted(plan) else 0),
        "clocks": supervision,
        "ended": ("/usr/bin/python3", host_program, "ended", "--service", service.name),
        "settings": settings,
        "sandbox": sandbox.of_engine(plan, service, settings),
    }
    settings_text = jinja.get_template(ENVIRONMENT_TEMPLATE).render(values)
    template = jinja.get_template(UNIT_TEMPLATE)
    revision = digest(template.render(values, revision="") + settings_text)
    unit = template.render(values, revision=revision)
    return RenderedUnit(
        service,
        revision,
        (
            # Only systemd reads it; an operator may have put a token into env.
            TextFile(environment_file, settings_text, "0600"),
            TextFile(f"{UNIT_DIRECTORY}/{unit_name(service)}", unit),
        ),
        plan.wish.start_s,
        plan.wish.bind,
        plan.wish.name,
        supervised(service, host_program, plan),
        tuple(credential_paths(plan.wish, service).values()),
    )


def credential_paths(wish: Wish, service: Service) -> dict[str, str]:
    """Where the secrets of a process lie on the host, by the names under which it gets them."""
    return {c.name: credentials.path(wish.name, c.name) for c in service.credentials}


def supervised(service: Service, host_program: str, plan: Plan) -> tuple[str, ...]:
    """The engine's command line under the supervisor that gives it a readiness gate.

    Behind an endpoint it also tells HAProxy its verdict, and lets requests end before a stop.
    """
    wish = plan.wish
    health = local_url(wish.bind, service.port) + service.health_path
    gate = ("--health", health, "--start-s", str(wish.start_s), "--exclusive")
    return (
        *("/usr/bin/python3", host_program, "supervise", *gate),
        *supervision.words(plan, service),
        *(_balanced(service) if wanted(plan) else ()),
        *(word for c in service.credentials for word in _handed(c)),
        *("--", *service.argv),
    )


def _balanced(service: Service) -> tuple[str, ...]:
    return ("--verdict-port", str(beside(service.port)), "--drain-s", str(DRAIN_S))


def _handed(credential: Credential) -> tuple[str, ...]:
    """What the supervisor does with a secret; without a way of its own it is only masked."""
    if credential.variable is not None:
        how: tuple[str, ...] = ("--secret", f"{credential.variable}={credential.name}")
    elif credential.config_key is not None:
        how = ("--secret-config", f"{credential.config_key}={credential.name}")
    else:
        how = ("--secret", credential.name)
    bearer = ("--bearer", credential.name) if credential.name == credentials.API_KEY else ()
    return (*how, *bearer)


def summary(plan: Plan) -> str:
    """One phrase for Description=: what runs over which cards."""
    cards = ",".join(str(gpu) for gpu in plan.chosen.gpus)
    simulated = " (simulated)" if plan.simulated else ""
    return f"{plan.chosen.runtime} {plan.chosen.strategy} on GPU {cards}{simulated}"
