"""The fault matrix on real hosts: whatever is done to a service, all is as it should be after it.

`make faults` runs them and writes docs/fault-matrix.md; `-k telling` is the short way.
Four hosts at the same time: vLLM's shape, SGLang's shape, and the real llama-server twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bed.client import Lab
from faults import table
from faults.bench import CLIENTS, Bench
from faults.cases import HARMLESS, RESTARTS, Fault
from faults.measuring import Result, measured
from test_serve import serve

pytestmark = [pytest.mark.lab, pytest.mark.faults]
HOSTS = {"matched": "vllm", "mixed": "sglang", "third": "llama", "fourth": "vllm"}
PORTS = {"vllm": 8100, "sglang": 8100, "llama": 8000}
SLOW_S = 20.0
"""Harmless things that are watched for longer are shared with the second host of vLLM's shape."""


def wishes() -> dict[str, dict[str, object]]:
    """Services by host; the lab's own for llama-server."""
    found: dict[str, dict[str, object]] = {}
    for host, shape in HOSTS.items():
        wish = {
            "model": ".lab/models/tiny-hf",
            "runtime": shape,
            "strategy": "tensor_parallel",
            "executable": f"/usr/lib/simulated-gpu/faulty/{shape}",
            "context": 1024,
            "concurrency": 4,
            "port": PORTS[shape],
            "switch_runtime": True,
        }
        found[host] = {} if shape == "llama" else {"chat": wish}
    return found


@pytest.fixture(scope="module")
def benches(lab: Lab) -> Iterator[list[Bench]]:
    """All hosts serve; afterwards the deploy changes nothing, whatever was done to them."""
    os.environ["MULTIGPU_LAB_VERIFY_S"] = "1"
    for host in HOSTS:
        lab.reset(host)
    run = serve(lab, hosts=wishes())
    assert run.status == 0, run.said
    for host in HOSTS:
        lab.put(host, Path(__file__).parent / "clients.py", CLIENTS)
    made = [Bench(lab, host, shape, PORTS[shape]) for host, shape in HOSTS.items()]
    yield made
    for bench in made:
        bench.fresh(short=False)
    again = serve(lab, hosts=wishes())
    assert (again.status, again.totals["success"]) == (0, 0), (again.changed, again.said)


def share(bench: Bench, faults: list[Fault]) -> list[Fault]:
    """Which faults a host takes: those of vLLM's shape are dealt to its two hosts in turn."""
    fitting = [fault for fault in faults if bench.shape in fault.shapes]
    fitting.sort(key=lambda fault: fault.short)
    if bench.shape != "vllm":
        return fitting
    return fitting[list(HOSTS).index(bench.host) > 0 :: 2]


def everywhere(benches: list[Bench], faults: list[Fault]) -> list[Result]:
    """Each host takes its faults one after the other, all hosts at the same time."""

    def one(bench: Bench) -> list[Result]:
        return [measured(bench, fault) for fault in share(bench, faults)]

    with ThreadPoolExecutor(len(benches)) as pool:
        return [result for results in pool.map(one, benches) for result in results]


def held(results: list[Result]) -> None:
    assert [f"{r.fault}, {r.shape}: {'; '.join(r.broken)}" for r in results if r.broken] == []


def chosen(pick: Callable[[Fault], bool]) -> list[Fault]:
    wanted = os.environ.get("MULTIGPU_FAULTS", "")
    return [fault for fault in (*RESTARTS, *HARMLESS) if pick(fault) and wanted in fault.name]


def test_the_most_telling_faults_are_found_in_time_and_nothing_else_is(
    benches: list[Bench],
) -> None:
    held(everywhere(benches, chosen(lambda fault: fault.told)))


def test_the_whole_matrix_holds_and_is_written_down(benches: list[Bench]) -> None:
    results = everywhere(benches, chosen(lambda fault: True))
    order = [fault.name for fault in (*RESTARTS, *HARMLESS)]
    results.sort(key=lambda result: order.index(result.fault))
    systemd = benches[0].run("systemctl --version").split()[1]
    for result in results:
        print(table.row(result))
    if not os.environ.get("MULTIGPU_FAULTS"):
        table.write(results, systemd, os.cpu_count() or 1)
    held(results)
