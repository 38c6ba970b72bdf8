"""Reader of kernel logs, and the table of Xids."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multigpu import xids
from multigpu.hardware import KernelEvent, PcieBandwidth
from multigpu.parse.kernel.kernel_log import KINDS, read_kernel
from multigpu.parse.kinds import guess
from tests.rigs import kernel as rig
from tests.rigs.dialect import DRIVERS, KERNELS, Dialect

ADDRESSES = st.sampled_from(["0000:01:00.0", "0000:9b:00.0", "0009:01:00.0", "0000:10:1c.0"])
PIDS = st.integers(1, 4_000_000)
NAMES = st.sampled_from(["python3", "VLLM::EngineCor", "Web Content", "llama-server"])
OFF_THE_BUS = (
    "GPU has fallen off the bus.",
    "fallen off the bus and is not responding to commands.",
)
DIALECTS = st.builds(
    Dialect,
    driver=st.sampled_from(DRIVERS),
    kernel=st.sampled_from(KERNELS),
    log_prefix=st.sampled_from(sorted(rig.PREFIXES)),
)
LINKS = st.builds(
    PcieBandwidth,
    gen=st.integers(1, 6) | st.none(),
    width=st.sampled_from([1, 2, 4, 8, 16]),
    available_gbit_s=st.integers(1, 9_999_999).map(lambda n: n / 1000),
    at=ADDRESSES,
    gen_capable=st.integers(1, 6),
    width_capable=st.sampled_from([1, 4, 8, 16]),
    capable_gbit_s=st.integers(1, 9_999_999).map(lambda n: n / 1000),
)


def texts(*choices: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices)


EVENTS = st.one_of(
    st.builds(
        KernelEvent,
        kind=st.just("xid"),
        address=ADDRESSES,
        code=st.sampled_from([13, 31, 48, 63, 79, 94, 119]),
        text=texts(
            "MMU Fault: ENGINE GRAPHICS GPC1", "Timeout after 6s, of waiting", "Ch 0000000b"
        ),
        pid=PIDS | st.none(),
        process=NAMES | st.none(),
        lines=st.integers(1, 4),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("sxid"),
        address=ADDRESSES,
        code=st.sampled_from([11001, 20034]),
        text=texts("Fatal, Link 48 LTSSM Fault Up"),
        fatal=st.just(True),
        lines=st.integers(1, 4),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("sxid"),
        address=ADDRESSES,
        code=st.just(12028),
        text=texts("Non-fatal, Link 46 egress non-posted PRIV error"),
        fatal=st.just(False),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("aer"),
        address=ADDRESSES,
        text=texts("Corrected error received", "Multiple Correctable error received"),
        fatal=st.just(False),
        lines=st.integers(1, 2),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("aer"),
        address=ADDRESSES,
        text=texts("Uncorrected (Fatal) error received", "Uncorrectable (Fatal) error received"),
        fatal=st.just(True),
        lines=st.integers(1, 2),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("dpc"),
        address=ADDRESSES,
        text=texts("containment event, status:0x1f01 source:0x0000"),
    ),
    st.builds(KernelEvent, kind=st.just("pcie-bandwidth"), address=ADDRESSES, pcie=LINKS),
    st.builds(
        KernelEvent, kind=st.just("off-the-bus"), address=ADDRESSES, text=texts(*OFF_THE_BUS)
    ),
    st.builds(
        KernelEvent,
        kind=st.just("init-failed"),
        address=ADDRESSES,
        text=texts("RmInitAdapter failed! (0x24:0x65:1426)"),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("d3cold"),
        address=ADDRESSES,
        text=texts(
            "Unable to change power state from D3cold to D0, device inaccessible",
            "can't change power state from D3cold to D0 (config space inaccessible)",
        ),
    ),
    st.builds(
        lambda pid, name: KernelEvent(
            "oom", text=f"Out of memory: Killed process {pid} ({name})", pid=pid, process=name
        ),
        PIDS,
        NAMES,
    ),
    st.builds(
        KernelEvent,
        kind=st.just("segfault"),
        text=texts("segfault at 10 ip 00007f sp 00007f error 4 in libnccl.so.2[7f7c7ac00000+1000]"),
        pid=PIDS,
        process=NAMES,
    ),
    st.builds(
        KernelEvent,
        kind=st.just("amdgpu-reset"),
        address=ADDRESSES,
        text=texts("GPU reset begin!", "GPU reset(1) succeeded!"),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("amdgpu-timeout"),
        address=ADDRESSES,
        text=texts("ring gfx_0.0.0 timeout, signaled seq=5, emitted seq=6"),
    ),
    st.builds(
        KernelEvent,
        kind=st.just("amdgpu-ras"),
        address=ADDRESSES,
        text=texts("2 uncorrectable hardware errors detected in umc block"),
    ),
)


def identity(event: KernelEvent) -> object:
    return event.kind, event.address, event.code, event.pid if event.code is None else None


@st.composite
def logs(draw: st.DrawFn) -> tuple[tuple[int, KernelEvent], ...]:
    """Events at seconds of their own; a card's uuid is the same in all of its events."""
    events = draw(st.lists(EVENTS, max_size=6, unique_by=identity))
    named = draw(st.sets(ADDRESSES))
    seconds = draw(
        st.lists(st.integers(1, 9_000_000), min_size=len(events), max_size=6, unique=True)
    )
    micros = [second * 10**6 + draw(st.integers(0, 999_999)) for second in sorted(seconds)]
    return tuple(
        (
            at,
            replace(
                event, uuid=f"GPU-5096-{event.address[:4]}" if event.address in named else None
            ),
        )
        for at, event in zip(micros, events, strict=False)
    )


