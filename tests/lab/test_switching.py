"""On a real host: a service in its first week keeps its runtime, unless the run allows a switch."""

from __future__ import annotations

import json
import time

import pytest
from bed.client import Lab
from test_serve import serve

pytestmark = pytest.mark.lab
HOST = "matched"
RECORD = "/etc/multigpu/chat.runtime.json"


def record(lab: Lab) -> dict[str, object]:
    found: dict[str, object] = json.loads(lab.run(HOST, f"cat {RECORD}").stdout)
    return found


def test_another_runtime_is_refused_before_anything_changes_and_then_allowed(lab: Lab) -> None:
    first = serve(lab, "--limit", HOST)
    assert first.status == 0, first.said
    assert record(lab)["runtime"] == "llama.cpp"
    mode = lab.run(HOST, f"stat -c '%U:%G %a' {RECORD}").stdout.strip()
    assert mode == "root:root 644"
    before = lab.run(HOST, "pgrep llama-server").stdout
    # As if the service had come up with vLLM two days ago.
    other = json.dumps({"runtime": "vllm", "since": int(time.time()) - 2 * 86400})
    lab.run(HOST, f"echo '{other}' | sudo tee {RECORD}")
    refused = serve(lab, "--limit", HOST)
    (line,) = refused.lines("in use with vLLM since")
    assert refused.status != 0 and "switch_runtime" in line and not refused.results
    assert record(lab)["runtime"] == "vllm"
    assert lab.run(HOST, "pgrep llama-server").stdout == before
    told = serve(lab, "--limit", HOST, "--data", "switch_runtime=chat")
    assert told.changed == [("Runtimes in use", HOST)], told.said
    assert record(lab)["runtime"] == "llama.cpp"
    again = serve(lab, "--limit", HOST)
    assert (again.status, again.totals["success"]) == (0, 0), again.said
