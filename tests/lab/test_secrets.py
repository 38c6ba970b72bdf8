"""Secrets of a served host lie nowhere but where they belong; the scan finds planted leaks."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bed.client import Lab
from test_serve import INVENTORY, Run, serve

pytestmark = pytest.mark.lab
HOST = "matched"
BELONG = {
    "file /etc/multigpu/credentials/chat.api_key",
    "file /etc/multigpu/credentials/chat.hf_token",
    "file /run/credentials/multigpu-chat.service/api_key",
}
MARKERS = "/dev/shm/markers-of-the-scan"
# Root looks at every file; what another user sees of processes is asked as one.
SCAN = f"""
m={MARKERS}; chmod 644 $m
find /etc /opt /root /home /srv /tmp /var /dev/shm -xdev -type f ! -path $m -print0 \\
  | xargs -0 grep -lsaFf $m | sed 's/^/file /'
grep -rlsaFf $m /run | sed 's/^/file /'
seen() {{ grep -aqFf $m && echo "$1"; }}
as() {{ setpriv --reuid nobody --clear-groups --regid nogroup -- sh -c "$1" 2>/dev/null; }}
journalctl -q --no-pager -o export | seen journal
cat /proc/[0-9]*/cmdline 2>/dev/null | seen cmdline
as 'ps axeww' | seen 'ps of another user'
as 'cat /proc/[0-9]*/environ' | seen 'environ of another user'
as 'systemctl show "*.service"' | seen 'systemctl show'
as 'systemctl cat "*.service"' | seen 'systemctl cat'
as 'ls /etc/multigpu/credentials; cat /etc/multigpu/credentials/* /run/credentials/*/*' | seen open
rm -f $m
"""


@dataclass(frozen=True)
class Keys:
    """A folder of the controller with the two secrets, and what they hold."""

    folder: Path
    api_key: str
    hf_token: str

    @property
    def wish(self) -> dict[str, str]:
        files = {"api_key_file": "key", "hf_token_file": "token"}
        return {key: str(self.folder / name) for key, name in files.items()}

    def write(self) -> Keys:
        for name, secret in (("key", self.api_key), ("token", self.hf_token)):
            (self.folder / name).write_text(f"{secret}\n")
            (self.folder / name).chmod(0o600)
        return self


@dataclass(frozen=True)
class Served:
    lab: Lab
    keys: Keys
    run: Run
    debug: str


@pytest.fixture(scope="module")
def served(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One host that serves with a key, by a run that said as much as pyinfra can say."""
    folder = tmp_path_factory.mktemp("keys")
    keys = Keys(folder, f"sk-marker-{secrets.token_hex(8)}", f"hf_marker{secrets.token_hex(8)}")
    wish = keys.write().wish
    debug = debug_operations(lab, wish)
    run = serve(lab, "--limit", HOST, "-vvv", chat=wish)
    assert run.status == 0, run.said
    yield Served(lab, keys, run, debug)


def debug_operations(lab: Lab, wish: dict[str, str]) -> str:
    """What `--debug-operations` prints of a run that would install the secrets."""
    done = lab.exec(
        *("env", f"MULTIGPU_LAB_SERVICES={json.dumps({'chat': wish})}"),
        *(sys.executable, "-m", "pyinfra", INVENTORY, "deploys/serve.py"),
        *("-y", "-vvv", "--limit", HOST, "--debug-operations"),
    )
    return done.stdout + done.stderr


def scan(lab: Lab, keys: Keys) -> set[str]:
    """Where on the host the markers are, seen by root and by a user who has no business there."""
    for name, text in (("markers", f"{keys.api_key}\n{keys.hf_token}\n"), ("scan.sh", SCAN)):
        (keys.folder / name).write_text(text)
    lab.put(HOST, keys.folder / "markers", MARKERS)
    lab.put(HOST, keys.folder / "scan.sh", "/var/tmp/scan.sh")
    done = lab.run(HOST, "sudo sh /var/tmp/scan.sh; rm -f /var/tmp/scan.sh", check=False)
    return set(done.stdout.splitlines())


def controller(lab: Lab, keys: Keys) -> list[str]:
    """Files that a run may have written on the controller and that hold a marker."""
    state = lab.settings.state
    places = [state, *(lab.settings.checkout / name for name in ("plans", "captures"))]
    disks = state / "work"  # of the hosts
    each = (path for place in places for path in place.rglob("*") if disks not in path.parents)
    found = [path for path in each if path.is_file()]
    markers = (keys.api_key.encode(), keys.hf_token.encode())
    small = [path for path in found if path.stat().st_size < 10_000_000]
    return [str(p) for p in small if any(m in p.read_bytes() for m in markers)]


