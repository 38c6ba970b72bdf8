"""The exporter's samples and pages, and the real program over simulated NVML."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.host import (
    exporter,
    exporter_amd,
    exporter_gpus,
    exporter_nvml,
    exporter_services,
    exporter_source,
    exporter_table,
    exporter_text,
    state,
    verdicts,
)
from multigpu.host.exporter_nvml import Card
from multigpu.host.exporter_table import Sample

ROOT = Path(__file__).parent.parent
CARD = Card(
    index=1,
    uuid="GPU-1",
    pci_address="0000:02:00.0",
    name="A card",
    utilization=0.5,
    memory_used=3,
    throttle_bits=0x28,
    ecc_errors={("uncorrected", "volatile"): 2},
    remapped_rows=(4, 1, 1, 0),
    recovery_action=1,
    processes=[(7, 100), (8, 50)],
)
STATE = state.State(
    service="chat",
    wish="chat",
    revision="abc",
    runtime="vllm",
    state="serving",
    progress_at=100.0,
    running=2,
    tokens_total=5,
    kv_usage=0.25,
    restarts={"stalled": 2},
    last_verdict=state.LastVerdict(reason="stalled", at=90.0),
    backoff=state.Backoff(1, None),
)


def values(samples: list[Sample], name: str, label: str = "") -> Any:
    """The values of one metric, by a label where one is named."""
    found = {s.labels.get(label, ""): s.value for s in samples if s.name == f"multigpu_{name}"}
    return found if label else found.get("")


def set_of(samples: list[Sample], name: str, label: str) -> set[str]:
    return {key for key, value in values(samples, name, label).items() if value}


def test_a_card_is_told_with_its_states_by_name() -> None:
    found = exporter_gpus.samples(CARD)
    assert set_of(found, "gpu_throttled", "reason") == {"hw_slowdown", "sw_thermal_slowdown"}
    assert set_of(found, "gpu_recovery_action", "action") == {"gpu_reset"}
    assert values(found, "gpu_ecc_errors_total", "error") == {"uncorrected": 2}
    assert values(found, "gpu_remapped_rows_pending") == 1
    assert values(found, "gpu_remapped_rows_failed") == 0
    assert (values(found, "gpu_processes"), values(found, "gpu_process_memory_bytes")) == (2, 150)


def test_what_is_unknown_is_no_sample() -> None:
    found = exporter_gpus.samples(Card(index=0))
    assert {s.name for s in found} == {"multigpu_gpu_info", "multigpu_gpu_up"}
    held = exporter_gpus.samples(Card(index=0, processes=[(1, None)]))
    assert values(held, "gpu_processes") == 1
    assert values(held, "gpu_process_memory_bytes") is None


def test_a_recovery_action_of_a_newer_driver_is_told_by_its_number() -> None:
    found = exporter_gpus.samples(Card(index=0, recovery_action=9))
    assert set_of(found, "gpu_recovery_action", "action") == {"code_9"}


def test_a_card_that_is_lost_keeps_its_name_and_comes_back() -> None:
    known = exporter_gpus.Known()
    known.complete([CARD], [])
    (lost,) = known.complete([Card(index=1, is_up=False)], [])
    assert (lost.uuid, lost.is_up, lost.memory_used) == ("GPU-1", False, None)
    (gone,) = known.complete([], [])
    assert (gone.uuid, gone.is_up) == ("GPU-1", False)
    assert known.complete([CARD], []) == [CARD]


def test_a_card_that_is_planned_for_and_never_was_there_is_lost() -> None:
    planned = Card(index=0, uuid="GPU-0")
    found = exporter_gpus.Known().complete([CARD], [planned, planned])
    assert [(card.uuid, card.is_up) for card in found] == [("GPU-1", True), ("GPU-0", False)]


def test_a_card_with_another_index_after_a_boot_is_not_told_twice() -> None:
    known = exporter_gpus.Known()
    known.complete([CARD], [])
    moved = Card(index=0, uuid="GPU-1", pci_address="0000:02:00.0")
    assert known.complete([moved], []) == [moved]


def service(
    written: dict[str, Any] | None, plan: dict[str, Any] | None = None
) -> exporter_services.Service:
    return exporter_services.Service("chat", "chat", plan, written, 1.0, {7}, False)


def of_service(written: dict[str, Any] | None, plan: dict[str, Any] | None = None) -> list[Sample]:
    return exporter_services.samples(service(written, plan), [CARD])


def as_written(found: state.State, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "state.json"
    assert state.write(str(path), found)
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def test_a_service_is_told_as_its_supervisor_wrote_it(tmp_path: Path) -> None:
    found = of_service(as_written(STATE, tmp_path))
    assert set_of(found, "service_state", "state") == {"serving"}
    restarts = values(found, "service_restarts_total", "reason")
    assert (restarts["stalled"], restarts["engine_exit"]) == (2, 0)
    assert values(found, "service_last_verdict_timestamp_seconds", "reason") == {"stalled": 90}
    assert values(found, "service_kv_usage_ratio") == 0.25
    assert values(found, "service_progress_age_seconds") == pytest.approx(time.time() - 100, abs=5)
    assert values(found, "service_requests_waiting") is None


def test_every_verdict_but_those_that_restart_nothing_has_its_counter_from_the_start() -> None:
    found = set(values(of_service({}), "service_restarts_total", "reason"))
    assert set(verdicts.REASONS) - found == {"config", "start-limit-hit"}


@pytest.mark.parametrize("written", [None, {}, {"restarts": 3, "state": 7, "since": "x"}])
def test_a_state_file_that_is_none_is_a_value(written: dict[str, Any] | None) -> None:
    found = of_service(written)
    assert values(found, "service_state_readable") == (0 if written is None else 1)
    assert exporter_text.page(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from([*state.names(), "n", "until", "reason", "at", "gpus", "uuid", "wish"])


@given(
    st.none() | st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON)),
    st.none() | st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON))),
)
def test_no_state_and_no_plan_breaks_the_page(
    written: dict[str, Any] | None, plan: dict[str, Any] | None
) -> None:
    exporter_services.planned_cards([service(written, plan)])
    assert exporter_text.page(of_service(written, plan))


def test_memory_is_told_by_plan_and_by_the_processes_of_the_unit() -> None:
    plan = {"gpus": [{"uuid": "GPU-1", "predicted_memory_bytes": 120}, {"uuid": "GPU-9"}, 3]}
    found = of_service({}, plan)
    assert values(found, "service_gpu_memory_predicted_bytes", "uuid") == {"GPU-1": 120}
    assert values(found, "service_gpu_memory_used_bytes", "uuid") == {"GPU-1": 100}


def test_services_of_a_host_are_found_with_their_processes_and_fences(tmp_path: Path) -> None:
    home = tmp_path / "var/lib/multigpu/talk"
    assert state.write(str(home / "state/talk-0.json"), STATE)
    (home / "state/talk-1.json").write_text('{"state": "serv')
    (home / "fenced").touch()
    unit = tmp_path / "sys/fs/cgroup/system.slice/multigpu-talk-0.service"
    (unit / "below").mkdir(parents=True)
    (unit / "cgroup.procs").write_text("12\n")
    (unit / "below/cgroup.procs").write_text("13\n")
    first, second = exporter_services.services(str(tmp_path))
    assert (first.name, first.wish, first.pids, first.is_fenced) == (
        "talk-0",
        "talk",
        {12, 13},
        True,
    )
    assert (second.state, second.pids) == (None, set())
    assert values(exporter_services.host_samples(str(tmp_path)), "host_fenced") == 0


LABEL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x1c\x85\u2028"))
SAMPLES = st.lists(
    st.builds(
        lambda metric, words, value: Sample(
            metric.name, dict(zip(metric.labels, words, strict=False)), value
        ),
        st.sampled_from(exporter_table.METRICS),
        st.lists(LABEL, min_size=8, max_size=8),
        st.floats(),
    )
)


@given(SAMPLES)
def test_both_writers_give_the_same_page(samples: list[Sample]) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    found = exporter_text.families(samples)

    def read(page: bytes) -> Any:
        return [
            (
                f.name,
                f.documentation,
                f.type,
                [(s.name, s.labels, repr(s.value)) for s in f.samples],
            )
            for f in parser.text_string_to_metric_families(page.decode())
        ]

    assert read(exporter_text.own_page(found)) == read(exporter_text.client_page(found))


def test_the_table_follows_the_conventions_of_names() -> None:
    names = [metric.name for metric in exporter_table.METRICS]
    assert len(set(names)) == len(names)
    for metric in exporter_table.METRICS:
        assert metric.name.startswith("multigpu_") and metric.help.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == exporter_table.COUNTER)


def test_amd_cards_are_read_from_sysfs(tmp_path: Path) -> None:
    card = tmp_path / "sys/bus/pci/devices/0000:03:00.0"
    files = {
        "vendor": "0x1002", "class": "0x030000", "device": "0x744c", "unique_id": "8f12",
        "mem_info_vram_total": "1000", "mem_info_vram_used": "10", "gpu_busy_percent": "40",
        "current_link_speed": "16.0 GT/s PCIe", "max_link_speed": "32.0 GT/s PCIe",
        "current_link_width": "8", "max_link_width": "255",
        "hwmon/hwmon3/temp1_input": "45000", "hwmon/hwmon3/power1_average": "30000000",
        "ras/umc_err_count": "ue: 1\nce: 5",
    }  # fmt: skip
    for name, content in files.items():
        (card / name).parent.mkdir(parents=True, exist_ok=True)
        (card / name).write_text(content + "\n")
    (found,) = exporter_amd.cards(str(tmp_path))
    assert (found.pci_address, found.uuid) == ("0000:03:00.0", "0x0000000000008f12")
    assert (found.utilization, found.temperature_c, found.power_w) == (0.4, 45, 30)
    assert (found.pcie_gen, found.pcie_gen_max) == (4, 5)
    assert (found.pcie_width, found.pcie_width_max) == (8, None)
    assert found.ecc_errors == {("uncorrected", "volatile"): 1, ("corrected", "volatile"): 5}


def test_a_source_that_hangs_is_waited_for_once_at_most_and_comes_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    release, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        release.wait(20)
        return 5

    source = exporter_source.Source("slow", ask, 0.05)
    assert (source.answer(), source.answer()) == (None, None)
    assert len(asked) == 1
    assert values(source.samples(), "exporter_source_up", "source") == {"slow": 0}
    assert values(source.samples(), "exporter_source_waiting_seconds", "source")["slow"] >= 0.05
    release.set()
    time.sleep(0.1)
    assert source.answer() == 5
    assert values(source.samples(), "exporter_source_up", "source") == {"slow": 1}
    assert capsys.readouterr().err == "multigpu: slow: no answer within 0.05 s\n"


def test_a_source_that_raises_is_down_and_asked_again() -> None:
    source: exporter_source.Source[int] = exporter_source.Source("bad", lambda: 1 // 0, 1)
    assert (source.answer(), source.answer(), source.errors) == (None, None, 2)


def test_addresses_are_written_as_the_kernel_writes_them() -> None:
    assert exporter_nvml.address("00000000:0A:00.0") == "0000:0a:00.0"
    assert exporter.listen_address("[::1]:9") == ("::1", 9)


@dataclass
class Running:
    """The real exporter over the simulated NVML, its files below `root`."""

    root: Path
    port: int
    process: subprocess.Popen[str]

    def get(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    def value(self, name: str, *labels: str) -> float | None:
        lines = (line for line in self.get().splitlines() if line.startswith(f"multigpu_{name}"))
        found = [line for line in lines if all(label in line for label in labels)]
        time.sleep(exporter.KEPT_S)  # the next page is another one
        return float(found[0].rpartition(" ")[2]) if found else None


@pytest.fixture
def start(library: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[subprocess.Popen[str]] = []

    def run(table: Path | None = None, **more: str) -> Running:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        places = {
            "SIMULATED_GPU_TABLE": str(table or ROOT / "tests/lab/machines/matched.ini"),
            "SIMULATED_GPU_STATE": str(tmp_path / "gpus"),
            "LD_LIBRARY_PATH": str(library.parent),
            "PYTHONPATH": str(ROOT),
        }
        options = ("--listen", f"127.0.0.1:{port}", "--root", str(tmp_path), "--deadline-s", "0.6")
        process = subprocess.Popen(
            [sys.executable, "-m", "multigpu.host", "exporter", *options],
            env={**os.environ, **places, **more}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert "metrics at 127.0.0.1" in process.stdout.readline()
        return Running(tmp_path, port, process)

    yield run
    for process in started:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated NVML, compiled."""
    gpus = pytest.importorskip("bed.gpus")
    path: Path = tmp_path_factory.mktemp("nvml") / gpus.LIBRARY
    try:
        gpus.compile_library(path)
    except Exception as error:
        pytest.skip(f"no simulated NVML here: {error}")
    return path


