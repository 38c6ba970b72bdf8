"""Secrets from the controller to the host: what is read, compared, installed and never shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pyinfra.api import FileUploadCommand, StringCommand

from facts.credentials import Credentials
from multigpu import credentials, flags, generation
from multigpu.credentials import DIRECTORY, Installed, Secret, Wanted, proof
from multigpu.errors import MultigpuError
from multigpu.hardware import Host, ManagedFile, UnitState
from multigpu.page.flag_reasons import REASONS
from multigpu.plan import Service, Wish
from multigpu.store import secret_files
from multigpu.units import RenderedUnit
from multigpu.wish_values import Endpoint
from operations.credentials import credentials as install
from operations.credentials import forget
from tests import hardened

KEY = b"sk-marker-3f9a\n"
PATH = f"{DIRECTORY}/chat.api_key"
NONCE = "00ff"


def file(folder: Path, content: bytes = KEY, mode: int = 0o600) -> Wanted:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return Wanted(PATH, str(path))


def test_a_secret_is_its_line_and_its_value_shows_nothing(tmp_path: Path) -> None:
    secret = secret_files.load(file(tmp_path, b"  sk-marker-3f9a\r\n\n"))
    assert (secret.path, secret.content) == (PATH, KEY)
    assert "marker" not in repr(secret) + str(secret)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (KEY, 0o640, "has mode 0640, needed is 0600: chmod 600"),
        (KEY, 0o604, "has mode 0604"),
        (b"", 0o600, "is empty"),
        (b" \n", 0o600, "is empty"),
        (b"sk-marker\nsecond\n", 0o600, "has several lines, needed is one"),
        ("sk-marker-ü".encode(), 0o600, "other than ASCII"),
        (b"sk-marker" * 10000, 0o600, "more than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_secret_is_refused_in_a_line_that_does_not_show_it(
    tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    with pytest.raises(MultigpuError, match=said) as caught:
        secret_files.load(file(tmp_path, content, mode))
    assert "\n" not in str(caught.value) and "marker" not in str(caught.value)
    with pytest.raises(MultigpuError, match="No such file"):
        secret_files.load(Wanted(PATH, str(tmp_path / "none")))


def test_a_certificate_may_have_several_lines(tmp_path: Path) -> None:
    wanted = Wanted(PATH, file(tmp_path, b"a\nb\n").source_path, several_lines=True)
    assert secret_files.load(wanted).content == b"a\nb\n"


def test_a_service_wants_the_secrets_that_its_wish_names() -> None:
    wish = Wish(
        "chat", "m", api_key_file="k", hf_token_file="t", endpoint=Endpoint(certificate="c")
    )
    assert [w.path.rpartition(".")[2] for w in credentials.wanted(wish)] == [
        "api_key",
        "hf_token",
        "certificate",
    ]
    assert credentials.wanted(Wish("chat", "m")) == ()


def test_only_an_engines_own_way_shows_in_its_command_line() -> None:
    wish = Wish("chat", "m", api_key_file="/home/me/key")
    assert credentials.words("vllm", "chat-0", wish) == ()
    assert credentials.words("llama.cpp", "chat-0", wish) == (
        "--api-key-file",
        "/run/credentials/multigpu-chat-0.service/api_key",
    )
    assert credentials.words("sglang", "chat", wish)[1] == "/run/multigpu/chat/secrets.yaml"
    assert credentials.words("llama.cpp", "chat", Wish("chat", "m")) == ()


def test_a_secret_is_installed_when_content_mode_or_owner_differ() -> None:
    secret = Secret(PATH, KEY)
    same = Installed(PATH, proof(KEY, NONCE), "0600", "root:root")
    assert credentials.to_install([secret], [same], NONCE) == ()
    others = [
        (),
        (Installed(PATH, proof(b"other\n", NONCE), "0600", "root:root"),),
        (Installed(PATH, proof(KEY, "another"), "0600", "root:root"),),
        (Installed(PATH, same.proof, "0644", "root:root"),),
        (Installed(PATH, same.proof, "0600", "ops:ops"),),
    ]
    for found in others:
        assert credentials.to_install([secret], found, NONCE) == (secret,)


def test_what_the_host_answers_proves_the_content_and_does_not_hold_it(tmp_path: Path) -> None:
    path = file(tmp_path).source_path
    command = Credentials().command(NONCE, (path, str(tmp_path / "none")))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = Credentials().process(["Welcome!", *done.stdout.splitlines()])
    assert found is not None and [i.path for i in found] == [path]
    assert (found[0].proof, found[0].mode) == (proof(KEY, NONCE), "0600")
    assert "marker" not in command + done.stdout
    assert Credentials().process(["sudo: no"]) is None


def test_a_process_that_is_older_than_its_secret_restarts_and_a_younger_one_does_not() -> None:
    service = Service("chat", ("/usr/bin/engine",), (), 8000, "/health", (0,))
    unit = RenderedUnit(service, "r", (), 600, credentials=(PATH,))
    state = UnitState(unit.name, active_state="active", main_pid=4, revision="r", started_at=2000.0)

    def reason(modified_at: float) -> str | None:
        found = ManagedFile(PATH, None, modified_at=modified_at)
        return generation.restart_reason(Host("t", units=(state,), files=(found,)), unit)

    assert reason(1000.0) is None
    assert reason(2001.0) == "was started with another secret"
    machine = generation.renewed(Host("t", units=(state,)), [PATH])
    assert generation.restart_reason(machine, unit) == "was started with another secret"
    other = RenderedUnit(service, "r", (), 600)
    assert generation.restart_reason(machine, other) is None


def test_secrets_of_no_service_are_found_by_their_place() -> None:
    files = (ManagedFile(PATH, None), ManagedFile("/etc/multigpu/chat.env", None))
    machine = Host("t", files=(*files, ManagedFile(f"{PATH}.multigpu-new", None)))
    assert credentials.unwanted(machine, [Wanted(PATH, "k")]) == (f"{PATH}.multigpu-new",)
    assert PATH in credentials.unwanted(machine, [])


def test_installing_shows_nothing_and_is_private_before_there_is_content() -> None:
    commands = list(install._inner(missing=(Secret(PATH, KEY),)))
    said = " ".join(str(c) for c in commands) + repr(commands)
    assert "marker" not in said
    upload = next(n for n, c in enumerate(commands) if isinstance(c, FileUploadCommand))
    before = str(commands[upload - 1])
    assert before.startswith("install -m 0600 /dev/null /var/tmp/multigpu-staging-")
    after = str(commands[upload + 1])
    assert f"install -d -m 0700 -o root -g root {DIRECTORY}" in after
    assert f"mv -f {PATH}.multigpu-new {PATH}" in after
    assert all(isinstance(c, StringCommand | FileUploadCommand) for c in commands)


def test_a_proof_takes_a_guesser_long_enough() -> None:
    assert credentials.ITERATIONS >= 100_000
    assert json.dumps(proof(KEY, NONCE))  # plain text


def test_forgetting_names_the_paths_only() -> None:
    (command,) = forget._inner(paths=(PATH,))
    assert str(command) == f"rm -f {PATH}"


@pytest.mark.parametrize(
    ("name", "kind"), [("llama.cpp", "llama-server, CUDA"), ("sglang", "SGLang, CUDA")]
)
def test_the_flag_that_names_the_key_is_known_to_the_runtime_and_explained(
    name: str, kind: str
) -> None:
    words = credentials.words(name, "chat", Wish("chat", "m", api_key_file="k"))
    assert flags.check(name, words) == ()
    flag, _ = words
    assert flag in REASONS and flag in hardened.text(hardened.unit(kind))
