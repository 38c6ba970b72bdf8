"""What the ports above a card mean: its real link, and what narrows it."""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.links import HopKind, Limit, PcieHop, PcieLink
from multigpu.parse.pci.device import Device, Tree, ports_above

# Bridges on the card itself (pci.ids): Vega 10's are AMD's, later ones carry ATI's vendor id.
ON_CARD = {("0x1022", "0x1470"), ("0x1022", "0x1471")}
# AMD chipsets: bridges 1022:43xx, and 57a3, 57a4, 57ad of the X570 and TRX40 (pci.ids, "Matisse").
AMD_CHIPSETS = ("0x43", "0x57a")


@dataclass(frozen=True)
class Way:
    """A card's way up: the end of its real link, ports on the card, and ports of the machine."""

    end: Device
    on_card: tuple[Device, ...] = ()
    ports: tuple[Device, ...] = ()


def way(devices: Tree, name: str) -> Way:
    """The way of one card.

    Navi, Vega and Instinct cards carry a switch of their own: the graphics function's link is
    internal (always full), and the slot's link is that of the switch's upstream port.
    """
    card = devices.get(name, Device(name))
    above = ports_above(devices, name)
    count = 0
    while count < len(above) and _is_on_card(above[count], card):
        count += 1
    return Way(above[count - 1] if count else card, above[:count], above[count:])


def _is_on_card(port: Device, card: Device) -> bool:
    if card.vendor != "0x1002":
        return False
    return port.vendor == "0x1002" or (port.vendor, port.device) in ON_CARD


def link(devices: Tree, name: str, card: PcieLink, emulated_ports: bool = False) -> PcieLink:
    """The card's link with what PCI adds: missing values, the ports above, and what narrows it.

    The driver's values of `card` win over those of PCI. In a virtual machine the ports are
    emulated and say nothing of the slot (a QEMU root port may show x1 or x32).
    """
    up = way(devices, name)
    ports = () if emulated_ports else up.ports
    width_current = _first(card.width_current, up.end.width_current)
    width_max = _first(card.width_max, up.end.width_max)
    gen_gpu = _first(card.gen_gpu_max, up.end.gen_max)
    gen_host = _first(card.gen_host_max, ports[0].gen_max if ports else None)
    limit = limiting_port(ports, width_current, width_max)
    widths = [w for w in (width_current, *(p.width_current for p in ports)) if w is not None]
    hops = () if emulated_ports else _hops(devices, up)
    behind = any(hop.kind is HopKind.CHIPSET for hop in hops)
    return PcieLink(
        gen_current=_first(card.gen_current, up.end.gen_current),
        gen_max=_first(card.gen_max, _least(gen_gpu, gen_host)),
        width_current=width_current,
        width_max=width_max,
        limited_at=limit.address if limit else None,
        limited_at_width_max=limit.width_max if limit else None,
        width_path=min(widths, default=None) if ports else None,
        behind_chipset=behind if hops else None,
        gen_gpu_max=gen_gpu,
        gen_host_max=gen_host,
        limited_by=_limit(limit, ports, width_max, behind),
        hops=hops,
        aer_correctable=_first(card.aer_correctable, up.end.aer_correctable),
        replays=card.replays,
    )


def limiting_port(
    ports: tuple[Device, ...], width_current: int | None, width_max: int | None
) -> Device | None:
    """The port that keeps a card from its full width, None when nothing does.

    Both ends of a link report its width; of the narrowest ones the port that cannot carry more is
    the cause.
    """
    known = [(p.width_current, p) for p in ports if p.width_current is not None]
    if not known or width_max is None:
        return None
    narrowest = min(width for width, _ in known)
    if min(narrowest, width_current or narrowest) >= width_max:
        return None
    return min((p for w, p in known if w == narrowest), key=lambda port: port.width_max or 99)


def _limit(
    port: Device | None, ports: tuple[Device, ...], width_max: int | None, behind_chipset: bool
) -> Limit | None:
    """Why that port is narrow; None when its own width is not known well enough to say."""
    if port is None or port.width_current is None:
        return None
    if port is not ports[0]:
        return Limit.CHIPSET if behind_chipset else Limit.BRIDGE
    if port.width_max is None or width_max is None:
        return Limit.CHIPSET if behind_chipset else None
    if port.width_current < min(port.width_max, width_max):
        return Limit.RISER
    return Limit.CHIPSET if behind_chipset else Limit.SLOT


def _hops(devices: Tree, up: Way) -> tuple[PcieHop, ...]:
    chipsets = _chipsets_by_name(devices)
    on_card = [_hop(port, HopKind.ON_CARD) for port in up.on_card]
    return (*on_card, *(_hop(port, _kind(port, chipsets)) for port in up.ports))


def _hop(port: Device, kind: HopKind) -> PcieHop:
    """An upstream port of a switch reports the link above it, every other port the one below."""
    return PcieHop(
        address=port.address,
        kind=kind,
        vendor=port.vendor,
        device=port.device,
        gen_current=port.gen_current,
        gen_max=port.gen_max,
        width_current=port.width_current,
        width_max=port.width_max,
        acs_redirect=port.acs_redirect,
        aer_correctable=port.aer_correctable,
    )


def _kind(port: Device, chipsets: set[str]) -> HopKind:
    if is_chipset(port) or port.address in chipsets:
        return HopKind.CHIPSET
    return HopKind.ROOT_PORT if port.parent is None else HopKind.SWITCH


def is_chipset(port: Device) -> bool:
    """True for a port of the chipset, whose uplink all devices behind it share.

    Intel PCH root ports sit at device 1b to 1d of bus 00 (of bus 80 since Arrow Lake).
    """
    if port.vendor == "0x1022":
        return (port.device or "").startswith(AMD_CHIPSETS)
    place = port.address.split(":", 1)[-1]
    return port.vendor == "0x8086" and place[:5] in {
        *("00:1b", "00:1c", "00:1d"),
        *("80:1b", "80:1c", "80:1d"),
    }


def _chipsets_by_name(devices: Tree) -> set[str]:
    """Bridges below a root port that lead to AMD's "... Chipset USB/SATA Controller".

    `lspci -tv` gives bridges no name; what hangs behind them tells them.
    """
    found: set[str] = set()
    for device in devices.values():
        if " Chipset " in (device.name or "") and not device.is_bridge:
            above = ports_above(devices, device.address)
            found |= {port.address for port in above if port.vendor is None and port.parent}
    return found


def resizable_bar(memory_mib: int | None, bar_mib: int | None, guest: bool = False) -> bool | None:
    """Whether the BAR covers all VRAM; None in a guest, where the BAR's size says nothing of it."""
    if guest or not memory_mib or bar_mib is None:
        return None
    return bar_mib >= memory_mib


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)