@pytest.mark.process
def test_the_program_tells_cards_and_a_lost_one_keeps_its_name(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    page = start()
    assert page.value("gpu_memory_total_bytes", 'gpu="1"') == 24576 * 2**20
    assert page.value("gpu_up", 'gpu="1"') == 1
    (tmp_path / "gpus/1").mkdir(parents=True)
    (tmp_path / "gpus/1/fault").write_text("lost\n")
    assert page.value("gpu_up", 'gpu="1"', 'uuid="GPU-51a0c3d2', 'address="0000:') == 0
    assert page.value("gpu_memory_total_bytes", 'gpu="1"') is None
    assert page.value("gpu_up", 'gpu="0"') == 1
    assert page.value("exporter_source_up", 'source="nvml"') == 1


@pytest.mark.process
def test_nvml_that_hangs_costs_its_own_samples_and_comes_back(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    table = tmp_path / "table.ini"
    os.mkfifo(table)  # who reads it blocks within the library, as with firmware that hangs
    page = start(table)
    for _ in range(2):
        started = time.monotonic()
        text = page.get()
        assert time.monotonic() - started < 3
        assert 'source_up{source="nvml"} 0.0' in text and 'source_up{source="services"} 1.0' in text
        assert "multigpu_gpu_up" not in text
        time.sleep(exporter.KEPT_S)
    assert (page.value("exporter_source_waiting_seconds", 'source="nvml"') or 0) > 1
    table.write_text((ROOT / "tests/lab/machines/matched.ini").read_text())
    table.unlink()
    table.write_text((ROOT / "tests/lab/machines/matched.ini").read_text())
    time.sleep(1)
    assert page.value("exporter_source_up", 'source="nvml"') == 1


@pytest.mark.process
def test_a_host_without_nvidia_is_well_until_a_plan_counts_on_cards(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    page = start(tmp_path / "none.ini")
    assert page.value("exporter_source_up", 'source="nvml"') == 1
    plan = tmp_path / "etc/multigpu/chat.plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"wish": "chat", "gpus": [{"index": 0, "uuid": "GPU-1"}]}))
    assert page.value("exporter_source_up", 'source="nvml"') == 0


@pytest.mark.process
def test_the_server_answers_get_and_head_of_its_pages_and_nothing_else(
    start: Callable[..., Running],
) -> None:
    page = start()
    assert "/metrics" in page.get("/")
    for method, path, status in (("GET", "/etc/passwd", 404), ("POST", "/metrics", 501)):
        request = urllib.request.Request(f"http://127.0.0.1:{page.port}{path}", method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=5)
        assert refused.value.code == status
        refused.value.close()


@pytest.mark.process
def test_clients_that_say_nothing_do_not_keep_others_out_for_ever(
    start: Callable[..., Running],
) -> None:
    page = start()
    silent = [socket.create_connection(("127.0.0.1", page.port)) for _ in range(8)]
    assert "multigpu_gpu_up" in page.get()
    for each in silent:
        each.close()
