"""Boots of vLLM on made-up weights with the command line that the plan renders.

What a boot prints of its memory is set beside what was predicted, term by term; then NVML is read
and, where wished, requests are timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.real_gpu import clients
from scripts.real_gpu.cards import used_mib

BOOT_S = 420.0
# DEBUG makes vLLM print the peak of torch and what is gone of the card beside it.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "DEBUG",
}
PRINTED = {
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "kv_gib": r"Available KV cache memory: (-?[\d.]+) GiB",
    "peak_gib": r"torch peak memory increase: ([\d.]+)GiB",
    "consumed_gib": r"total consumed \(from mem_get_info\): ([\d.]+)GiB",
    "other_than_kv_gib": r"Total non KV cache memory: ([\d.]+)GiB",
    "graphs_gib": r"CUDA graph pool memory: ([\d.]+) GiB \(actual\)",
    "graphs_estimate_gib": r"CUDA graph pool memory: .{0,40}? ([\d.]+) GiB \(estimated\)",
    "kv_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "attention": r"Using ([\w.]+) attention backend",
    "version": r"LLM engine \(v(\d+\.\d+\.\d+)",
    "boot_s": r"init engine .{0,80}? took ([\d.]+) s",
}
SPEEDS = ("ttft_ms", "tpot_ms", "decode_tokens_per_s")


def plan(capture: Path, model: Path, pairs: Sequence[str]) -> dict[str, Any]:
    """The JSON of `multigpu plan` for the first card of this machine. Raises RuntimeError."""
    wishes = [word for pair in ("runtime=vllm", *pairs) for word in ("--wish", pair)]
    argv = [sys.executable, "-m", "multigpu", "plan", "--host", str(capture)]
    done = subprocess.run(
        [*argv, "--model", str(model), *wishes, "--json"], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-300:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def boot(
    program: str,
    capture: Path,
    model: Path,
    log: Path,
    *,
    pairs: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    """One record: what was predicted, what the boot printed, what NVML and clients saw.

    `pairs` are wishes (`concurrency=256`), `flags` go to vLLM alone, unknown to the prediction.
    """
    record: dict[str, Any] = {"model": model.name, "wish": list(pairs), "log": log.name}
    try:
        made = plan(capture, model, pairs)
    except RuntimeError as error:
        return {**record, "refused": str(error)}
    chosen, predicted = made["chosen"], made["predicted"]
    argv = [*shlex.split(program), *chosen["command"][1:], "--load-format", "dummy", *flags]
    record |= {
        "argv": argv,
        "utilization": chosen["gpu_memory_utilization"],
        "predicted": {**predicted["memory"][0], "kv_tokens": predicted["kv_cache_tokens"]},
        "nvml_before_mib": used_mib(),
    }
    if _answers(_url(argv)):
        return {**record, "refused": f"something else answers at {_url(argv)}"}
    started = time.monotonic()
    with _running(argv, chosen["environment"], log) as process:
        record["ready"] = _ready(process, _url(argv))
        record["ready_s"] = round(time.monotonic() - started, 1)
        record["nvml_ready_mib"] = used_mib()
        if record["ready"]:
            alone = made["workload"]["concurrency"] == 1
            record["speeds"] = _speeds(_url(argv), predicted if alone else {})
            record["nvml_loaded_mib"] = used_mib()
    record["printed"] = printed(log.read_text(errors="replace"))
    return record


def printed(text: str) -> dict[str, float | str]:
    """What a boot's log says of memory; GiB, tokens and seconds as numbers."""
    found: dict[str, float | str] = {}
    for name, pattern in PRINTED.items():
        for match in re.finditer(pattern, text):
            value = match[1].replace(",", "")
            found[name] = value if name in ("attention", "version") else float(value)
    return found


def _speeds(url: str, predicted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One request alone, as planned for, and 64 at once; the first ones only warm up."""
    made: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        clients.measured(url, 2, 1024, 32)
        made.append(asdict(clients.measured(url, 1, 1024, 256)))
        said = {key: predicted[key]["value"] for key in SPEEDS if predicted.get(key)}
        made[0] |= {"predicted": said} if len(said) == len(SPEEDS) else {}
        made.append(asdict(clients.measured(url, 64, 1024, 128)))
    return made


def _url(argv: Sequence[str]) -> str:
    return f"http://127.0.0.1:{argv[argv.index('--port') + 1]}"


@contextlib.contextmanager
def _running(
    argv: Sequence[str], settings: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own, gone with the memory of its cards when this is left."""
    before = used_mib()
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **QUIET, **settings},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)
            _wait_for_memory(before)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for_memory(before: int | None) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and (used_mib() or 0) > (before or 0) + 64:
        time.sleep(0.25)


def _ready(process: subprocess.Popen[bytes], url: str) -> bool:
    end = time.monotonic() + BOOT_S
    while time.monotonic() < end and process.poll() is None:
        if _answers(url):
            return True
        time.sleep(0.5)
    return False


def _answers(url: str) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"{url}/health", timeout=2) as answer,
    ):
        return bool(answer.status == 200)
    return False
