"""Random ways from cards up to the processor: root ports, switches, chipsets, switches on cards."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from multigpu.hardware import Gpu, HopKind, Host, PcieHop, PcieLink, Vendor
from tests.rigs.strategies import WIDTHS, amd_hosts, nvidia_hosts

# Vendor and device of the ports: PLX PEX 8747, X670's chipset, Navi's switch on the card.
SWITCH = ("0x10b5", "0x8747"), ("0x10b5", "0x8747")
CHIPSET = ("0x1022", "0x43f4"), ("0x1022", "0x43f5")
ON_CARD = ("0x1002", "0x1478"), ("0x1002", "0x1479")


@st.composite
def slotted_hosts(draw: st.DrawFn) -> Host:
    """A host whose cards hang behind up to two pairs of bridges; every bus number is its own."""
    host = draw(nvidia_hosts(max_cards=4) | amd_hosts(max_cards=4))
    gpus = tuple(draw(slotted(gpu, 1 + 9 * place)) for place, gpu in enumerate(host.gpus))
    return replace(host, gpus=gpus)


@st.composite
def slotted(draw: st.DrawFn, gpu: Gpu, bus: int) -> Gpu:
    """The card at the end of its ports; all but the card's own are seen by every tool."""
    redirect = st.sampled_from([True, False, None])
    slot = draw(ports(f"0000:00:{bus % 26 + 1:02x}.0", None, HopKind.ROOT_PORT, redirect))
    hops = [replace(slot, vendor="0x8086", device="0x352a")]
    kind, ids = draw(st.sampled_from([(HopKind.SWITCH, SWITCH), (HopKind.CHIPSET, CHIPSET)]))
    if draw(st.booleans()):
        hops[:0] = draw(bridges(bus, kind, ids, hops[0], redirect))
        bus += 2
    link = hops[0]
    if gpu.vendor is Vendor.AMD and draw(st.booleans()):
        hops[:0] = draw(bridges(bus, HopKind.ON_CARD, ON_CARD, link, redirect))
        bus += 2
    pcie = replace(
        gpu.pcie,
        gen_current=link.gen_current,
        gen_max=min(gpu.pcie.gen_max or 5, link.gen_max or 5),
        width_current=link.width_current,
        gen_gpu_max=gpu.pcie.gen_max,
        gen_host_max=link.gen_max,
        hops=tuple(hops),
    )
    return replace(gpu, pci_bus_id=f"0000:{bus:02x}:00.0", pcie=pcie, numa_node=bus % 2)


@st.composite
def ports(
    draw: st.DrawFn,
    address: str,
    above: PcieHop | None,
    kind: HopKind,
    redirect: st.SearchStrategy[bool | None],
) -> PcieHop:
    """One port. An upstream port shares the link of the port above it."""
    width_max = draw(st.sampled_from(WIDTHS))
    gen_max = draw(st.integers(3, 5))
    return PcieHop(
        address,
        kind,
        gen_current=above.gen_current if above else draw(st.integers(1, gen_max)),
        gen_max=gen_max,
        width_current=above.width_current
        if above
        else draw(st.sampled_from([w for w in WIDTHS if w <= width_max])),
        width_max=width_max,
        acs_redirect=draw(redirect),
        aer_correctable=draw(st.integers(0, 99)),
    )


@st.composite
def bridges(
    draw: st.DrawFn,
    bus: int,
    kind: HopKind,
    ids: tuple[tuple[str, str], tuple[str, str]],
    above: PcieHop,
    redirect: st.SearchStrategy[bool | None],
) -> list[PcieHop]:
    """Downstream and upstream port of one switch, nearest to the card first."""
    (vendor, device), (vendor_down, device_down) = ids
    up = draw(ports(f"0000:{bus:02x}:00.0", above, kind, redirect))
    down = draw(ports(f"0000:{bus + 1:02x}:10.0", None, kind, redirect))
    return [
        replace(down, vendor=vendor_down, device=device_down),
        replace(up, vendor=vendor, device=device),
    ]


def unjudged(link: PcieLink) -> PcieLink:
    """The link without what the reader concludes."""
    return replace(
        link,
        gen_max=None,
        limited_at=None,
        limited_at_width_max=None,
        limited_by=None,
        width_path=None,
        behind_chipset=False,
    )
