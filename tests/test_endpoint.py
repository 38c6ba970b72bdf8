"""Endpoints as text: golden files, HAProxy's own check, the score of the unit, and when to reload.

`python -m tests.test_endpoint` writes the golden files anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from multigpu import endpoint, endpoint_seen, listening, verdict
from multigpu.decide import check_ports
from multigpu.endpoint import RenderedEndpoint
from multigpu.endpoint_seen import EndpointsSeen, Worker
from multigpu.errors import MultigpuError
from multigpu.hardware import Host, ManagedFile, UnitState
from multigpu.observation import LoadSeen, ServiceSeen
from multigpu.plan import Plan
from multigpu.runtimes import runtime
from multigpu.store import texts
from multigpu.wish_values import Balance, Endpoint
from tests.endpoint_bed import HAPROXY, REPLICAS
from tests.plans import LAYER_SPLIT, plan

ROOT = Path(__file__).parent.parent
ANALYZE = shutil.which("systemd-analyze")
GOLDEN = Path(__file__).parent / "endpoints"
EIGHT = replace(REPLICAS, max_num_seqs=8, max_model_len=8192)
PLANS: Mapping[str, Plan] = {
    "replicas": plan(EIGHT),
    "prefix-hash": plan(EIGHT, endpoint=Endpoint(balance=Balance.PREFIX_HASH)),
    "tls-and-key": plan(
        LAYER_SPLIT,
        bind="0.0.0.0",
        api_key_file="key",
        endpoint=Endpoint(port=443, certificate="cert.pem"),
    ),
}


def rendered(made: Plan) -> RenderedEndpoint:
    services = runtime("llama.cpp").render(listening.behind(made), "/opt/llama-server", "/m.gguf")
    found = endpoint.render(made, services, templates=texts.templates(ROOT / "templates"))
    assert found is not None
    return found


@pytest.mark.parametrize("name", PLANS)
def test_the_rendered_files_are_those_that_were_reviewed(name: str) -> None:
    config, unit = rendered(PLANS[name]).files
    assert config.content == (GOLDEN / f"{name}.cfg").read_text()
    assert unit.content == (GOLDEN / f"{name}.service").read_text()


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
@pytest.mark.parametrize("name", PLANS)
def test_haproxy_itself_takes_the_configuration_without_a_warning(
    name: str, tmp_path: Path
) -> None:
    certificate = tmp_path / "chat.certificate"
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a")
    files = ("-keyout", tmp_path / "key.pem", "-out", certificate)
    subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "key.pem").read_text())
    (tmp_path / "chat.api_key").write_text("secret\n")
    (tmp_path / "a.cfg").write_text(rendered(PLANS[name]).files[0].content)
    done = subprocess.run(
        [str(HAPROXY), "-c", "-f", str(tmp_path / "a.cfg")],
        env={**os.environ, "SECRETS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_no_secret_stands_in_the_configuration_or_the_unit() -> None:
    made = rendered(PLANS["tls-and-key"])
    assert made.secrets == (
        "/etc/multigpu/credentials/chat.certificate",
        "/etc/multigpu/credentials/chat.api_key",
    )
    assert "${SECRETS}/chat.api_key" in made.files[0].content


def test_engines_move_behind_the_endpoint_and_clients_keep_one_address() -> None:
    made = plan(EIGHT, port=8000, bind="0.0.0.0")
    behind = listening.behind(made).wish
    assert (behind.bind, behind.port) == ("127.0.0.1", 8001)
    assert listening.address(made) == ("0.0.0.0", 8000)
    assert listening.ports(made) == (8000, 18000, 8001, 8002, 18001, 18002)


def test_without_an_endpoint_replicas_are_reached_one_by_one() -> None:
    made = plan(EIGHT, port=8000, endpoint=Endpoint(on=False))
    assert listening.behind(made) == made
    assert listening.ports(made) == (8000, 8001)


def test_one_engine_has_an_endpoint_only_where_it_is_wished_for() -> None:
    assert listening.wanted(plan(LAYER_SPLIT)) is None
    assert listening.wanted(plan(LAYER_SPLIT, endpoint=Endpoint())) == Endpoint()


def test_a_port_beside_the_highest_ones_is_still_a_port() -> None:
    assert [listening.beside(port) for port in (443, 55535, 55536, 65535)] == [
        10443, 65535, 45536, 55535,
    ]  # fmt: skip


def test_an_endpoint_at_the_port_of_its_own_engine_is_refused_in_one_line() -> None:
    with pytest.raises(MultigpuError) as raised:
        check_ports([plan(EIGHT, port=8000, endpoint=Endpoint(port=8002))])
    expected = "tower: chat and its endpoint both use port 8002: set another port"
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"), [(512, 64 << 10), (32768, 256 << 10), (1 << 20, 2 << 20)]
)
def test_what_can_be_sent_again_grows_with_the_longest_request(tokens: int, expected: int) -> None:
    assert endpoint.buffer_bytes(plan(replace(EIGHT, max_model_len=tokens))) == expected


def test_a_replica_asks_only_the_remote_devices_that_are_its_own() -> None:
    made = plan(EIGHT, devices=("RPC0", "RPC1"), flags={"--rpc": "127.0.0.1:1,127.0.0.1:2"})
    services = runtime("llama.cpp").render(made, "/opt/llama-server", "/m.gguf")
    found = [
        [service.argv[service.argv.index(flag) + 1] for flag in ("--rpc", "--device")]
        for service in services
    ]
    assert found == [["127.0.0.1:1", "RPC0"], ["127.0.0.1:2", "RPC0"]]
    assert [service.argv.count("--rpc") for service in services] == [1, 1]


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", PLANS)
def test_the_unit_is_locked_down_and_systemd_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    path = tmp_path / "multigpu-endpoint-chat.service"
    path.write_text(rendered(PLANS[name]).files[1].content)
    score = ("security", "--offline=true", "--threshold=20", str(path))
    assert subprocess.run([str(ANALYZE), *score], capture_output=True).returncode == 0
    verify = ("verify", "--recursive-errors=no", str(path))
    said = subprocess.run([str(ANALYZE), *verify], capture_output=True, text=True).stderr
    assert [line for line in said.splitlines() if "haproxy is not executable" not in line] == []


def test_verification_fails_where_only_the_endpoint_does_not_answer() -> None:
    load = LoadSeen(3, 9, 0, 90, "one", None)
    found = ServiceSeen("chat", load, (), None, (), "HTTP Error 503: no engine")
    (check,) = verdict.check_endpoint(PLANS["tls-and-key"], found)
    assert not check.ok
    assert check.found == "the endpoint at 0.0.0.0 port 443: HTTP Error 503: no engine"
    assert list(verdict.check_endpoint(plan(), replace(found, endpoint=None))) == []


MADE = rendered(PLANS["tls-and-key"])


def machine(revision: str = MADE.revision, key_at: float = 50.0) -> Host:
    state = UnitState(
        MADE.name, "loaded", "active", main_pid=7, revision=revision, unit_file_state="enabled"
    )
    files = (ManagedFile(MADE.secrets[1], None, modified_at=key_at),)
    return replace(Host(name="tower"), units=(state,), files=files)


def seen(revision: str | None = MADE.config_revision, started_at: float = 100.0) -> EndpointsSeen:
    return EndpointsSeen(True, {"multigpu-endpoint-chat": Worker(revision, started_at)})


def test_what_runs_as_planned_is_left_alone() -> None:
    assert endpoint_seen.restart_reason(machine(), MADE) is None
    assert endpoint_seen.reload_reason(machine(), seen(), MADE) is None


@pytest.mark.parametrize(
    ("found", "host"),
    [
        (seen("another"), machine()),
        (seen(None), machine()),
        (EndpointsSeen(True, {}), machine()),
        (seen(started_at=40.0), machine()),
    ],
)
def test_a_worker_with_other_files_reads_them_again(found: EndpointsSeen, host: Host) -> None:
    assert endpoint_seen.reload_reason(host, found, MADE) is not None


def test_another_unit_file_restarts() -> None:
    assert endpoint_seen.restart_reason(machine(revision="old"), MADE) is not None
    assert endpoint_seen.restart_reason(Host(name="tower"), MADE) == "not running"


def test_another_balance_or_another_count_of_engines_is_a_reload_and_no_restart() -> None:
    one, other = rendered(PLANS["replicas"]), rendered(PLANS["prefix-hash"])
    assert one.revision == other.revision
    assert one.config_revision != other.config_revision
    three = rendered(plan(replace(EIGHT, gpus=(0, 1, 2), replicas=3)))
    assert (three.revision, len(three.servers)) == (one.revision, 3)


def test_a_new_endpoint_is_known_as_new_once() -> None:
    assert endpoint_seen.is_new(Host(name="tower"), [MADE], "chat")
    assert not endpoint_seen.is_new(machine(), [MADE], "chat")
    assert not endpoint_seen.is_new(Host(name="tower"), [MADE], "coder")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"installed": true, "workers": {"a": 1}}'])
def test_an_answer_that_is_none_is_unknown(text: str) -> None:
    assert endpoint_seen.read(text) is None


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for title, made_plan in PLANS.items():
        config_file, unit_file = rendered(made_plan).files
        (GOLDEN / f"{title}.cfg").write_text(config_file.content)
        (GOLDEN / f"{title}.service").write_text(unit_file.content)
