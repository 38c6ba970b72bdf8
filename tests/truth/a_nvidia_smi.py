"""nvidia-smi of real machines: XML, text, CSV, table, list, and the fields it can be asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from multigpu.hardware import Gpu
from multigpu.parse import pci
from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.nvidia_smi.listing import read_list
from multigpu.parse.nvidia_smi.paths import PATHS
from multigpu.parse.nvidia_smi.query_gpu import read_help_query_gpu, read_query_gpu
from multigpu.parse.nvidia_smi.table import read_table
from multigpu.parse.nvidia_smi.text import read_text
from multigpu.parse.nvidia_smi.xml import read_xml
from multigpu.parse.reading import Reading

# Index, address, name, MiB, width now and most, generation now and most, MIG.
Row = tuple[int, str, str, int, int, int, int, int, bool | None]


def content(path: Path) -> str:
    """The file as it was captured."""
    return path.read_text(encoding="utf-8")


def row(gpu: Gpu) -> Row:
    """What the index tells of each card."""
    link = gpu.pcie
    widths = (link.width_current or 0, link.width_max or 0)
    gens = (link.gen_current or 0, link.gen_max or 0)
    known = (gpu.pci_bus_id or "", gpu.name or "", gpu.memory_mib or 0)
    return (gpu.index, *known, *widths, *gens, gpu.mig)


def whole(reading: Reading[Query], cards: int) -> Query:
    """A captured output that was read to its end, with that many cards, none in trouble."""
    query = reading.value
    assert reading.unread == ()
    assert query.whole
    assert len(query.gpus) == cards
    assert all(gpu.error is None for gpu in query.gpus)
    assert not query.simulated
    return query


def xml(driver: str, *rows: Row) -> Callable[[Path], Query]:
    """The truth of an XML document: driver, number of cards, and what each one is."""

    def truth(path: Path) -> Query:
        query = whole(read_xml(content(path)), len(rows))
        assert (query.driver, query.attached_gpus) == (driver, len(rows))
        assert query.cuda and query.timestamp
        expected = [(row[0], pci.address(row[1]), *row[2:]) for row in rows]
        assert [row(gpu) for gpu in query.gpus] == expected
        for gpu in query.gpus:
            assert gpu.uuid and gpu.vbios_version and gpu.power_limit_w and gpu.temperature_c
            assert gpu.power_limit_max_w and gpu.power_draw_w and gpu.bar1_memory_mib
        return query

    return truth


def also(truth: Callable[[Path], Query], rest: Callable[[Gpu], None]) -> Callable[[Path], None]:
    """A truth with the remarks of its row, which hold for every card."""

    @functools.wraps(rest)
    def check(path: Path) -> None:
        for gpu in truth(path).gpus:
            rest(gpu)

    return check


def written(truth: Callable[[Path], None], *parts: str, totals: int = 0) -> Callable[[Path], None]:
    """A truth with what its row says of the document itself: its DTD, repeated elements."""

    @functools.wraps(truth)
    def check(path: Path) -> None:
        truth(path)
        assert all(part in content(path) for part in parts)
        assert totals in (0, content(path).count("<total>"))

    return check


def rtx3090_drv525(gpu: Gpu) -> None:
    """GeForce without ECC; idle in P8, so a lower generation is no fault and no narrowing."""
    assert (gpu.ecc, gpu.ecc_corrected, gpu.ecc_uncorrected) == (None, None, None)
    assert gpu.performance_state == "P8"
    assert not gpu.pcie.narrowed and gpu.throttle_reasons == ()
    assert (gpu.power_limit_w, gpu.power_limit_default_w, gpu.power_limit_max_w) == (200, 350, 375)
    assert (gpu.pcie.gen_gpu_max, gpu.pcie.gen_host_max) == (4, None)
    assert (gpu.bar1_memory_mib, gpu.resizable_bar) == (32768, True)


def t4_515(gpu: Gpu) -> None:
    """Half the lanes on this cloud; two processes; its own way of counting ECC."""
    assert gpu.pcie.narrowed
    assert [(p.pid, p.name, p.used_memory_mib) for p in gpu.processes] == [
        (675, "/usr/lib/xorg/Xorg", 22),
        (5762, "python", 1005),
    ]
    assert (gpu.ecc, gpu.ecc_corrected, gpu.ecc_uncorrected) == (True, 0, 0)
    assert (gpu.retired_pages, gpu.retired_pages_pending) == (0, False)
    # A small window says nothing in a guest.
    assert (gpu.bar1_memory_mib, gpu.resizable_bar) == (256, None)


def gtx1660(gpu: Gpu) -> None:
    """Useless name, no MIG element, the oldest schema: what it does not say stays unknown."""
    assert (gpu.architecture, gpu.compute_capability, gpu.memory_reserved_mib) == (None,) * 3
    assert (gpu.pcie.gen_gpu_max, gpu.fabric_state, gpu.recovery_action) == (None,) * 3
    assert (gpu.power_draw_w, gpu.power_limit_w) == (8.93, 130.0)


def rtx3080_v13(gpu: Gpu) -> None:
    """The newest schema: draw in two, a recovery action, link generations of both ends."""
    assert (gpu.power_draw_w, gpu.recovery_action) == (139.62, "None")
    assert (gpu.pcie.gen_gpu_max, gpu.pcie.gen_host_max) == (4, 4)
    assert gpu.unified_memory is False


def rtx4090(gpu: Gpu) -> None:
    """24564 MiB, and a host that ends at generation 3."""
    assert gpu.memory_mib != 24576
    assert (gpu.pcie.gen_max, gpu.pcie.gen_gpu_max, gpu.pcie.gen_host_max) == (3, 4, 3)
    assert gpu.ecc is False and gpu.resizable_bar is False


def p100(gpu: Gpu) -> None:
    """The total of the framebuffer, not that of BAR1 or of an error counter."""
    assert (gpu.memory_mib, gpu.bar1_memory_mib, gpu.ecc_corrected) == (16384, 16384, 0)
    assert gpu.memory_used_mib == 0 and gpu.compute_capability == (6, 0)


def h100(gpu: Gpu) -> None:
    """The fabric is up; replays are counted and no fault."""
    assert gpu.memory_mib == 81559
    assert (gpu.fabric_state, gpu.recovery_action) == ("Completed", "None")
    assert 100 < (gpu.pcie.replays or 0) < 200
    assert gpu.remapped_rows is not None and gpu.remapped_rows.pending is False
    assert gpu.display_attached is False and gpu.mig_devices == ()


def narrow(gpu: Gpu) -> None:
    """Eight of sixteen lanes."""
    assert (gpu.pcie.width_current, gpu.pcie.width_max, gpu.pcie.narrowed) == (8, 16, True)


def p2000(gpu: Gpu) -> None:
    """Eight lanes, six totals, many N/A."""
    narrow(gpu)
    assert (gpu.memory_mib, gpu.bar1_memory_mib, gpu.ecc, gpu.remapped_rows) == (
        5120,
        256,
        None,
        None,
    )
    assert (gpu.ecc_corrected, gpu.ecc_uncorrected, gpu.retired_pages) == (None, None, None)


def rtx3080_desktop(gpu: Gpu) -> None:
    """Idle at generation 1; processes whose names the container hides."""
    assert (gpu.pcie.gen_current, gpu.pcie.gen_max, gpu.performance_state) == (1, 4, "P8")
    assert [p.pid for p in gpu.processes] == [10210, 10445, 10507, 11661, 14129, 14449]
    assert {p.name for p in gpu.processes} == {None}
    assert gpu.display_attached


def a100_40g(gpu: Gpu) -> None:
    """40960 MiB; the average draw is not told, the one of the moment is."""
    assert (gpu.memory_mib, gpu.power_draw_w) == (40960, 49.68)


def l40s_csv(path: Path) -> None:
    """Every field at once, at full load."""
    (gpu,) = whole(read_query_gpu(content(path)), 1).gpus
    assert (gpu.name, gpu.memory_mib, gpu.memory_reserved_mib) == ("NVIDIA L40S", 46068, 609)
    link = gpu.pcie
    assert (link.gen_current, link.gen_max, link.width_current, link.width_max) == (4, 4, 16, 16)
    assert gpu.mig is None
    # addressing_mode HMM: a card with memory of its own.
    assert gpu.unified_memory is False
    # utilization.gpu is no fact that a plan needs.
    assert "100 %" in content(path) and gpu.performance_state == "P0"
    assert (gpu.compute_capability, gpu.ecc, gpu.ecc_corrected) == ((8, 9), True, 0)


def rtx4080s_csv(path: Path) -> None:
    """Idle: generation 1 of 4 in a slot of generation 5 is not degraded."""
    (gpu,) = whole(read_query_gpu(content(path)), 1).gpus
    link = gpu.pcie
    assert gpu.memory_mib == 16376
    assert (link.gen_current, link.gen_max, link.gen_host_max) == (1, 4, 5)
    assert (link.width_current, link.width_max, link.narrowed) == (16, 16, False)
    assert gpu.throttle_reasons == ()


def fields_595(path: Path) -> None:
    """The list of every valid field: each of ours is in it."""
    reading = read_help_query_gpu(content(path))
    assert len(reading.value.fields) > 190
    for name in PATHS:
        csv_fields = [path for path in PATHS[name] if "." in path and "/" not in path]
        assert all(field in reading.value for field in csv_fields), name
    for field in ("index", "name", "uuid", "pstate", "compute_cap", "vbios_version", "gpu_uuid"):
        assert field in reading.value
    assert "clocks_throttle_reasons.active" in reading.value
    assert reading.unread == ()


def two_rtx3090(path: Path) -> None:
    """Two cards, idle at generation 1 of 4, all lanes."""
    query = whole(read_text(content(path)), 2)
    assert (query.driver, query.cuda, query.attached_gpus) == ("560.35.03", "12.6", 2)
    for gpu in query.gpus:
        assert (gpu.memory_mib, gpu.name) == (24576, "NVIDIA GeForce RTX 3090")
        link = gpu.pcie
        assert (link.gen_current, link.gen_max) == (1, 4)
        assert (link.width_current, link.width_max) == (16, 16)
    assert [gpu.pci_bus_id for gpu in query.gpus] == ["0000:41:00.0", "0000:81:00.0"]


def four_a100(path: Path) -> None:
    """The cards end at generation 4, the host at 5."""
    for gpu in whole(read_text(content(path)), 4).gpus:
        assert (gpu.pcie.gen_gpu_max, gpu.pcie.gen_host_max) == (4, 5)
        assert gpu.name == "NVIDIA A100-SXM4-80GB" and gpu.mig is False
        assert gpu.resizable_bar and gpu.remapped_rows is not None


def eight_rtx4090(path: Path) -> None:
    """Eight cards and nothing running."""
    query = whole(read_table(content(path)), 8)
    assert [gpu.index for gpu in query.gpus] == list(range(8))
    assert {gpu.memory_mib for gpu in query.gpus} == {24564}
    assert {gpu.processes for gpu in query.gpus} == {()}
    assert (query.driver, query.cuda) == ("550.127.05", "12.4")


def two_rtx4090(path: Path) -> None:
    """Capped to 400 W; a desktop and LM Studio hold memory on both."""
    query = whole(read_table(content(path)), 2)
    assert [gpu.pci_bus_id for gpu in query.gpus] == ["0000:01:00.0", "0000:03:00.0"]
    for gpu in query.gpus:
        assert (gpu.memory_mib, gpu.memory_used_mib, gpu.power_limit_w) == (24564, 1583, 400)
        assert gpu.processes[0].name == "/usr/lib/xorg/Xorg"
        assert [p.name for p in gpu.processes[1:]] == ["...m-studio/.internal/utils/node"] * 4


def h100_list(path: Path) -> None:
    """One card without MIG devices."""
    (gpu,) = whole(read_list(content(path)), 1).gpus
    assert (gpu.index, gpu.name, gpu.mig, gpu.mig_devices) == (0, "NVIDIA H100 80GB HBM3", None, ())
    assert gpu.uuid == "GPU-00000000-0000-0000-0000-000000000000"


H100 = "NVIDIA H100 80GB HBM3"
BUSES = ("53", "64", "75", "86", "97", "A8", "B9", "CA")
HGX: tuple[Row, ...] = tuple(
    (i, f"00000000:{bus}:00.0", H100, 81559, 16, 16, 5, 5, False) for i, bus in enumerate(BUSES)
)


def one(address: str, name: str, mib: int, width: int, gens: str, mig: bool | None = None) -> Row:
    """The row of a host with one card of sixteen lanes."""
    now, most = gens.split("/")
    return (0, f"00000000:{address}", name, mib, width, 16, int(now), int(most), mig)


GEFORCE = "NVIDIA GeForce RTX"
DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "rtx3090_drv525.147_v12.xml": written(
        also(
            xml("525.147.05", one("00:10.0", f"{GEFORCE} 3090", 24576, 16, "1/4")), rtx3090_drv525
        ),
        "nvsmi_device_v12.dtd",
    ),
    "tesla_t4_drv515.xml": also(
        xml("515.105.01", one("00:1E.0", "Tesla T4", 15360, 8, "3/3")), t4_515
    ),
    "gtx1660ti_drv418_v10.xml": also(
        xml("418.43", one("43:00.0", "Graphics Device", 5912, 16, "1/3")), gtx1660
    ),
    "rtx3080_drv595.58_v13.xml": written(
        also(xml("595.58.03", one("0C:00.0", f"{GEFORCE} 3080", 10240, 16, "4/4")), rtx3080_v13),
        "nvsmi_device_v13.dtd",
    ),
    "rtx4090_drv535.xml": also(
        xml("535.86.05", one("84:00.0", f"{GEFORCE} 4090", 24564, 16, "1/3")), rtx4090
    ),
    "tesla_p100_drv510.xml": written(
        also(xml("510.47.03", one("00:04.0", "Tesla P100-PCIE-16GB", 16384, 16, "3/3")), p100),
        totals=6,
    ),
    "hgx_h100_8gpu_drv580.105.xml": also(xml("580.105.08", *HGX), h100),
    "l40s_drv595.91.xml": also(
        xml("595.91.07", one("30:00.0", "NVIDIA L40S", 46068, 8, "4/4")), narrow
    ),
    "a100_sxm4_40g_drv570.xml": also(
        xml("570.148.08", one("06:00.0", "NVIDIA A100-SXM4-40GB", 40960, 16, "4/4", False)),
        a100_40g,
    ),
    "t4_drv595.xml": also(xml("595.91.07", one("00:1E.0", "Tesla T4", 15360, 8, "3/3")), narrow),
    "quadro_p2000_drv525.xml": written(
        also(xml("525.125.06", one("17:00.0", "Quadro P2000", 5120, 8, "1/3")), p2000), totals=6
    ),
    "rtx3080_drv535_prometheus_sample.xml": also(
        xml("535.54.03", one("2D:00.0", f"{GEFORCE} 3080", 10240, 16, "1/4")), rtx3080_desktop
    ),
    "l40s_drv595.80_query_gpu.csv": l40s_csv,
    "rtx4080s_drv595.71_query_gpu.csv": rtx4080s_csv,
    "rtx4080s_drv595.71_help_query_gpu.txt": fields_595,
    "2x_rtx3090_drv560_q.txt": two_rtx3090,
    "4x_a100_sxm_drv555_q.txt": four_a100,
    "8x_rtx4090_drv550_table.txt": eight_rtx4090,
    "2x_rtx4090_drv580_table.txt": two_rtx4090,
    "h100_drv590_list_L.txt": h100_list,
}
TRUTH: dict[str, Callable[[Path], None]] = {
    f"a_nvidia_smi/{name}": truth for name, truth in DOCUMENTS.items()
}
