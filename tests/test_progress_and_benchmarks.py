"""What shows that an engine works, and the command of its own benchmark tool."""

from __future__ import annotations

from typing import Any

import pytest

from multigpu.plan import Plan
from multigpu.planner import plan
from multigpu.runtimes import RUNTIMES, runtime
from multigpu.wish import wishes
from tests.machines import H100, RTX_3090, gguf, hf, host

# Options as the tools' own parsers have them: vllm/benchmarks/{serve,datasets/datasets}.py of
# 0.33.0, sglang/benchmark/serving.py of 0.5.23, `llama-batched-bench --help` of 0.3.36.
OPTIONS = {
    "vllm": "--backend --base-url --endpoint --model --tokenizer --dataset-name --random-input-len "
    "--random-prefix-len --random-output-len --num-prompts --max-concurrency --num-warmups "
    "--ignore-eos --save-result",
    "sglang": "--backend --base-url --model --served-model-name --tokenizer --dataset-name "
    "--random-input-len --random-output-len --random-range-ratio --num-prompts --gsp-num-groups "
    "--gsp-prompts-per-group --gsp-system-prompt-len --gsp-question-len --gsp-output-len "
    "--gsp-range-ratio --max-concurrency --output-file",
    "llama.cpp": "--model --ctx-size --rpc --split-mode --device --gpu-layers --fit --flash-attn "
    "--tensor-split --n-cpu-moe --cache-type-k --cache-type-v -npp -ntg -npl --output-format",
}
AGENTS = {"shared_prefix_tokens": 6000, "input_tokens": 7000, "concurrency": 8}


def planned(name: str, **keys: Any) -> Plan:
    model = gguf() if name.startswith("llama") else hf()
    cards = (RTX_3090, RTX_3090) if model.format == "gguf" else (H100, H100)
    (wish,) = wishes({"chat": {"model": model.name, "runtime": name, **keys}})
    return plan(host(*cards), model, wish)


@pytest.mark.parametrize("keys", [{}, AGENTS], ids=["usual", "agents"])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_benchmark_of_every_runtime_has_options_that_its_tool_takes(
    name: str, keys: dict[str, Any]
) -> None:
    argv = runtime(name).benchmark(planned(name, **keys), "http://127.0.0.1:8000", "/models/m")
    module = 3 if argv[1] == "-m" else 1
    flags = {word for word in argv[module:] if word.startswith("-")}
    assert flags and flags <= set(OPTIONS[name].split())
    assert "/models/m" in argv and not argv[0].startswith("/")


def test_a_shared_prefix_is_put_before_what_is_random_and_not_added_to_it() -> None:
    vllm = planned("vllm", **AGENTS)
    words = " ".join(runtime("vllm").benchmark(vllm, "http://h", "/m"))
    assert "--random-input-len 1000 --random-prefix-len 6000" in words
    words = " ".join(runtime("sglang").benchmark(planned("sglang", **AGENTS), "http://h", "/m"))
    assert "--gsp-system-prompt-len 6000 --gsp-question-len 1000" in words


@pytest.mark.parametrize("name", [module.NAME for module in RUNTIMES])
def test_every_service_carries_the_progress_of_its_runtime(name: str) -> None:
    made = planned(name)
    found = runtime(name).progress(made)
    assert found.known == (name != "llama_cpp.server")
    for service in runtime(name).render(made, "/opt/r/bin/engine", "/models/m"):
        assert service.progress == found


def test_llama_servers_tokens_are_no_progress_because_they_move_when_a_request_ends() -> None:
    found = runtime("llama.cpp").progress(planned("llama.cpp"))
    assert found.moving == ("llamacpp:n_decode_total",)
