"""How locked down the units are, by systemd's own judgement and by what each runtime needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from multigpu import gave_up_unit
from multigpu.store import texts
from tests import hardened
from tests.hardened import KINDS

needs_systemd = pytest.mark.skipif(hardened.ANALYZE is None, reason="no systemd-analyze here")
needs_judge = pytest.mark.skipif(
    not hardened.can_judge(), reason="no systemd-analyze that judges files here"
)


def lines(kind: str, **wish: object) -> list[str]:
    return [
        line
        for line in hardened.text(hardened.unit(kind, **wish)).splitlines()
        if line and not line.startswith("#")
    ]


@needs_judge
@pytest.mark.parametrize("kind", KINDS)
def test_the_exposure_of_a_unit_is_at_most_2(kind: str, tmp_path: Path) -> None:
    score, good = hardened.exposure(hardened.write(hardened.unit(kind), tmp_path))
    assert good and score <= 2.0


@needs_judge
def test_a_unit_that_loses_a_directive_is_judged_worse(tmp_path: Path) -> None:
    path = hardened.write(hardened.unit("vLLM, CUDA"), tmp_path)
    before, _ = hardened.exposure(path)
    path.write_text(path.read_text().replace("\nRestrictNamespaces=yes\n", "\n"))
    assert hardened.exposure(path)[0] > before


@needs_systemd
@pytest.mark.parametrize("kind", KINDS)
def test_systemd_finds_nothing_to_say_about_a_unit(kind: str, tmp_path: Path) -> None:
    path = hardened.write(hardened.unit(kind), tmp_path)
    done = hardened.analyze("verify", "--recursive-errors=no", str(path))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_says_so_when_a_key_is_unknown(tmp_path: Path) -> None:
    path = hardened.write(hardened.unit("vLLM, CUDA"), tmp_path)
    path.write_text(path.read_text().replace("[Service]", "[Service]\nNoSuchKey=1"))
    assert "NoSuchKey" in hardened.analyze("verify", "--recursive-errors=no", str(path)).stderr


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_take_the_cards_away_is_in_no_unit(kind: str) -> None:
    for taken in ("PrivateDevices=", "PrivateUsers=", "ProcSubset=", "NoExecPaths="):
        assert not [line for line in lines(kind) if line.startswith(taken)]
    assert "DevicePolicy=closed" in lines(kind)


def test_each_kind_of_card_opens_its_own_devices() -> None:
    assert "DeviceAllow=char-nvidia rw" in lines("vLLM, CUDA")
    assert "DeviceAllow=char-kfd rw" in lines("vLLM, ROCm")
    assert "SupplementaryGroups=render video" in lines("llama-server, ROCm")
    assert not any(line.startswith("DeviceAllow=") for line in lines("llama-server, RPC devices"))


def test_only_what_compiles_for_the_cpu_may_write_and_execute() -> None:
    denied = {kind for kind in KINDS if "MemoryDenyWriteExecute=yes" in lines(kind)}
    assert denied == {"llama-server, CUDA", "llama-server, RPC devices"}


def test_one_process_listens_at_its_port_and_ranks_at_any() -> None:
    assert "SocketBindAllow=tcp:8007" in lines("llama-server, CUDA", port=8007)
    assert "SocketBindAllow=tcp" in lines("vLLM, CUDA")
    assert all("SocketBindDeny=any" in lines(kind) for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "bind", "allowed"),
    [
        ("vLLM, CUDA", "127.0.0.1", "localhost"),
        ("vLLM, CUDA", "::1", "localhost"),
        ("vLLM, CUDA", "localhost", "localhost"),
        ("llama-server, CUDA", "0.0.0.0", "localhost link-local 10.0.0.0/8"),
        ("llama-server, CUDA", "192.168.1.7", "localhost link-local 10.0.0.0/8"),
        ("llama-server, CUDA", "93.184.216.34", None),
        ("vLLM, CUDA, fetching by itself", "127.0.0.1", None),
    ],
)
def test_who_may_be_spoken_with_follows_from_where_it_listens(
    kind: str, bind: str, allowed: str | None
) -> None:
    found = [line for line in lines(kind, bind=bind) if line.startswith("IPAddress")]
    if allowed is None:
        assert found == []
    else:
        assert found[0] == "IPAddressDeny=any"
        assert found[1].startswith(f"IPAddressAllow={allowed}")


def test_a_path_below_a_home_directory_is_readable_and_others_hide_homes() -> None:
    assert "ProtectHome=yes" in lines("vLLM, CUDA")
    made = hardened.plan(api_key_file="key")
    unit = hardened.rendered(made, "--model", "/home/me/model")
    assert "\nProtectHome=read-only\n" in hardened.text(unit)


@needs_judge
def test_the_unit_that_gives_up_aloud_is_hardened_too(tmp_path: Path) -> None:
    made = gave_up_unit.render(
        "tower",
        host_program="/opt/multigpu/host/x.pyz",
        templates=texts.templates(hardened.ROOT / "templates"),
    )
    path = tmp_path / made.name
    path.write_text(made.files[0].content)
    score, good = hardened.exposure(path)
    assert good, score
    assert "CapabilityBoundingSet=CAP_SETUID CAP_SETGID\n" in made.files[0].content
    done = hardened.analyze("verify", "--recursive-errors=no", str(path))
    assert done.stderr == ""