def printed(event: KernelEvent, at: int, dialect: Dialect) -> KernelEvent:
    """The event as far as that log shows it."""
    if event.kind == "xid" and dialect.branch < 450:
        event = replace(event, pid=None)
    if event.kind == "xid" and dialect.branch < 510:
        event = replace(event, process=None)
    if event.kind == "aer":
        event = replace(event, text=f"{event.text}: {event.address}")
    if event.pcie is not None:
        event = replace(event, text=rig.pcie_text(event.pcie, dialect))
    return replace(event, time=rig.time(at, dialect))


@given(logs(), DIALECTS)
def test_events_are_read_back_behind_every_prefix(
    log: tuple[tuple[int, KernelEvent], ...], dialect: Dialect
) -> None:
    expected = tuple(printed(event, at, dialect) for at, event in log)
    assert read_kernel(rig.render(log, dialect)).value == expected


@given(logs(), DIALECTS, st.data())
def test_a_log_that_is_cut_yields_the_events_before_the_cut(
    log: tuple[tuple[int, KernelEvent], ...], dialect: Dialect, data: st.DataObject
) -> None:
    text = rig.render(log, dialect)
    cut = text[: data.draw(st.integers(0, len(text)))].rpartition("\n")[0]
    whole = read_kernel(text).value
    kinds = [(event.kind, event.address, event.code) for event in read_kernel(cut).value]
    assert kinds == [(event.kind, event.address, event.code) for event in whole][: len(kinds)]


@given(logs(), DIALECTS)
def test_a_log_with_events_is_recognised(
    log: tuple[tuple[int, KernelEvent], ...], dialect: Dialect
) -> None:
    if log:
        assert KINDS[0].recognise(rig.render(log, dialect)) > 0.9


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert KINDS[0].recognise(text) <= 1
    assert read_kernel(text).lines >= 0
    read_kernel(f"NVRM: Xid ({text}): {text}, pid={text}, name={text}")
    read_kernel(f"[ 1.5] pcieport 0000:00:01.0: AER: {text} error received: {text}")
    read_kernel(f"x 0000:01:00.0: {text} Gb/s available PCIe bandwidth, limited by {text}")


def test_lines_of_one_second_are_one_event() -> None:
    log = (
        "[10.100000] NVRM: Xid (PCI:0000:01:00): 13, pid=7, Graphics SM Warp Exception\n"
        "[10.200000] NVRM: Xid (PCI:0000:01:00): 13, pid=7, Graphics Exception: ESR 0x5\n"
        "[11.000000] NVRM: Xid (PCI:0000:01:00): 13, pid=7, Graphics Exception: ESR 0x5\n"
        "[11.000001] NVRM: Xid (PCI:0000:02:00): 13, pid=7, Graphics Exception: ESR 0x5\n"
    )
    found = [(event.address, event.lines, event.time) for event in read_kernel(log).value]
    assert found == [
        ("0000:01:00.0", 2, "10.100000"),
        ("0000:01:00.0", 1, "11.000000"),
        ("0000:02:00.0", 1, "11.000001"),
    ]


