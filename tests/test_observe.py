"""Load, samples and the printed observation, against a stand-in of an engine's server."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu import observation
from multigpu.errors import CaptureError
from multigpu.host import amdgpu, load, nvml, observe
from multigpu.observation import CardSeen, LoadSeen, ServiceSeen, UnitSeen
from multigpu.plan import Service
from multigpu.units import RenderedUnit
from tests.plans import plan

SOURCE = Path(__file__).parent.parent
ANSWER = {"choices": [{"text": " four, five"}], "usage": {"completion_tokens": 3}}


class Engine(http.server.ThreadingHTTPServer):
    """Answers /v1/completions with `answer` and `status`, each after `seconds`."""

    daemon_threads = True
    answer: Any = ANSWER
    status, seconds = 200, 0.01
    requests: list[dict[str, Any]]
    in_flight = most_in_flight = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Completions(http.server.BaseHTTPRequestHandler):
    server: Engine

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, **body})
        self.server.keys.append(self.headers["Authorization"])
        self.server.in_flight += 1
        self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        time.sleep(self.server.seconds)
        self.server.in_flight -= 1
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(("127.0.0.1", 0), Completions) as server:
        server.requests, server.keys = [], []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def drive(*urls: str, concurrency: int = 2, seconds: float = 0.2) -> dict[str, Any]:
    running = load.Load(list(urls), "chat", concurrency, 8)
    running.start()
    time.sleep(seconds)
    return running.stop(0.2)


def test_a_load_counts_completions_and_keeps_a_sample(engine: Engine) -> None:
    seen = drive(engine.url)
    assert seen["completed"] == len(engine.requests) > 2
    assert seen["completion_tokens"] == 3 * seen["completed"]
    assert (seen["failed"], seen["error"], seen["sample_text"]) == (0, None, " four, five")
    assert 0.2 <= seen["seconds"] < 2


def test_each_request_asks_for_a_fixed_number_of_tokens_of_the_served_model(engine: Engine) -> None:
    drive(engine.url)
    assert engine.requests[0] == {
        "path": "/v1/completions",
        "model": "chat",
        "prompt": load.PROMPT,
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
    }


def test_as_many_requests_are_in_flight_as_there_are_users(engine: Engine) -> None:
    engine.seconds = 0.1
    drive(engine.url, concurrency=5)
    assert engine.most_in_flight == 5


def test_a_failure_is_counted_with_the_words_of_the_server(engine: Engine) -> None:
    engine.status, engine.answer = 404, {"error": "the model chat does not exist"}
    seen = drive(engine.url)
    assert (seen["completed"], seen["failed"]) == (0, 2)
    assert seen["error"].startswith(f"{engine.url}: HTTP Error 404: Not Found: ")
    assert "the model chat does not exist" in seen["error"]


@pytest.mark.parametrize("answer", [{"error": "engine dead"}, {"choices": []}, [], None, "no"])
def test_an_answer_that_is_no_completion_is_a_failure(engine: Engine, answer: Any) -> None:
    engine.answer = answer
    seen = drive(engine.url)
    assert (seen["completed"], seen["failed"]) == (0, 2)
    assert "no completion: " in seen["error"]


def test_a_port_where_nobody_listens_is_a_failure() -> None:
    seen = drive("http://127.0.0.1:9", concurrency=1)
    assert (seen["completed"], seen["failed"]) == (0, 1)
    assert "Connection refused" in seen["error"]


def test_one_dead_replica_does_not_hide_behind_the_other(engine: Engine) -> None:
    seen = drive(engine.url, "http://127.0.0.1:9")
    assert seen["completed"] > 0
    assert seen["failed"] == 2


def test_a_request_that_hangs_is_a_failure_and_is_not_waited_for(engine: Engine) -> None:
    engine.seconds = 3
    began = time.monotonic()
    seen = drive(engine.url, concurrency=3)
    assert time.monotonic() - began < 2.5  # the engine sleeps 3 s
    assert (seen["completed"], seen["failed"]) == (0, 3)
    assert seen["error"] == "no answer within 0.2 s"


class NvmlError(Exception):
    """As pynvml.NVMLError."""


def driver(**calls: Any) -> SimpleNamespace:
    """The calls of pynvml that a sample makes, for one good card."""
    mib = 1024 * 1024
    good = {
        "NVMLError": NvmlError,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: "GPU-a",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=24 * mib, used=20 * mib),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=93),
        "nvmlDeviceGetPowerUsage": lambda handle: 301_240,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
            SimpleNamespace(pid=42, usedGpuMemory=19 * mib),
            SimpleNamespace(pid=43, usedGpuMemory=None),
        ],
    }
    return SimpleNamespace(**{**good, **calls})


def refuse(*_: object) -> None:
    raise NvmlError("Unknown Error")


def test_a_sample_has_percent_watts_and_mebibytes() -> None:
    card = nvml.new_card(1)
    nvml.sample(driver(), card)
    nvml.sample(driver(nvmlDeviceGetUtilizationRates=lambda h: SimpleNamespace(gpu=7)), card)
    assert card == {
        "index": 1,
        "uuid": "GPU-a",
        "utilization": [93, 7],
        "power_w": [301.2, 301.2],
        "memory_used_mib": 20,
        "memory_total_mib": 24,
        "processes": [[42, 19], [43, None]],
        "error": None,
    }


def test_a_card_that_is_lost_keeps_its_row() -> None:
    card = nvml.new_card(1)
    nvml.sample(driver(nvmlDeviceGetHandleByIndex=refuse), card)
    assert (card["index"], card["error"], card["utilization"]) == (1, "Unknown Error", [])


def test_a_card_that_does_not_tell_power_and_processes_is_not_sick() -> None:
    card = nvml.new_card(0)
    nvml.sample(
        driver(nvmlDeviceGetPowerUsage=refuse, nvmlDeviceGetComputeRunningProcesses=refuse), card
    )
    assert (card["error"], card["power_w"], card["processes"]) == (None, [], [])
    assert card["utilization"] == [93]


def test_the_sampler_says_so_where_there_is_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = nvml.Sampler(0.01)
    sampler.start()
    assert sampler.result() == []
    assert (sampler.error or "").startswith("nvidia-ml-py is not importable: ")


def test_a_driver_that_blocks_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    blocked = driver(nvmlInit=released.wait, nvmlDeviceGetCount=lambda: 0)
    monkeypatch.setitem(sys.modules, "pynvml", blocked)
    sampler = nvml.Sampler(0.01)
    sampler.start()
    assert sampler.result(timeout_s=0.1) == []
    assert sampler.error == "NVML did not answer within 0.1 s"
    released.set()


def amd_card(root: Path, address: str, **files: str) -> Path:
    """Sysfs of one AMD card, as amdgpu writes it."""
    directory = root / "sys/bus/pci/devices" / address
    (directory / "hwmon/hwmon3").mkdir(parents=True)
    written = {
        "vendor": "0x1002",
        "class": "0x030000",
        "mem_info_vram_total": f"{24560 * nvml.MIB}",
        "mem_info_vram_used": f"{20000 * nvml.MIB}",
        "gpu_busy_percent": "97",
        "unique_id": "1a2b3c4d",
        "hwmon/hwmon3/power1_average": "301240000",
    }
    for name, text in {**written, **files}.items():
        (directory / name).write_text(f"{text}\n")
    return directory


def test_amd_cards_are_sampled_from_sysfs_without_nvml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    amd_card(tmp_path, "0000:0a:00.0", unique_id="ffee")
    amd_card(tmp_path, "0000:03:00.0")
    amd_card(tmp_path, "0000:04:00.1", **{"class": "0x040300"})
    amd_card(tmp_path, "0000:05:00.0", vendor="0x10de")
    sampler = nvml.Sampler(0.01, root=str(tmp_path))
    sampler.start()
    time.sleep(0.1)
    first, second = sampler.result()
    assert sampler.error is None
    assert (first["uuid"], second["uuid"]) == ("0x000000001a2b3c4d", "0x000000000000ffee")
    assert (first["index"], second["index"]) == (0, 1)
    assert set(first["utilization"]) == {97} and set(first["power_w"]) == {301.2}
    assert (first["memory_used_mib"], first["memory_total_mib"]) == (20000, 24560)


def test_an_amd_card_that_went_away_keeps_its_row_with_the_error(tmp_path: Path) -> None:
    directory = amd_card(tmp_path, "0000:03:00.0")
    card = nvml.new_card(0)
    amdgpu.sample(str(directory), card)
    (directory / "mem_info_vram_used").unlink()
    amdgpu.sample(str(directory), card)
    assert "no memory" in card["error"] and card["utilization"] == [97]


def test_an_amd_card_without_an_id_has_no_uuid_and_newer_power_names_are_read(
    tmp_path: Path,
) -> None:
    directory = amd_card(tmp_path, "0000:03:00.0", unique_id="0")
    (directory / "hwmon/hwmon3/power1_average").rename(directory / "hwmon/hwmon3/power1_input")
    card = nvml.new_card(0)
    amdgpu.sample(str(directory), card)
    assert card["uuid"] is None and card["power_w"] == [301.2]


RENDERED = RenderedUnit(
    Service("chat", ("/usr/bin/engine",), (), 8000, "/health", (0, 1)), "0123", (), 600
)


def test_the_request_says_what_to_load_and_what_to_look_for() -> None:
    spec = observation.spec(plan(concurrency=8), (RENDERED,), (r"offloaded \d+",))
    assert json.loads(json.dumps(spec)) == {
        "name": "chat",
        "model": "chat",
        "concurrency": 8,
        "endpoint": None,
        "seconds": observation.SECONDS,
        "max_tokens": observation.MAX_TOKENS,
        "units": [{"unit": "multigpu-chat.service", "url": "http://127.0.0.1:8000"}],
        "environment_names": ["CUDA_VISIBLE_DEVICES"],
        "log_patterns": [r"offloaded \d+"],
        "api_key_file": None,
    }


def test_clients_ask_for_the_served_name_when_one_is_wished() -> None:
    assert observation.served_model_name(plan(served_model_name="qwen")) == "qwen"


def run_observe(spec: dict[str, Any]) -> str:
    program = "import sys; from multigpu.host import observe; observe.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "--spec", json.dumps([spec])],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_observe_prints_is_read_back(engine: Engine) -> None:
    spec = {
        "name": "chat",
        "model": "chat",
        "concurrency": 2,
        "seconds": 0.3,
        "max_tokens": 4,
        "units": [{"unit": "multigpu-not-there.service", "url": engine.url}],
        "environment_names": [],
        "log_patterns": ["."],
    }
    printed = run_observe(spec)
    assert printed.isascii()
    (seen,) = observation.read("Welcome to tower!\n" + printed)
    assert seen.name == "chat"
    assert seen.load.completed > 2
    assert (seen.load.failed, seen.load.sample_text) == (0, " four, five")
    (unit,) = seen.units
    assert (unit.unit, unit.argv, unit.environment) == ("multigpu-not-there.service", (), {})
    assert seen.gpus or seen.nvml_error
    assert engine.requests[0]["max_tokens"] == 1


def test_the_engine_is_the_child_of_the_main_process() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as main:
        deadline = time.monotonic() + 5
        argv: list[str] = []
        while argv[-1:] != ["input()"] and time.monotonic() < deadline:
            time.sleep(0.01)
            argv = observe.strings(observe.read(f"/proc/{observe.engine_pid(main.pid)}/cmdline"))
        main.communicate(b"\n")
    assert argv[-1:] == ["input()"]


def test_only_the_named_variables_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"MULTIGPU_REVISION": "0123", "SECRET": "hush", "PATH": os.environ["PATH"]}
    sleeping = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(
        sleeping, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = observe.environment(process.pid, ["MULTIGPU_REVISION"])
        process.communicate(b"\n")
    assert found == {"MULTIGPU_REVISION": "0123"}


def test_a_command_that_never_ends_gives_its_first_lines() -> None:
    assert observe.first_lines(["yes", "no"], 3) == ["no", "no", "no"]


def test_a_command_that_is_not_there_gives_nothing() -> None:
    assert observe.first_lines(["/no/such/command"], 3) == []
    assert observe.output(["/no/such/command"]) == ""


SEEN = ServiceSeen(
    "chat",
    LoadSeen(8.0, 10, 0, 640, "four", None),
    (CardSeen(0, "GPU-a", (93, 95), (300.5,), 20000, 24564, ((42, None),), None),),
    None,
    (UnitSeen("multigpu-chat.service", "active", "running", 0, ("vllm",), {"A": "1"}, ("ok",)),),
)
WHOLE = json.dumps(
    {
        "schema": observation.SCHEMA,
        "services": [
            {
                "name": "chat",
                "load": SEEN.load.__dict__,
                "gpus": [SEEN.gpus[0].__dict__],
                "nvml_error": None,
                "units": [SEEN.units[0].__dict__],
            }
        ],
        "end": observation.END,
    }
)


def test_a_whole_observation_becomes_values() -> None:
    assert observation.read(WHOLE) == (SEEN,)
    assert SEEN.gpus[0].busy_percent == 94


def test_the_two_sides_agree_on_schema_and_end() -> None:
    assert (observation.SCHEMA, observation.END) == (observe.SCHEMA, observe.END)


@given(st.integers(1, len(WHOLE) - 1))
def test_a_cut_observation_is_refused_in_one_line(length: int) -> None:
    with pytest.raises(CaptureError) as refused:
        observation.read(WHOLE[:length])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "printed no result, it ends: nothing"),
        ("Traceback ...\nKeyError: 'units'", "KeyError: 'units'"),
        ('{"schema": 9, "end": "multigpu-observation-end"}', "another version"),
        (WHOLE.replace(observation.END, "?"), "another version"),
        ('{"schema": 1, "services": 5, "end": "multigpu-observation-end"}', "expected shape"),
        ('{"schema": 1, "services": ["x"], "end": "multigpu-observation-end"}', "expected shape"),
        ('{"schema": 1, "end": "multigpu-observation-end"}', "expected shape"),
        (WHOLE.replace('"completed": 10', '"completed": null'), "expected shape"),
        (WHOLE.replace('"utilization": [93, 95]', '"utilization": 3'), "expected shape"),
    ],
)
def test_what_is_no_observation_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message) as refused:
        observation.read(text)
    assert "\n" not in str(refused.value)
