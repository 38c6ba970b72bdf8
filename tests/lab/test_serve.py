"""The whole path on real hosts with simulated GPUs: serve, serve again, drift, wrong splits."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from bed.client import Lab

pytestmark = pytest.mark.lab
INVENTORY = "tests/lab/inventory_for_tests.py"
UNIT = "/etc/systemd/system/multigpu-chat.service"
TRANSACTION = [("Services", "matched"), ("Generation verified", "matched")]
"""What changes when the text or the processes of a host are others than planned."""


@dataclass(frozen=True)
class Run:
    """One pyinfra run: exit status, what changed and failed where, and all it said."""

    status: int
    results: dict[str, Any]
    said: str

    @property
    def totals(self) -> dict[str, int]:
        return self.results["totals"]

    @property
    def changed(self) -> list[tuple[str, str]]:
        return [(op["name"], h) for op in self.results["operations"] for h in op["success"]]

    def lines(self, word: str) -> list[str]:
        return [line for line in self.said.splitlines() if word in line]


def pyinfra(lab: Lab, deploy: str, *arguments: str, **wishes: Any) -> Run:
    done = lab.exec(
        "env",
        f"MULTIGPU_LAB_SERVICES={json.dumps(wishes)}",
        *(sys.executable, "-m", "pyinfra", INVENTORY, deploy, "-y", "--json", *arguments),
        timeout=float(os.environ.get("MULTIGPU_LAB_TIMEOUT_S", "300")),
    )
    results = json.loads(done.stdout)["results"] if done.stdout.strip() else {}
    return Run(done.returncode, results, done.stderr)


def serve(lab: Lab, *arguments: str, **wishes: Any) -> Run:
    return pyinfra(lab, "deploys/serve.py", *arguments, **wishes)


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Lab]:
    """All hosts of the lab serve the tiny model over both of their cards."""
    run = serve(lab)
    assert run.status == 0, run.said
    yield lab


def test_the_second_serve_changes_nothing_on_any_host(served: Lab) -> None:
    run = serve(served)
    assert (run.status, run.totals["success"], run.totals["error"]) == (0, 0, 0), run.said
    assert len(run.lines("all checks passed")) == len(served.hosts)


def test_the_model_answers_and_every_screen_says_simulated(served: Lab) -> None:
    body = json.dumps({"prompt": "two", "max_tokens": 4})
    answer = served.run("matched", f"curl -s -d '{body}' 127.0.0.1:8000/v1/completions").stdout
    assert json.loads(answer)["usage"]["completion_tokens"] == 4
    survey = pyinfra(served, "deploys/survey.py", "--limit", "matched")
    assert "SIMULATED" in survey.said


def test_the_service_is_unprivileged_and_its_code_belongs_to_root(served: Lab) -> None:
    pid = "$(systemctl show -P MainPID multigpu-chat)"
    who = served.run("matched", f"ps -o user:20= -p {pid}").stdout
    assert who.split() == ["multigpu-chat"]
    owned = served.run("matched", "sudo find /opt/multigpu /etc/multigpu ! -user root").stdout
    assert owned == ""


def test_a_run_cut_short_after_writing_the_unit_restarts_on_the_next_run(served: Lab) -> None:
    wish = {"context": 1024}
    cut = pyinfra(served, "tests/lab/cut_short.py", "--limit", "matched", chat=wish)
    assert cut.changed == [("Unit and environment files", "matched")], cut.said
    assert "--ctx-size 4096" in running(served), "the old process still runs"
    run = serve(served, "--limit", "matched", chat=wish)
    assert run.changed == [*TRANSACTION, ("Plans for the exporter", "matched")], run.said
    assert "--ctx-size 2048" in running(served)
    assert serve(served, "--limit", "matched", chat=wish).totals["success"] == 0
    serve(served, "--limit", "matched")


def running(lab: Lab, host: str = "matched") -> str:
    """The engine's command line on one host."""
    return lab.run(host, "ps -o args= -C llama-server").stdout


def test_a_changed_unit_file_is_put_right_without_a_restart(served: Lab) -> None:
    before = served.run("matched", "pgrep llama-server").stdout
    served.run("matched", f"echo '# by hand' | sudo tee -a {UNIT}")
    run = serve(served, "--limit", "matched")
    assert run.changed == TRANSACTION, run.said
    assert served.run("matched", "pgrep llama-server").stdout == before


def test_a_stopped_service_is_started_and_nothing_else(served: Lab) -> None:
    served.run("matched", "sudo systemctl stop multigpu-chat")
    run = serve(served, "--limit", "matched")
    assert run.changed == TRANSACTION, run.said


