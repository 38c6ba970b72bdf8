"""llama_cpp.server: for one user who asks for it by name, and told what it cannot do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from multigpu import flags
from multigpu.errors import NoPlan, WishError
from multigpu.page.flag_reasons import UNEXPLAINED, explained
from multigpu.plan import Plan, Service, Strategy
from multigpu.planner import plan
from multigpu.runtimes import llama_cpp, llama_cpp_server, runtime
from multigpu.runtimes.llama_cpp_server import as_llama_server
from multigpu.wish import wishes
from tests.machines import RTX_3060, RTX_3090, gguf, hf, host

TWO = host(RTX_3090, RTX_3090)
PYTHON = "/opt/r/bin/python"


def planned(machine: Any = TWO, model: Any = None, **keys: Any) -> Plan:
    model = model or gguf()
    wished = {"model": model.name, "runtime": "llama_cpp.server", **keys}
    (wish,) = wishes({"chat": wished})
    return plan(machine, model, wish)


def rendered(made: Plan) -> Service:
    (service,) = runtime(made.chosen.runtime).render(made, PYTHON, "/models/m.gguf")
    return service


def value(service: Service, flag: str) -> str:
    return service.argv[service.argv.index(flag) + 1]


def test_it_is_never_planned_unless_it_is_wished_by_name() -> None:
    (wish,) = wishes({"chat": {"model": "m.gguf"}})
    assert llama_cpp_server.candidates(TWO, gguf(), wish) == ()
    assert plan(TWO, gguf(), wish).chosen.runtime == "llama.cpp"
    one = planned().chosen
    rules = [r.rule for r in llama_cpp_server.objections(one, TWO, gguf(), wish)]
    assert rules == ["runtime-on-request"]


WISHES: list[dict[str, Any]] = [
    {},
    {"strategy": "layer_split"},
    {"strategy": "layer_split", "layers": [20, 13]},
    {"strategy": "single", "context": 4096, "kv_cache_dtype": "q8_0"},
    {"flags": {"--n_threads": 8, "--chat_format": "chatml"}, "bind": "0.0.0.0", "port": 9000},
]


@pytest.mark.parametrize("keys", WISHES)
def test_every_command_line_passes_its_own_parser_and_is_explained(keys: dict[str, Any]) -> None:
    made = planned(**keys)
    service = rendered(made)
    assert service.argv[:3] == (PYTHON, "-m", "llama_cpp.server")
    assert flags.check("llama_cpp.server", service.argv) == ()
    told = explained(made, service.argv)
    assert UNEXPLAINED not in [setting.why for setting in told]
    assert "--api_key" not in service.argv
    words = " ".join(service.argv)
    for flag in (
        "--n_gpu_layers -1",
        "--flash_attn true",
        "--logits_all false",
        "--interrupt_requests false",
        "--use_mlock false",
    ):
        assert flag in words


def test_layers_are_given_per_card_and_a_single_card_is_not_split() -> None:
    split = rendered(planned(strategy="layer_split", layers=[20, 13]))
    place = split.argv.index("--tensor_split")
    assert split.argv[place + 1 :] == ("20", "13") and value(split, "--split_mode") == "1"
    alone = rendered(planned(strategy="single"))
    assert "--tensor_split" not in alone.argv and value(alone, "--split_mode") == "0"
    assert len(alone.gpus) == 1


def test_readiness_is_asked_where_no_key_and_no_running_request_is_in_the_way() -> None:
    service = rendered(planned())
    assert service.health_path == "/openapi.json"
    assert not service.progress.known and service.progress.metrics_path is None
    assert llama_cpp_server.benchmark(planned(), "http://h", "m.gguf") == ()


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({"concurrency": 4}, "one-request-at-a-time"),
        ({"objective": "throughput"}, "one-request-at-a-time"),
        ({"strategy": "replicas"}, "single-process"),
        ({"strategy": "tensor_split"}, "single-process"),
        ({"cpu_offload_gib": 4}, "offload-flags"),
        ({"env": {"PORT": "80"}}, "environment-overrides"),
        ({"env": {"config_file": "/x"}}, "environment-overrides"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_to_take_instead(
    keys: dict[str, Any], rule: str
) -> None:
    with pytest.raises(NoPlan) as error:
        planned(**keys)
    reasons = [r for item in error.value.rejected for r in item.reasons]
    assert rule in {r.rule for r in reasons}
    assert all(r.hint or r.needed for r in reasons if r.rule == rule)


def test_a_model_that_is_no_gguf_is_refused_in_one_line() -> None:
    with pytest.raises(WishError, match="needs a GGUF"):
        planned(model=hf())


def test_the_operator_is_told_what_a_single_user_gives_up() -> None:
    rules = {warning.rule for warning in planned().warnings}
    assert {"single-user", "no-progress", "token-count"} <= rules


def test_its_memory_is_that_of_llama_server_with_one_slot_and_full_windows() -> None:
    ours = planned(strategy="single", context=4096).chosen
    (wish,) = wishes({"chat": {"model": "m.gguf", "context": 4096, "concurrency": 1}})
    twin = replace(
        wish, flags=MappingProxyType({"--swa-full": None, "--flash-attn": "on"}), runtime=None
    )
    theirs = [
        c
        for c in llama_cpp.candidates(TWO, gguf(), twin)
        if c.strategy is Strategy.SINGLE and c.gpus == ours.gpus
    ]
    assert [c.memory for c in theirs] == [ours.memory]
    assert (ours.max_num_seqs, ours.kv_tokens) == (1, 4096)


def test_a_smaller_batch_of_the_wish_counts() -> None:
    (wish,) = wishes({"chat": {"model": "m.gguf", "flags": {"--n_ubatch": 128}}})
    assert as_llama_server(wish).flags["--ubatch-size"] == "128"


def test_unlike_cards_get_layers_by_what_they_hold() -> None:
    made = planned(host(RTX_3090, RTX_3060), gguf(block_mib=900), context=2048)
    assert made.chosen.strategy is Strategy.LAYER_SPLIT
    held = dict(zip(made.chosen.gpus, made.chosen.layers or (), strict=True))
    assert held[0] > held[1]


OFFLOADED = "load_tensors: offloaded 33/33 layers to GPU"


def test_a_wheel_without_a_backend_for_the_cards_is_found_out_by_its_buffers() -> None:
    made = planned()
    cpu = [OFFLOADED, "load_tensors:   CPU_Mapped model buffer size =    96.45 MiB"]
    assert {c.name: c.ok for c in llama_cpp_server.signs(made, cpu)}["devices"] is False
    gpu = [*cpu, "load_tensors:        CUDA0 model buffer size =  4096.00 MiB"]
    assert all(c.ok for c in llama_cpp_server.signs(made, gpu))


# --- for real, on the CPU: needs a Python that has llama-cpp-python[server] and the tiny model ---

REAL = os.environ.get("LLAMA_CPP_PYTHON", "")
TINY = next(iter(sorted(Path.home().glob(".cache/multigpu/tiny-model-*/tiny.gguf"))), None)


@pytest.mark.process
@pytest.mark.skipif(not REAL or TINY is None, reason="LLAMA_CPP_PYTHON or a tiny model is not here")
def test_exactly_the_rendered_command_starts_and_answers_a_request(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = planned(context=512, port=port, strategy="single")
    (service,) = llama_cpp_server.render(made, REAL, str(TINY))
    home = subprocess.run(
        [REAL, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    environment = {"LD_LIBRARY_PATH": f"{home}/lib", "API_KEY": "of the test"}
    with (tmp_path / "log").open("wb") as stream:
        engine = subprocess.Popen(service.argv, env=environment, stderr=stream)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(url + service.health_path, timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        assert made.wish.name in _answer(f"{url}/v1/models")["data"][0]["id"]
        found = _answer(f"{url}/v1/completions", {"prompt": "hello", "max_tokens": 8})
        assert found["usage"]["completion_tokens"] in (8, 9)
        with pytest.raises(OSError, match="401"):
            urllib.request.urlopen(f"{url}/v1/models", timeout=5)
    finally:
        engine.terminate()
        engine.wait(timeout=30)
    log = (tmp_path / "log").read_text().splitlines()
    assert engine.returncode in (0, -15, 143)
    checks = {c.name: c.ok for c in llama_cpp_server.signs(made, log)}
    assert checks["devices"] is False  # this wheel is built for the CPU


def _answer(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": "Bearer of the test", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
