"""Root's unit on a real systemd: resets, refuses, fences. Cards and nvidia-smi are simulated."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bed.client import Lab
from test_serve import Run, pyinfra

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HOST = "matched"
CHAT = "multigpu-chat"
FAULT = "/run/simulated-gpu/0/fault"
REQUESTS = "/var/lib/multigpu/chat/requests"


def serve(lab: Lab, **reactions: bool) -> Run:
    return pyinfra(lab, "deploys/serve.py", "--limit", HOST, reactions=reactions)


def unfence(lab: Lab) -> Run:
    return pyinfra(lab, "deploys/unfence.py", "--limit", HOST)


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Lab]:
    run = serve(lab, gpu_reset=True)
    assert run.status == 0, run.said
    assert run.lines("reactions beyond a restart are on: gpu_reset")
    yield lab
    lab.run(HOST, f"sudo rm -f {FAULT} /var/lib/multigpu/fenced /var/lib/multigpu/chat/fenced")


def ledger(lab: Lab) -> list[dict[str, Any]]:
    text = lab.run(HOST, "cat /var/lib/multigpu/ledger.json", check=False).stdout
    return list(json.loads(text)["entries"]) if text else []


def wait(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.5)


def uuid(lab: Lab, index: int = 0) -> str:
    lines = lab.run(HOST, "nvidia-smi -L").stdout.splitlines()
    return lines[index].partition("UUID: ")[2].rstrip(")")


def ask(lab: Lab, id: str, what: str, gpu: str, owner: str = CHAT) -> None:
    asked = {"schema": 1, "id": id, "what": what, "gpus": [gpu], "why": "reset_required"}
    content = json.dumps({**asked, "at": time.time()})
    lab.run(
        HOST,
        f"sudo install -d -m 0700 -o {CHAT} -g multigpu {REQUESTS}; echo '{content}' >/tmp/{id}; "
        f"sudo install -o {owner} /tmp/{id} {REQUESTS}/.{id}; "
        f"sudo mv {REQUESTS}/.{id} {REQUESTS}/{id}.json",
    )


def answered(lab: Lab, id: str) -> Callable[[], bool]:
    return lambda: any(
        entry["id"].startswith(id) and entry["outcome"] != "begun" for entry in ledger(lab)
    )


def outcome(lab: Lab, id: str) -> tuple[str, str, str]:
    (entry,) = (entry for entry in ledger(lab) if entry["id"].startswith(id))
    return entry["what"], entry["outcome"], entry["text"]


def active(lab: Lab) -> bool:
    return lab.run(HOST, f"systemctl is-active {CHAT}", check=False).stdout.strip() == "active"


def test_the_second_run_changes_nothing_and_the_mark_is_there(served: Lab) -> None:
    served.run(HOST, "test -e /run/multigpu/reactions && systemctl is-active multigpu-react.path")
    run = serve(served, gpu_reset=True)
    assert (run.status, run.totals["success"]) == (0, 0), run.said


def test_a_forged_request_is_refused_in_the_journal_and_nothing_is_reset(served: Lab) -> None:
    pid = served.run(HOST, f"systemctl show -P MainPID {CHAT}").stdout
    ask(served, "well", "gpu_reset", uuid(served))
    ask(served, "foreign", "gpu_reset", "GPU-cccccccc-0000-0000-0000-000000000000")
    ask(served, "forged", "reboot", uuid(served), owner="nobody")
    for id in ("well", "foreign", "forged"):
        wait(answered(served, id))
        assert outcome(served, id)[1] == "refused"
    assert "states that" in outcome(served, "well")[2]
    said = served.run(HOST, "sudo journalctl -q -o cat -u multigpu-react").stdout
    assert said.count("multigpu: react: refused") == 3
    assert served.run(HOST, f"sudo ls {REQUESTS}").stdout == ""
    assert served.run(HOST, f"systemctl show -P MainPID {CHAT}").stdout == pid


def test_a_card_that_needs_a_reset_is_reset_and_the_service_serves_again(served: Lab) -> None:
    card = uuid(served)
    began = time.monotonic()
    served.run(HOST, f"echo 'recovery 1' > {FAULT}")
    ask(served, "sick", "gpu_reset", card)
    wait(lambda: served.run(HOST, f"test -e {FAULT}", check=False).returncode != 0)
    wait(lambda: active(served))
    done = [e for e in ledger(served) if (e["what"], e["outcome"]) == ("gpu_reset", "done")]
    assert done and done[0]["gpus"] == [card], ledger(served)
    print(f"reset and serving again after {time.monotonic() - began:.1f} s")


def test_a_lost_card_fences_where_no_reboot_is_allowed_and_a_person_unfences(served: Lab) -> None:
    card = uuid(served)
    served.lose_card(HOST, 0)
    try:
        ask(served, "lost", "reboot", card)
        wait(lambda: any(e["what"] == "fence" and e["outcome"] == "done" for e in ledger(served)))
        run = serve(served, gpu_reset=True)
        assert run.status != 0 and run.lines("chat is fenced: "), run.said
        survey = pyinfra(served, "deploys/survey.py", "--limit", HOST)
        assert survey.lines("! chat is fenced"), survey.said
        stays = unfence(served)
        assert stays.status != 0 and "stays fenced" in stays.said, stays.said
    finally:
        served.lose_card(HOST, 0, lost=False)
    gone = unfence(served)
    assert gone.status == 0 and gone.changed == [("Fences", HOST)], gone.said
    assert unfence(served).totals["success"] == 0
    run = serve(served, gpu_reset=True)
    assert run.status == 0, run.said
    assert active(served)


def test_without_the_wish_nothing_of_it_stays(served: Lab) -> None:
    run = serve(served)
    assert run.status == 0 and ("Reactions", HOST) in run.changed, run.said
    assert run.lines("reactions beyond a restart are off")
    there = "ls /run/multigpu/reactions /etc/multigpu/reactions.json"
    assert served.run(HOST, there, check=False).stdout == ""
    assert served.run(HOST, "systemctl list-units 'multigpu-react*' --no-legend").stdout == ""
    assert serve(served).totals["success"] == 0
