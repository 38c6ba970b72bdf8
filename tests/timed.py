"""Candidates with made-up speeds, for tests of ranking and of what is said about it."""

from __future__ import annotations

from typing import Any

from multigpu.plan import Candidate, Estimate, Memory, Objective, Prediction, Strategy, Workload

CARD = Memory(8000, 8000, 1000, 500, 23000)


def about(value: float) -> Estimate:
    return Estimate(value, 0.75 * value, 1.3 * value)


def speed(tpot: float, ttft: float = 100.0, rate: float | None = None) -> Prediction:
    return Prediction(about(rate or 1000 / tpot), None, about(ttft), about(tpot))


def one(predicted: Prediction | None, **facts: Any) -> Candidate:
    return Candidate(
        **{
            "runtime": "vllm",
            "strategy": Strategy.SINGLE,
            "gpus": (0,),
            "memory": (CARD,),
            "kv_tokens": 40_000,
            "max_model_len": 8192,
            "predicted": predicted,
            **facts,
        }
    )


def team(predicted: Prediction | None, **facts: Any) -> Candidate:
    return one(
        predicted,
        **{
            "strategy": Strategy.TENSOR_PARALLEL,
            "gpus": (0, 1),
            "tensor_parallel_size": 2,
            "memory": (CARD, CARD),
            **facts,
        },
    )


def copies(predicted: Prediction | None, **facts: Any) -> Candidate:
    strategy = Strategy.REPLICAS
    return one(
        predicted,
        **{"strategy": strategy, "gpus": (0, 1), "replicas": 2, "memory": (CARD, CARD), **facts},
    )


def load(objective: Objective = Objective.LATENCY, **facts: Any) -> Workload:
    return Workload(
        **{
            "objective": objective,
            "context": 8192,
            "concurrency": 1,
            "input_tokens": 1024,
            "output_tokens": 256,
            **facts,
        }
    )
