"""The lab is what it claims: real hosts, whose simulated cards show what real processes do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bed import cluster
from bed.client import Lab
from bed.settings import HERE, Settings

pytestmark = pytest.mark.lab

VENV = "/opt/llama"
UNIT = "llama-under-test"
SIMULATED_UNIT = "vllm-under-test"
PORT = 8090
Sample = tuple[tuple[int, int], ...]  # per card: utilization in percent, used memory in MiB


def cards(lab: Lab, host: str) -> Sample:
    query = "nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits"
    lines = lab.run(host, query).stdout.splitlines()
    rows = [[int(cell) for cell in line.split(",")] for line in lines]
    return tuple((row[0], row[1]) for row in rows)


def under_load(lab: Lab, host: str, tokens: int = 150) -> Sample:
    """What the cards show while two completions run."""
    body = json.dumps({"prompt": "two cards", "max_tokens": tokens, "model": "tiny"})
    url = f"http://127.0.0.1:{PORT}/v1/completions"
    ask = f"curl -sf -o /dev/null -H 'Content-Type: application/json' -d '{body}' {url}"
    smi = "nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits"
    done = lab.run(host, f"{ask} & {ask} & sleep 0.3; {smi}; wait")
    rows = [[int(cell) for cell in line.split(",")] for line in done.stdout.splitlines()]
    return tuple((row[0], row[1]) for row in rows)


def report(lab: Lab, host: str, sudo: str = "") -> ElementTree.Element:
    return ElementTree.fromstring(lab.run(host, f"{sudo} nvidia-smi -q -x").stdout)


def wait_for(lab: Lab, host: str, unit: str) -> None:
    """Return when the server answers. The unit's log goes into the failure."""
    probe = f"curl -sf -o /dev/null http://127.0.0.1:{PORT}/health"
    loop = f"for i in $(seq 200); do {probe} && exit; sleep 0.05; done; exit 1"
    done = lab.run(host, loop, check=False)
    log = lab.run(host, f"sudo journalctl -u {unit} -o cat --no-pager | tail -5").stdout
    assert done.returncode == 0, log


def end(lab: Lab, host: str, unit: str) -> None:
    lab.run(host, f"sudo systemctl stop {unit}; sudo systemctl reset-failed {unit}", check=False)


# --- hosts --------------------------------------------------------------------------------------


def test_each_host_is_a_systemd_of_its_own_with_a_sudo_user(lab: Lab) -> None:
    for host in ("matched", "mixed"):
        done = lab.run(host, "ps -p 1 -o comm=; hostname; id -un; sudo id -u")
        assert done.stdout.split() == ["systemd", host, "ops", "0"]


def test_hosts_reach_each_other_but_not_this_machine(lab: Lab) -> None:
    other = lab.host("mixed").ip
    greeting = f"bash -c 'read -t 5 line < /dev/tcp/{other}/22; echo $line'"
    assert lab.run("matched", greeting).stdout.startswith("SSH-2.0-")
    assert "default" not in lab.run("matched", "ip route").stdout


def test_a_host_comes_back_after_a_reboot_with_its_cards(lab: Lab) -> None:
    started = "systemctl show -p UserspaceTimestampMonotonic --value"
    before = lab.run("mixed", started).stdout
    lab.run("mixed", "echo kept | sudo tee /etc/kept; sudo systemctl reboot", check=False)
    state = f"{started}; cat /etc/kept; systemctl is-system-running --wait"
    deadline = time.monotonic() + 20
    answer = ""
    while answer.split()[1:] != ["kept", "running"] or answer.startswith(before):
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
        answer = lab.run("mixed", state, check=False).stdout
    assert cards(lab, "mixed") == ((0, 0), (0, 0))
    width = "cat /sys/bus/pci/devices/0000:04:00.0/current_link_width"
    assert lab.run("mixed", width).stdout == "4\n"


def test_a_reset_host_is_bare_and_still_a_known_host(lab: Lab) -> None:
    lab.run("mixed", "sudo touch /etc/left-over")
    lab.reset("mixed")
    assert lab.run("mixed", "test -e /etc/left-over", check=False).returncode == 1