def ask(served: Served, *words: str) -> str:
    """HTTP status of a completion."""
    body = json.dumps({"prompt": "two", "max_tokens": 2})
    url = "127.0.0.1:8000/v1/completions"
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' -d '{body}' {' '.join(words)} {url}"
    return served.lab.run(HOST, asked).stdout


def test_clients_need_the_key_and_the_verification_had_it(served: Served) -> None:
    assert served.run.lines("all checks passed"), served.run.said
    assert ask(served) == "401"
    served.lab.put(HOST, served.keys.folder / "key", "/home/ops/key")
    served.lab.run(HOST, "sed -i 's/^/Authorization: Bearer /' /home/ops/key")
    assert ask(served, "-H", "@/home/ops/key") == "200"
    served.lab.run(HOST, "rm /home/ops/key")


def test_the_secrets_are_where_they_belong_and_nowhere_else(served: Served) -> None:
    keys = served.keys
    assert scan(served.lab, keys) == BELONG
    directory = "/etc/multigpu/credentials"
    look = f"sudo sh -c 'stat -c \"%a %U\" {directory} {directory}/*'"
    listed = served.lab.run(HOST, look).stdout
    assert listed.splitlines() == ["700 root", "600 root", "600 root"]
    said = served.run.said + json.dumps(served.run.results) + served.debug
    assert "Credentials" in served.debug, served.debug
    assert keys.api_key not in said and keys.hf_token not in said
    assert controller(served.lab, keys) == []


LEAKS = {
    "file /var/tmp/planted": "echo KEY > /var/tmp/planted",
    "file /opt/multigpu/planted": "echo KEY > /opt/multigpu/planted",
    "file /run/planted": "echo KEY > /run/planted",
    "journal": "echo KEY | systemd-cat -t planted",
    "cmdline": "systemd-run -q --unit planted sh -c 'sleep 60; : KEY'",
    "systemctl show": "systemd-run -q --unit planted-env -p Environment=K=KEY sleep 60",
}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_scan_finds_a_planted_leak(served: Served, leak: str) -> None:
    command = LEAKS[leak].replace("KEY", served.keys.api_key)
    script = served.keys.folder / "plant.sh"
    script.write_text(command)
    served.lab.put(HOST, script, "/home/ops/plant.sh")
    served.lab.run(HOST, "sudo bash /home/ops/plant.sh; rm /home/ops/plant.sh")
    assert leak in scan(served.lab, served.keys)
    undo = "rm -f /var/tmp/planted /opt/multigpu/planted /run/planted; systemctl stop 'planted*'; "
    undo += "journalctl -q --rotate; journalctl -q --vacuum-time=1s"
    served.lab.run(HOST, f'sudo sh -c "{undo}"', check=False)


def test_the_second_serve_changes_nothing_and_a_changed_key_restarts_the_service(
    served: Served,
) -> None:
    lab, keys = served.lab, served.keys
    # The leaks planted above are gone with a part of the journal; the verification reads its begin.
    lab.run(HOST, "sudo systemctl restart multigpu-chat")
    again = serve(lab, "--limit", HOST, chat=keys.wish)
    assert again.status == 0, again.said
    assert again.totals["success"] == 0, again.said
    other = Keys(keys.folder, f"sk-marker-{secrets.token_hex(8)}", keys.hf_token).write()
    rotated = serve(lab, "--limit", HOST, chat=keys.wish)
    assert rotated.status == 0, rotated.said
    changed = [name for name, _ in rotated.changed]
    assert changed == ["Credentials", "Services", "Generation verified"], rotated.said
    assert scan(lab, other) == BELONG
    assert serve(lab, "--limit", HOST, chat=keys.wish).totals["success"] == 0


def test_a_key_that_is_wished_no_more_is_removed(served: Served) -> None:
    run = serve(served.lab, "--limit", HOST)
    assert run.status == 0, run.said
    assert ("Credentials no longer wanted", HOST) in run.changed
    assert served.lab.run(HOST, "sudo ls /etc/multigpu/credentials").stdout == ""
    assert ask(served) == "200"


def test_a_key_file_that_others_may_read_is_refused_in_a_line(served: Served) -> None:
    (served.keys.folder / "key").chmod(0o644)
    run = serve(served.lab, "--limit", HOST, chat=served.keys.wish)
    assert run.status == 1
    assert run.lines("has mode 0644, needed is 0600"), run.said