def test_a_deleted_environment_file_is_written_again_and_nothing_else(served: Lab) -> None:
    served.run("matched", "sudo rm /etc/multigpu/chat.env")
    run = serve(served, "--limit", "matched")
    assert run.changed == TRANSACTION, run.said


def test_all_layers_on_one_card_fails_verify_which_names_the_idle_card(served: Lab) -> None:
    split = "s/--tensor-split [0-9,]*/--tensor-split 1,0/"
    served.run("matched", f"sudo sed -i '{split}' {UNIT} && sudo systemctl daemon-reload")
    served.run("matched", "sudo systemctl restart multigpu-chat")
    run = pyinfra(served, "deploys/verify.py", "--limit", "matched", "--limit", "mixed")
    assert (run.status, run.results["failed_hosts"]) == (1, ["matched"]), run.said
    assert run.lines("GPU 1 idle"), run.said
    assert run.lines("--tensor-split 1,0 (plan: 6,7)"), run.said
    # The text is put right and the run is cut short: the process still carries the wrong split.
    cut = pyinfra(served, "tests/lab/cut_short.py", "--limit", "matched")
    assert cut.changed == [("Unit and environment files", "matched")], cut.said
    mended = serve(served, "--limit", "matched")
    assert mended.changed == TRANSACTION, mended.said


def test_removing_twice_changes_nothing_the_second_time(served: Lab) -> None:
    first = pyinfra(served, "deploys/remove.py", "--limit", "mixed", "--data", "purge=yes")
    assert first.changed == [("Remove services", "mixed")], first.said
    left = served.run("mixed", "ls -d /opt/multigpu /etc/multigpu /var/lib/multigpu", check=False)
    assert left.stdout == ""
    assert served.run("mixed", "id multigpu", check=False).returncode == 1
    second = pyinfra(served, "deploys/remove.py", "--limit", "mixed", "--data", "purge=yes")
    assert second.totals["success"] == 0, second.said
    assert serve(served, "--limit", "mixed").status == 0


def test_a_model_that_lies_on_the_host_is_read_over_ssh_and_served_in_place(lab: Lab) -> None:
    lab.run("third", "sudo mkdir -p /srv/models && sudo chown ops /srv/models")
    lab.put("third", lab.settings.state / "models" / "tiny.gguf", "/srv/models/tiny.gguf")
    wish = {"model": "/srv/models/tiny.gguf"}
    run = serve(lab, "--limit", "third", chat=wish)
    assert run.status == 0, run.said
    assert "--model /srv/models/tiny.gguf" in running(lab, "third")
    assert run.lines("layers offloaded 13/13"), run.said


# A vLLM-shaped stand-in, so that ranks and cards are real processes; it says that it is simulated.
TENSOR_PARALLEL = {
    "replace": True,
    "services": {
        "chat": {
            "model": ".lab/models/tiny-hf",
            "runtime": "vllm",
            "strategy": "tensor_parallel",
            "executable": "/usr/lib/simulated-gpu/bin/vllm",
            "context": 1024,
            "concurrency": 4,
            "port": 8100,
            "switch_runtime": True,
        }
    },
}


def test_one_rank_on_two_planned_cards_fails_verify_which_names_the_idle_card(lab: Lab) -> None:
    hosts = ("--limit", "third", "--limit", "fourth")
    run = serve(lab, *hosts, **TENSOR_PARALLEL)
    assert run.status == 0, run.said
    assert run.lines("world size 2"), run.said
    rank = "s/--tensor-parallel-size 2/--tensor-parallel-size 1/"
    lab.run("third", f"sudo sed -i '{rank}' {UNIT} && sudo systemctl daemon-reload")
    lab.run("third", "sudo systemctl restart multigpu-chat")
    run = pyinfra(lab, "deploys/verify.py", *hosts, **TENSOR_PARALLEL)
    assert (run.status, run.results.get("failed_hosts")) == (1, ["third"]), run.said
    assert run.lines("GPU 1 idle"), run.said
    assert run.lines("--tensor-parallel-size 1 (plan: 2)"), run.said


BROKEN = {
    "no-driver": "the driver",
    "hang": "nvidia-smi",
    "latin1": "the driver",
    "python": "python3",
}


@pytest.mark.parametrize("state", BROKEN)
def test_one_broken_host_among_four_fails_alone_in_one_line(served: Lab, state: str) -> None:
    served.break_host("fourth", state)
    try:
        run = pyinfra(served, "deploys/plan.py")
    finally:
        served.break_host("fourth", "none")
    assert (run.status, run.results["failed_hosts"]) == (1, ["fourth"]), run.said
    assert len(run.lines("chat on ")) >= 3, run.said
    assert [line for line in run.lines("[fourth]") if BROKEN[state] in line], run.said
    assert "Traceback" not in run.said
