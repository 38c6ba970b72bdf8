"""The command lines of the engines that are simulated: as much of them as changes what is seen."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

SHAPES = ("vllm", "sglang", "llama")
ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "llama": "llama-server"}


@dataclass(frozen=True)
class Options:
    """What a simulated engine was asked for. `key` is the API key, None without one."""

    shape: str
    model: str
    host: str
    port: int
    workers: int
    control: str | None
    metrics: bool
    key: str | None
    max_running: int
    memory_fraction: float
    context: int
    load_s: float
    token_s: float
    tensor: int = 1
    pipeline: int = 1
    ignored: tuple[str, ...] = ()

    @property
    def engine(self) -> str:
        return ENGINES[self.shape]


def read(words: list[str], shape: str | None = None) -> Options:
    """Of `serve MODEL --flags`, `serve --model-path M`, `-m FILE`, and of our own four flags."""
    parser = argparse.ArgumentParser(prog=f"simulated {shape or 'engine'}", allow_abbrev=False)
    add = parser.add_argument
    add("words", nargs="*", help="serve, and vLLM's model")
    add("--shape", choices=SHAPES, default=shape or "vllm")
    add("--control", default=os.environ.get("SIMULATED_ENGINE_CONTROL"))
    add("--workers", type=int)
    add("--load-s", type=float, default=0.1)
    add("--token-s", type=float, default=0.01)
    add("--model-path", "--model", "-m")
    add("--served-model-name", "--alias")
    add("--host", default="127.0.0.1")
    add("--port", type=int)
    add("--tensor-parallel-size", "-tp", "--tp-size", type=int, default=1)
    add("--pipeline-parallel-size", "-pp", "--pp-size", type=int, default=1)
    add("--gpu-memory-utilization", "--mem-fraction-static", type=float, default=0.92)
    add("--max-model-len", "--context-length", "--ctx-size", default="8192")
    add("--max-num-seqs", "--max-running-requests", "--parallel", type=int, default=16)
    add("--enable-metrics", "--metrics", action="store_true")
    add("--api-key")
    add("--api-key-file", type=Path)
    add("--config", type=Path)
    found, ignored = parser.parse_known_args(words)
    return options(found, tuple(ignored))


def options(found: argparse.Namespace, ignored: tuple[str, ...]) -> Options:
    names = [word for word in found.words if word != "serve"]
    model = found.served_model_name or found.model_path or (names or ["simulated"])[0]
    world = found.tensor_parallel_size * found.pipeline_parallel_size
    length = str(found.max_model_len)
    port = found.port or {"vllm": 8000, "sglang": 30000, "llama": 8080}[found.shape]
    return Options(
        shape=found.shape,
        model=model,
        host=found.host,
        port=port,
        workers=found.workers or (0 if found.shape == "llama" else world),
        control=found.control or f"/run/simulated-gpu/engine-{port}.json",
        metrics=found.shape == "vllm" or found.enable_metrics or found.workers is not None,
        key=key(found),
        max_running=found.max_num_seqs,
        memory_fraction=found.gpu_memory_utilization,
        context=int(length) if length.isdigit() else 8192,
        load_s=found.load_s,
        token_s=found.token_s,
        tensor=found.tensor_parallel_size,
        pipeline=found.pipeline_parallel_size,
        ignored=ignored,
    )


def key(found: argparse.Namespace) -> str | None:
    """vLLM takes it from its environment, SGLang from a YAML file, llama-server from a file."""
    if found.api_key_file:
        return found.api_key_file.read_text().strip()
    if found.config:
        lines = [line.partition(":") for line in found.config.read_text().splitlines()]
        for name, _, value in lines:
            if name.strip() in ("api-key", "api_key"):
                return value.strip().strip("'\"")
    return found.api_key or os.environ.get("VLLM_API_KEY") or None
