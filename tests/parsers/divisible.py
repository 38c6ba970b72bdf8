"""Runs in the parsers' environment: vLLM's own verdict on models and sizes, without a GPU.

A list of [folder with config.json, tensor parallel, pipeline parallel] on standard input, a list of
null or the refusal of `ModelConfig.verify_with_parallel_config` on standard output.
"""

from __future__ import annotations

import contextlib
import json
import sys
from functools import cache

from vllm.config import ModelConfig, ParallelConfig


@cache
def model(folder: str) -> ModelConfig:
    return ModelConfig(model=folder, skip_tokenizer_init=True, max_model_len=1024)


def refusal(folder: str, tensor: int, pipeline: int) -> str | None:
    """vLLM's refusal in one line."""
    try:
        sizes = ParallelConfig(
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
            distributed_executor_backend="mp",
        )
        model(folder).verify_with_parallel_config(sizes)
    except Exception as error:
        return " ".join(str(error).split())[:300]
    return None


if __name__ == "__main__":  # vLLM inspects models in processes that import this file again
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answers = [refusal(*row) for row in asked]
    json.dump(answers, sys.stdout)
