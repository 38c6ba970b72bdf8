"""One address in front of the engines of a service: HAProxy from the host's distribution.

Values only: where an endpoint and its engines listen, its configuration and its unit as text.
`operations.endpoint` brings them to a host. The words are those of the configuration manual of
HAProxy 2.6 (Debian 12), where they were run; none of them is meant to be newer than 2.4 (RHEL 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multigpu import credentials
from multigpu.listening import LOOPBACK, address, beside, wanted
from multigpu.plan import Plan, Service
from multigpu.sandbox import LOCALHOST, PRIVATE, Sandbox, scope
from multigpu.unit_text import digest, environment
from multigpu.units import CONFIG_DIRECTORY, UNIT_DIRECTORY, TextFile, local_url
from multigpu.wish_values import Balance, Endpoint

CONFIG_TEMPLATE, UNIT_TEMPLATE = "haproxy.cfg.j2", "multigpu-endpoint.service.j2"
PREFIX = "multigpu-endpoint-"
"""How the names of the units begin that are endpoints."""
UNPRIVILEGED = 1024
STOP_S = 10
"""For streams when the unit itself restarts, while new clients are refused."""
STREAM_S = 3600
"""The longest silence of a stream, and how long a worker that was reloaded away may finish its
own."""
CONNECTIONS = 1024
QUEUE_FACTOR, SHORTEST_QUEUE = 8, 64
QUEUE_S = 600
PREFIX_BYTES = 1024
BYTES_PER_TOKEN = 8
"""Of a request's JSON: some four of text, and room for escapes, roles and tool schemas."""
SMALLEST_BUFFER, LARGEST_BUFFER = 64 << 10, 2 << 20


@dataclass(frozen=True)
class RenderedEndpoint:
    """An endpoint as systemd and HAProxy will run it.

    `revision` is what the process at the top carries in its environment, `config_revision` what
    the working process says of itself (`show info`). `servers` are the services behind it, which
    HAProxy knows by the same names; `secrets` paths on the host of files that it reads besides its
    configuration. `url` is where it answers on its own host.
    """

    wish: str
    revision: str
    config_revision: str
    files: tuple[TextFile, ...]
    servers: tuple[str, ...]
    port: int
    url: str
    secrets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The unit's name."""
        return unit_name(self.wish)

    @property
    def socket(self) -> str:
        """Where HAProxy takes commands, root's only."""
        return socket_path(self.wish)


def unit_name(wish: str) -> str:
    """`multigpu-endpoint-chat.service`."""
    return f"{PREFIX}{wish}.service"


def socket_path(wish: str) -> str:
    """In the runtime directory of the unit."""
    return f"/run/{PREFIX}{wish}/admin.sock"


def buffer_bytes(plan: Plan) -> int:
    """What a request may hold to be sent a second time, a power of two.

    HAProxy repeats only what fits into one buffer (`retry-on`).
    """
    wished = BYTES_PER_TOKEN * (plan.chosen.max_model_len or plan.workload.context)
    return min(LARGEST_BUFFER, max(SMALLEST_BUFFER, 1 << (wished - 1).bit_length()))


def longest_queue(plan: Plan) -> int:
    """Requests that may wait in the endpoint before the next one is told to come back."""
    slots = (plan.chosen.max_num_seqs or 1) * plan.chosen.replicas
    return max(SHORTEST_QUEUE, QUEUE_FACTOR * slots)


def render(
    plan: Plan, services: Sequence[Service], *, templates: Mapping[str, str]
) -> RenderedEndpoint | None:
    """The endpoint in front of `services`, which were rendered from `behind(plan)`; None without.

    Raises jinja2.UndefinedError when a template names a value that is not there.
    """
    endpoint = wanted(plan)
    if endpoint is None:
        return None
    name, (bind, port) = plan.wish.name, address(plan)
    values = _values(plan, endpoint, services)
    jinja = environment(templates)
    config, unit = jinja.get_template(CONFIG_TEMPLATE), jinja.get_template(UNIT_TEMPLATE)
    config_revision = digest(config.render(values, revision=""))
    revision = digest(unit.render(values, revision=""))
    path = f"{UNIT_DIRECTORY}/{unit_name(name)}"
    return RenderedEndpoint(
        name,
        revision,
        config_revision,
        (
            TextFile(_config_path(name), config.render(values, revision=config_revision)),
            TextFile(path, unit.render(values, revision=revision)),
        ),
        tuple(service.name for service in services),
        port,
        local_url(bind, port).replace("http", "https" if endpoint.certificate else "http", 1),
        tuple(_secrets(plan).values()),
    )


def _config_path(wish: str) -> str:
    return f"{CONFIG_DIRECTORY}/endpoint-{wish}.cfg"


def _secrets(plan: Plan) -> dict[str, str]:
    """Files on the host that HAProxy reads besides its configuration, by their names."""
    read = (credentials.CERTIFICATE, credentials.API_KEY)
    there = {each.path for each in credentials.wanted(plan.wish)}
    paths = {name: credentials.path(plan.wish.name, name) for name in read}
    return {name: path for name, path in paths.items() if path in there}


def _values(plan: Plan, endpoint: Endpoint, services: Sequence[Service]) -> dict[str, object]:
    name = plan.wish.name
    bind, port = address(plan)
    return {
        "plan_file": f"plans/{plan.host}.yaml",
        "name": name,
        "directory": f"{PREFIX}{name}",
        "socket": socket_path(name),
        "config_path": _config_path(name),
        "listen": f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}",
        "port": port,
        "metrics_port": beside(port),
        "secrets": _secrets(plan),
        "prefix_hash": endpoint.balance is Balance.PREFIX_HASH,
        "prefix_bytes": PREFIX_BYTES,
        "servers": [_server(service) for service in services],
        "health_path": services[0].health_path,
        "slots": plan.chosen.max_num_seqs,
        "queue": longest_queue(plan),
        "queue_s": QUEUE_S,
        "stream_s": STREAM_S,
        "connections": CONNECTIONS,
        "buffer_bytes": buffer_bytes(plan),
        "stop_s": STOP_S,
        "sandbox": _sandbox(bind, port),
    }


def _sandbox(bind: str, port: int) -> Sandbox:
    addresses = {"loopback": LOCALHOST, "private": PRIVATE}.get(scope(bind))
    return Sandbox(
        tcp_ports=(port, beside(port)),
        addresses=addresses,
        addresses_why=f"it listens at the public address {bind}",
        capabilities=("CAP_NET_BIND_SERVICE",) if port < UNPRIVILEGED else (),
    )


def _server(service: Service) -> dict[str, object]:
    return {
        "name": service.name,
        "address": f"{LOOPBACK}:{service.port}",
        "verdict_port": beside(service.port),
    }
