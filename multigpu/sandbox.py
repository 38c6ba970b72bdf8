"""What the process of a unit needs beyond computing; `templates/hardening.j2` denies the rest.

Directives are those of systemd.exec(5) and systemd.resource-control(5). What each would break is
said beside it in the template, so that it stands in every unit file.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from multigpu import devices
from multigpu.backend import Backend
from multigpu.listening import beside, wanted
from multigpu.plan import Plan, Service, Setting

LOCALHOST = ("localhost",)
PRIVATE = (
    "localhost",
    "link-local",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
)
"""Addresses that are not routed in the internet (RFC 1918, 4193, 6598), for IPAddressAllow=."""
HOMES = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= hides."""
ONE_PROCESS = ("llama.cpp", "llama_cpp.server")
"""Runtimes that listen at their own port only."""
WRITE_EXECUTE = {
    "vllm": "torch and Triton compile while they run (pytorch issue 143651)",
    "sglang": "torch and Triton compile while they run (pytorch issue 143651)",
    "llama_cpp.server": "Python's callbacks from C may need it (libffi before 3.4)",
}
HIP_EXECUTES = "ROCm maps its queues writable and executable (libhsakmt, queues.c)"
VULKAN_EXECUTES = "Vulkan drivers may compile for the CPU, as Mesa's llvmpipe does"


@dataclass(frozen=True)
class Sandbox:
    """The variable part of a unit's hardening; the defaults allow nothing.

    `devices` are words of DeviceAllow=, None leaves devices alone; `tcp_ports` may be listened at,
    None means any; `network` allows connections without listening; `addresses` are words of
    IPAddressAllow=, None means any, for the reason `addresses_why`. `write_execute` is the reason
    why memory may be writable and executable, None forbids it.
    """

    devices: tuple[str, ...] | None = ()
    groups: tuple[str, ...] = ()
    tcp_ports: tuple[int, ...] | None = ()
    network: bool = False
    addresses: tuple[str, ...] | None = ()
    addresses_why: str = "it talks with the internet"
    write_execute: str | None = None
    home_is_read: bool = False
    capabilities: tuple[str, ...] = ()
    loads_modules: bool = False
    reads_kernel_log: bool = False
    system_calls: tuple[str, ...] = ()
    system_calls_why: str = ""


def of_engine(plan: Plan, service: Service, settings: Iterable[Setting]) -> Sandbox:
    """What one engine process needs; `settings` is the environment that it gets."""
    alone = plan.chosen.runtime in ONE_PROCESS
    addresses, why = _addresses(plan, settings)
    return Sandbox(
        devices=devices.device_allow(plan, service.gpus),
        groups=devices.groups(plan),
        tcp_ports=_tcp_ports(plan, service) if alone else None,
        addresses=addresses,
        addresses_why=why,
        write_execute=_write_execute(plan),
        home_is_read=any(word.startswith(HOMES) for word in service.argv),
        system_calls=() if alone else ("pidfd_getfd",),
        system_calls_why="torch shares CUDA memory between processes with it.",
    )


def _tcp_ports(plan: Plan, service: Service) -> tuple[int, ...]:
    """The engine's own, and behind an endpoint that of the supervisor's verdicts."""
    return (service.port, beside(service.port)) if wanted(plan) else (service.port,)


def _write_execute(plan: Plan) -> str | None:
    """Why memory must be writable and executable, None when it need not.

    llama-server itself, its CPU backend and RPC devices were run without; that CUDA compiles for
    the card only (PTX) is inferred from NixOS' ollama module, which denies it to the same ggml.
    """
    used = devices.backends(plan)
    if plan.chosen.runtime in WRITE_EXECUTE:
        return WRITE_EXECUTE[plan.chosen.runtime]
    if Backend.HIP in used:
        return HIP_EXECUTES
    return VULKAN_EXECUTES if Backend.VULKAN in used else None


def _addresses(plan: Plan, settings: Iterable[Setting]) -> tuple[tuple[str, ...] | None, str]:
    """Whom the process may speak with: this host, private networks, or everybody and why."""
    offline = any(s.name == "HF_HUB_OFFLINE" and s.value == "1" for s in settings)
    if plan.chosen.runtime not in ONE_PROCESS and not offline:
        return None, "it may fetch its model from the hub"
    kind = scope(plan.wish.bind)
    remote = "--rpc" in plan.wish.flags
    if kind == "public":
        return None, f"it listens at the public address {plan.wish.bind}"
    return (LOCALHOST if kind == "loopback" and not remote else PRIVATE), ""


def scope(bind: str) -> str:
    """`loopback`, `private` or `public`; every address, or a name, counts as private."""
    if bind == "localhost":
        return "loopback"
    try:
        address = ipaddress.ip_address(bind)
    except ValueError:
        return "private"
    if address.is_loopback:
        return "loopback"
    return "public" if address.is_global else "private"