def test_pyinfra_reaches_the_hosts_as_root_through_the_inventory(lab: Lab) -> None:
    done = lab.pyinfra("-y", "--json", "inventories/lab.py", "server.shell", "test `id -u` -eq 0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["totals"]["success"] >= 2


# --- what the tools show ------------------------------------------------------------------------


def test_the_real_pynvml_sees_the_table(lab: Lab) -> None:
    program = (
        "import pynvml as n; n.nvmlInit(); "
        "h = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]; "
        "print([(n.nvmlDeviceGetName(x), n.nvmlDeviceGetCudaComputeCapability(x), "
        "n.nvmlDeviceGetMemoryInfo(x).total >> 20, "
        "n.nvmlDeviceGetCurrPcieLinkWidth(x)) for x in h])"
    )
    assert lab.run("mixed", f'python3 -c "{program}"').stdout.strip() == str([
        ("NVIDIA GeForce RTX 4090", (8, 9), 24564, 16),
        ("NVIDIA GeForce RTX 3090", (8, 6), 24576, 4),
    ])  # fmt: skip


def test_the_xml_report_says_that_it_is_simulated(lab: Lab) -> None:
    text = lab.run("matched", "nvidia-smi -q -x").stdout
    assert text.splitlines()[2] == "<!-- simulated by the multigpu lab -->"
    root = ElementTree.fromstring(text)
    addresses = [gpu.get("id") for gpu in root.findall("gpu")]
    assert addresses == ["00000000:01:00.0", "00000000:02:00.0"]
    assert {gpu.findtext("fb_memory_usage/reserved") for gpu in root.iter("gpu")} == {"316 MiB"}


def test_topology_has_tabs_and_an_underlined_header_like_the_real_tool(lab: Lab) -> None:
    header, first, *_ = lab.run("matched", "nvidia-smi topo -m").stdout.splitlines()
    assert header.startswith("\t\x1b[4mGPU0\tGPU1\tCPU Affinity") and header.endswith("\x1b[0m")
    assert first.startswith("GPU0\t X \tPHB\t")
    assert "\tCNS" in lab.run("matched", "nvidia-smi topo -p2p r").stdout


def test_an_unknown_argument_is_refused_by_a_tool_that_says_it_is_simulated(lab: Lab) -> None:
    done = lab.run("matched", "nvidia-smi --gpu-reset", check=False)
    assert done.returncode == 2
    assert "simulated" in done.stdout


def test_lspci_and_sysfs_show_the_chipset_slot(lab: Lab) -> None:
    where = lab.run("mixed", "readlink -f /sys/bus/pci/devices/0000:04:00.0").stdout
    assert where.endswith("/0000:00:1c.4/0000:04:00.0\n")
    assert "Width x4 (downgraded)" in lab.run("mixed", "sudo lspci -vv -s 4:0.0").stdout


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("no-driver", "timeout 5 nvidia-smi -L; test $? = 9"),
        ("hang", "timeout 0.5 nvidia-smi -L; test $? = 124"),
        ("latin1", "nvidia-smi -L | iconv -f utf-8 > /dev/null; test $? != 0"),
        ("python", "python3 -V; test $? = 1"),
    ],
)
def test_a_broken_host_is_broken_as_asked_and_mended(lab: Lab, state: str, seen: str) -> None:
    lab.break_host("mixed", state)
    try:
        lab.run("mixed", seen)
        lab.run("matched", "nvidia-smi -L")
    finally:
        lab.break_host("mixed", "none")
    assert lab.run("mixed", "nvidia-smi -L").stdout.count("UUID") == 2


def test_a_lost_card_is_lost_to_nvml_and_keeps_its_address_in_the_report(lab: Lab) -> None:
    lab.lose_card("matched", 1)
    try:
        gpus = report(lab, "matched").findall("gpu")
        listed = lab.run("matched", "nvidia-smi -L", check=False)
    finally:
        lab.lose_card("matched", 1, lost=False)
    names = [gpu.findtext("product_name") for gpu in gpus]
    assert names == ["NVIDIA GeForce RTX 3090", "GPU is lost"]
    assert gpus[1].get("id") == "00000000:02:00.0"
    assert listed.returncode == 15


# --- cards under load ---------------------------------------------------------------------------

Serve = Callable[[str], None]


@pytest.fixture(scope="module")
def installed(lab: Lab) -> None:
    """The wheel and the model on host `matched`."""
    wheel = next((lab.settings.state / "wheels").glob("*.whl"))
    lab.run("matched", f"sudo install -d -o ops {VENV}; python3 -m venv {VENV}")
    lab.put("matched", wheel, f"{VENV}/{wheel.name}")
    lab.put("matched", lab.settings.state / "models/tiny.gguf", f"{VENV}/tiny.gguf")
    lab.run("matched", f"{VENV}/bin/pip install -q --no-deps --no-index {VENV}/{wheel.name}")


@pytest.fixture
def llama_server(lab: Lab, installed: None) -> Iterator[Serve]:
    def serve(split: str) -> None:
        site = lab.run("matched", f"ls -d {VENV}/lib/python3*/site-packages").stdout.strip()
        lab.run(
            "matched",
            f"sudo systemd-run -q --unit={UNIT} --uid=ops -E LD_LIBRARY_PATH={site}/lib "
            f"{site}/bin/llama-server --model {VENV}/tiny.gguf --port {PORT} --no-ui --threads 1 "
            "--rpc 127.0.0.1:50052,127.0.0.1:50053 --device RPC0,RPC1 --fit off --ctx-size 2048 "
            f"--parallel 2 --split-mode layer --tensor-split {split}",
        )
        wait_for(lab, "matched", UNIT)

    yield serve
    end(lab, "matched", UNIT)