def test_a_card_off_the_bus_and_its_xid_are_one_event() -> None:
    log = (
        "[1.000001] NVRM: Xid (PCI:0000:91:00): 79, pid='<unknown>', name=<unknown>, GPU has"
        " fallen off the bus.\n[1.000002] NVRM: GPU 0000:91:00.0: GPU has fallen off the bus.\n"
    )
    (event,) = read_kernel(log).value
    assert (event.kind, event.code, event.lines) == ("xid", 79, 2)
    assert (event.pid, event.process) == (None, None)


@pytest.mark.parametrize(
    ("line", "address", "code"),
    [
        ("NVRM: Xid (0000:01:00): 31, Ch 0000000b, engmask 00000120", "0000:01:00.0", 31),
        ("NVRM: Xid (PCI:0002:01:00): 31, Ch 1", "0002:01:00.0", 31),
        ("NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid=1, Contained", "0000:3b:00.0", 94),
        ("May  6 00:38:27 a kernel: [ 9.9] NVRM: Xid (0000:01:00): 13, 0005", "0000:01:00.0", 13),
    ],
)
def test_old_and_rare_spellings_of_an_xid_are_read(line: str, address: str, code: int) -> None:
    (event,) = read_kernel(line).value
    assert (event.address, event.code) == (address, code)


def test_an_nvlink_5_xid_says_whether_it_is_fatal() -> None:
    line = "NVRM: Xid (PCI:0000:04:00): 149, NETIR_LINK_EVT {} XC0 i0 Link 07 (0x004505c6)"
    assert read_kernel(line.format("Fatal")).value[0].fatal is True
    assert read_kernel(line.format("Nonfatal")).value[0].fatal is False
    assert read_kernel(line.replace("149", "31").format("Fatal")).value[0].fatal is None


def test_an_old_aer_line_names_its_source_in_hex() -> None:
    log = "pcieport 0000:00:1b.4: AER: Corrected error received: id=00dc\n"
    (event,) = read_kernel(log).value
    assert (event.address, event.fatal) == ("0000:00:1b.4", False)


def test_a_bus_error_and_its_registers_are_one_event() -> None:
    log = (
        "[3.1] pcieport 0000:00:1c.5: AER: Multiple Corrected error received: 0000:02:00.0\n"
        "[3.2] nvidia 0000:02:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (R)\n"
        "[3.3] nvidia 0000:02:00.0:   device [10de:2204] error status/mask=00000001/00002000\n"
        "[3.4] nvidia 0000:02:00.0:    [ 0] RxErr                  (First)\n"
    )
    (event,) = read_kernel(log).value
    assert (event.kind, event.address, event.lines) == ("aer", "0000:02:00.0", 4)
    assert read_kernel(log).unread == ()


def test_what_the_kernel_prints_at_every_boot_is_no_event() -> None:
    log = (
        "[0.5] pcieport 0000:00:01.0: AER: enabled with IRQ 26\n"
        "[0.5] pcieport 0000:00:01.0: DPC: error containment capabilities: Int Msg #0\n"
        "[0.6] acpi PNP0A08:00: _OSC: OS now controls [PME AER PCIeCapability LTR DPC]\n"
        "[0.7] amdgpu 0000:c3:00.0: no uncorrectable hardware errors detected in umc block\n"
        "[0.8] amdgpu 0000:c3:00.0: amdgpu: SMU is initialized successfully!\n"
        "[0.9] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.105.08\n"
    )
    assert read_kernel(log).value == ()


def test_a_link_that_nothing_limits_is_read_too() -> None:
    log = "[1.0] pci 0000:01:00.0: 252.048 Gb/s available PCIe bandwidth (16.0 GT/s PCIe x16 link)"
    (event,) = read_kernel(log).value
    assert event.pcie == PcieBandwidth(4, 16, 252.048, None, 4, 16, 252.048)


def test_the_ring_timeout_of_an_amd_card_names_the_process() -> None:
    log = (
        "[9.1] [drm:amdgpu_job_timedout [amdgpu]] *ERROR* ring comp_1.1.0 timeout, signaled seq=1\n"
        "[9.1] [drm:amdgpu_job_timedout [amdgpu]] *ERROR* Process information: process llama-server"
        " pid 940066 thread llama-server pid 940066\n"
    )
    (event,) = read_kernel(log).value
    assert (event.kind, event.pid, event.process) == ("amdgpu-timeout", 940066, "llama-server")


