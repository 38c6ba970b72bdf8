"""vLLM and SGLang from the registries onto bare hosts: gigabytes, minutes (`make test-install`).

The hosts have no GPU: the engine starts and says so itself, and that is the proof. Figures go to
stderr: seconds, sizes.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator

import pytest
from bed import hosts
from bed.client import Lab
from bed.cluster import find_work
from bed.uplink import Uplink
from test_serve import Run, serve

pytestmark = pytest.mark.install
HOST = "third"
TABLE = "/etc/simulated-gpu/table.ini"
DRIVER = (
    "s/^driver_version = .*/driver_version = 580.95.05/; s/^cuda_version = .*/cuda_version = 13.0/"
)


@pytest.fixture
def bare(lab: Lab) -> Iterator[tuple[Lab, Uplink]]:
    """One bare host with a driver for CUDA 13, and a way to the registries."""
    os.environ["MULTIGPU_LAB_TIMEOUT_S"] = "1500"
    lab.reset(HOST)
    lab.run(HOST, f"sudo sed -i '{DRIVER}' {TABLE}")
    with Uplink(lab.settings) as uplink:
        uplink.trust(hosts.root(find_work(lab.settings), HOST))
        yield lab, uplink
    del os.environ["MULTIGPU_LAB_TIMEOUT_S"]
    lab.reset(HOST)


def wishes(runtime: str) -> dict[str, object]:
    wish = {
        "model": ".lab/models/tiny-hf",
        "runtime": runtime,
        "strategy": "single",
        "context": 1024,
        "concurrency": 4,
        "port": 8100,
        "start_s": 200,
    }
    return {"replace": True, "services": {"chat": wish}}


def install(lab: Lab, uplink: Uplink, runtime: str) -> Run:
    started, before = time.monotonic(), received(uplink)
    run = serve(lab, "--limit", HOST, "--data", f"https_proxy={uplink.url}", **wishes(runtime))
    seconds = time.monotonic() - started
    size = lab.run(HOST, f"sudo du -sm /opt/multigpu/runtimes/{runtime}-*", check=False).stdout
    unit = f"sudo journalctl -q -u 'multigpu-install-{runtime}-*' -o short-unix --no-pager || true"
    times = [float(line.split()[0]) for line in lab.run(HOST, unit).stdout.splitlines() if line]
    took = times[-1] - times[0] if times else 0.0
    said = f"{runtime}: serve {seconds:.0f} s, install {took:.0f} s, {size.strip()}"
    print(f"{said}, {(received(uplink) - before) / 2**20:.0f} MiB received", file=sys.stderr)
    return run


# vLLM: `ImportError: libcuda.so.1: cannot open shared object file`, that of the driver.
MISSING = re.compile(r"libcuda\.so|No CUDA|NVML|no accelerator|CUDA driver|GPU", re.IGNORECASE)


def outcome(run: Run, operation: str) -> str:
    """What pyinfra says of one operation; it prints no JSON once its last host has failed."""
    lines = run.said.partition(f"Starting operation: {operation} ")[2].splitlines()
    found = (line.partition("]")[2].strip() for line in lines if line.strip().startswith("["))
    return next((word for word in found if word in ("Success", "No changes")), "failed")


def received(uplink: Uplink) -> int:
    return sum(uplink.received.values())


def add_uv(lab: Lab, uplink: Uplink) -> None:
    """As an operator would who has read that uv is quicker."""
    pip = f"https_proxy={uplink.url} PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/uv/bin/pip"
    made = f"python3 -m venv /opt/uv && {pip} install -q uv && ln -s /opt/uv/bin/uv /usr/local/bin/"
    lab.run(HOST, f"sudo sh -c '{made}'")


@pytest.mark.parametrize("with_uv", [True, False], ids=["uv", "pip"])
@pytest.mark.parametrize("runtime", ["vllm", "sglang"])
def test_a_bare_host_gets_the_engine_and_the_engine_says_that_the_gpu_is_missing(
    bare: tuple[Lab, Uplink], runtime: str, with_uv: bool
) -> None:
    lab, uplink = bare
    if with_uv:
        add_uv(lab, uplink)
    else:
        lab.run(HOST, "sudo rm -f /usr/local/bin/uv")
    run = install(lab, uplink, runtime)
    assert outcome(run, "Runtime") == "Success", run.said
    words = run.said.partition("its last words")[2]
    print("\n".join(words.splitlines()[-12:]), file=sys.stderr)
    assert MISSING.search(words), run.said
    writable = "sudo find /opt/multigpu/runtimes ! -type l -perm /222 ! -name runtimes | head"
    assert lab.run(HOST, writable).stdout == ""
    again = serve(lab, "--limit", HOST, "--data", f"https_proxy={uplink.url}", **wishes(runtime))
    assert outcome(again, "Runtime") == "No changes", again.said
    assert uplink.refused == {}