def test_idle_cards_read_zero(lab: Lab) -> None:
    assert cards(lab, "mixed") == ((0, 0), (0, 0))


def test_a_real_llama_server_feeds_both_cards(lab: Lab, llama_server: Serve) -> None:
    llama_server("1,1")
    sample = under_load(lab, "matched")
    assert all(utilization >= 10 and used >= 30 for utilization, used in sample), sample


def test_a_split_on_one_card_leaves_the_other_idle(lab: Lab, llama_server: Serve) -> None:
    llama_server("1,0")
    (busy, held), (idle, unused) = under_load(lab, "matched")
    assert busy >= 20 and held >= 80, (busy, held)
    assert idle <= 5 and unused <= 8, (idle, unused)


def test_memory_is_given_back_when_the_server_ends(lab: Lab, llama_server: Serve) -> None:
    llama_server("1,1")
    assert min(used for _, used in cards(lab, "matched")) >= 30
    lab.run("matched", f"sudo systemctl stop {UNIT}")
    assert max(used for _, used in cards(lab, "matched")) <= 8


def test_the_process_on_a_card_is_the_server_that_uses_it(lab: Lab, llama_server: Serve) -> None:
    llama_server("1,1")
    pid = lab.run("matched", f"systemctl show -p MainPID --value {UNIT}").stdout.strip()
    found = report(lab, "matched", "sudo").findall("gpu/processes/process_info/pid")
    assert [element.text for element in found] == [pid, pid]


def serve_simulated_vllm(lab: Lab, flags: str, environment: str = "") -> str:
    lab.run(
        "mixed",
        f"sudo systemd-run -q --unit={SIMULATED_UNIT} --uid=ops {environment} "
        f"/usr/lib/simulated-gpu/bin/vllm serve tiny --port {PORT} {flags}",
    )
    wait_for(lab, "mixed", SIMULATED_UNIT)
    return lab.run("mixed", f"sudo journalctl -u {SIMULATED_UNIT} -o cat").stdout


@pytest.fixture
def stop_simulated_vllm(lab: Lab) -> Iterator[None]:
    yield
    end(lab, "mixed", SIMULATED_UNIT)


@pytest.mark.usefixtures("stop_simulated_vllm")
def test_simulated_vllm_feeds_as_many_cards_as_it_has_ranks(lab: Lab) -> None:
    log = serve_simulated_vllm(lab, "--tensor-parallel-size 2 --enable-expert-parallel")
    assert log.splitlines()[0] == "simulated vLLM" or "simulated vLLM" in log
    assert "world_size=2 rank=1" in log
    sample = under_load(lab, "mixed", tokens=80)
    assert all(utilization >= 10 and used >= 60 for utilization, used in sample), sample
    metrics = lab.run("mixed", f"curl -s http://127.0.0.1:{PORT}/metrics").stdout
    assert "vllm:generation_tokens_total" in metrics and " 160.0" in metrics


@pytest.mark.usefixtures("stop_simulated_vllm")
def test_simulated_vllm_with_one_rank_leaves_a_card_idle(lab: Lab) -> None:
    serve_simulated_vllm(lab, "--tensor-parallel-size 1", "-E CUDA_VISIBLE_DEVICES=1")
    (idle, unused), (busy, held) = under_load(lab, "mixed", tokens=80)
    assert (idle, unused) == (0, 0)
    assert busy >= 10 and held >= 60
    lab.run("mixed", f"sudo systemctl stop {SIMULATED_UNIT}")
    assert cards(lab, "mixed") == ((0, 0), (0, 0))


# --- coming and going ---------------------------------------------------------------------------


def test_a_second_lab_runs_beside_the_first_and_leaves_no_trace(lab: Lab, tmp_path: Path) -> None:
    second = Settings(checkout=tmp_path)
    try:
        cluster.up(second, ["twin=matched"])
        again = cluster.up(second, ["twin=matched"])
        assert Lab.running(second).run("twin", "hostname").stdout == "twin\n"
        assert [row.name for row in again] == ["twin"]
        assert cluster.leftovers(second)
    finally:
        cluster.down(second)
    assert cluster.leftovers(second) == []
    assert lab.run("matched", "hostname").stdout == "matched\n"


@pytest.mark.usefixtures("lab")
def test_down_clears_an_up_that_was_killed_on_the_way(tmp_path: Path) -> None:
    second = Settings(checkout=tmp_path)
    program = (
        "import pathlib; from bed import cluster; from bed.settings import Settings; "
        f"cluster.up(Settings(checkout=pathlib.Path({str(tmp_path)!r})), ['matched'])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=HERE)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".lab/*/hosts/matched/console.log")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert cluster.leftovers(second)
    cluster.down(second)
    assert cluster.leftovers(second) == []