def test_a_card_lost_at_load_has_the_time_of_the_first_of_its_three_lines() -> None:
    log = (
        "[14387.209961] NVRM: The NVIDIA GPU 0000:5d:00.0\n"
        "               NVRM: (PCI ID: 10de:2330) installed in this system has\n"
        "               NVRM: fallen off the bus and is not responding to commands.\n"
    )
    (event,) = read_kernel(log).value
    assert (event.kind, event.address) == ("off-the-bus", "0000:5d:00.0")
    assert event.time == "14387.209961"
    assert read_kernel(log).unread == ()


def test_a_process_killed_for_memory_is_one_event() -> None:
    log = (
        "[5.0] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=python3,pid=77,uid=0\n"
        "[5.0] Memory cgroup out of memory: Killed process 77 (python3) total-vm:1kB\n"
    )
    (event,) = read_kernel(log).value
    assert (event.kind, event.pid, event.process, event.lines) == ("oom", 77, "python3", 2)


def test_a_module_of_another_version_than_the_library_is_an_event() -> None:
    log = "[5.0] NVRM: API mismatch: the client has the version 580.95.05, but\n"
    assert [event.kind for event in read_kernel(log).value] == ["api-mismatch"]


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("No devices were found", "no-answer"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver.", "no-answer"),
        ("Failed to initialize NVML: Unknown Error", "no-answer"),
        ("Failed to initialize NVML: Driver/library version mismatch", "api-mismatch"),
    ],
)
def test_what_nvidia_smi_says_in_place_of_its_output_is_known(sentence: str, kind: str) -> None:
    (event,) = read_kernel(sentence + "\n").value
    assert (event.kind, event.text, event.address) == (kind, sentence, None)
    known = guess(sentence)
    assert known is not None and known.name == "kernel-log"


def test_an_amd_card_that_does_not_start_is_an_event() -> None:
    log = (
        "[    5.129027] amdgpu 0000:03:00.0: amdgpu: amdgpu_device_ip_init failed\n"
        "[    5.135530] amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init\n"
    )
    (event,) = read_kernel(log).value
    assert (event.kind, event.address, event.lines) == ("init-failed", "0000:03:00.0", 2)


def test_a_ring_that_is_reset_alone_and_whose_it_was_is_told() -> None:
    log = (
        "[  312.1] amdgpu 0000:28:00.0: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=2\n"
        "[  312.2] amdgpu 0000:28:00.0:  Process llama-server pid 2288 thread llama:cs0 pid 2316\n"
        "[  312.3] amdgpu 0000:28:00.0: Starting gfx_0.0.0 ring reset\n"
        "[  313.1] amdgpu 0000:28:00.0: Ring gfx_0.0.0 reset failed\n"
    )
    hang, start, failed = read_kernel(log).value
    assert (hang.kind, hang.pid, hang.process) == ("amdgpu-timeout", 2288, "llama-server")
    assert [start.kind, failed.kind] == ["amdgpu-reset"] * 2
    assert failed.text == "Ring gfx_0.0.0 reset failed"


def test_a_long_log_of_nothing_is_read_quickly() -> None:
    log = "[ 1234.567890] usb 1-1: new high-speed USB device number 4 using xhci_hcd\n" * 20_000
    log += "[ 1234.567890] NVRM: Xid (PCI:" + "0" * 20_000 + "a:" * 20_000 + "\n"
    start = time.process_time()
    assert read_kernel(log).value == ()
    assert time.process_time() - start < 5


@settings(max_examples=30)
@given(st.sampled_from(sorted(xids.XIDS)))
def test_every_xid_has_a_meaning_and_a_reach(code: int) -> None:
    row = xids.xid(code)
    assert row is not None and row.code == code and row.meaning
    assert row.reach in xids.Reach


def test_a_lost_card_reaches_further_than_an_application_fault() -> None:
    worst = xids.worst([13, 31, 79, 63, None, 9999])
    assert worst is not None and worst.code == 79 and worst.remedy is xids.Remedy.RESTART_HOST
    assert xids.worst([]) is None and xids.xid(None) is None and xids.xid(1) is None


def test_a_card_off_the_bus_is_known_by_its_address_alone() -> None:
    line = "[123.456789] NVRM: GPU at 0000:41:00.0 has fallen off the bus.\n"
    (event,) = read_kernel(line).value
    assert (event.kind, event.address) == ("off-the-bus", "0000:41:00.0")
    assert event.text == "has fallen off the bus."
