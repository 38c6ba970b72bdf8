"""A capture for a bug report: nothing that identifies the host, and still the same machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, Host
from multigpu.parse.amd.amdgpu import read_amdgpu
from multigpu.parse.amd.kfd import read_kfd
from multigpu.parse.capture import host
from multigpu.pseudonyms import Pseudonyms, pseudonymised
from tests.hosts import NAMES, captured

SECRETS = (
    "1323017012345",
    "0xAF54E92B0A5D57C8",
    "48-b0-2d-ff-fe-11-22-33",
    "10.20.30.40",
    "fe80::1ff:fe23:4567:890a",
    "00:1b:21:3c:9d:f8",
    "tower7",
    "tower7.example.org",
    "alice",
    "11473584692907868160",
    "11473584692907868161",
    "0x5a1b2c3d4e5f6071",
    "PCB052340-0123",
    "MT2123X01234",
    "S6Z1NJ0W123456",
    "8f3a1b2c_1111_2222_3333_444455556666",
    "c0ffee" * 10 + "beef",
    "secret-of-a-run",
)


def telling(key: str = "b1f8") -> dict[str, Any]:
    """A capture that tells everything."""
    document: dict[str, Any] = json.loads(captured("5090+3090"))
    document["system"] |= {"hostname": "tower7.example.org", "machine_id": key}
    document["kfd"] = {
        "1/properties": "simd_count 8\nhive_id 11473584692907868161\nunique_id " + SECRETS[9]
    }
    document["amdgpu"] = {
        "0000:03:00.0": {
            "unique_id": f"{int(SECRETS[9]):016x}",
            "xgmi_hive_info/xgmi_hive_id": SECRETS[10],
        }
    }
    document["files"]["/proc/cmdline"] = (
        "root=/dev/mapper/tower7--vg-root resume=/dev/disk/by-id/nvme-Samsung_" + SECRETS[14] + " "
        "ro ip=10.20.30.40:::255.255.255.0:tower7:eth0 mac=" + SECRETS[5]
    )
    document["tools"]["journalctl -k"] = {
        "rc": 0,
        "stdout": [
            "tower7 kernel: NVRM: GPU Board Serial Number: 1323017012345",
            "peer " + SECRETS[4],
            f"oom-kill:task_memcg=/kubepods-pod{SECRETS[15]}.slice/docker-{SECRETS[16]}.scope,pid=3",
            "python3[7] of alice@tower7 in /srv/tower7_data: segfault",
        ],
        "stderr": [],
    }
    document["tools"]["more"] = {
        "stdout": ["<serial>1323017012345</serial>", "ASIC_SERIAL: " + SECRETS[1]],
        "stderr": [
            "Device Serial Number " + SECRETS[2],
            "GPU Fabric GUID    : " + SECRETS[11],
            f'"product_serial": "{SECRETS[12]}"',
            "[V2] Vendor specific: " + SECRETS[13],
            "<process_name>/srv/tower7/bin/python run.py --key=secret-of-a-run</process_name>",
        ],
    }
    document["paths"] = {"/home/alice/models": {"owner": "alice:alice", "size": 1, "mode": "0755"}}
    return document


def known(machine: Host) -> list[Gpu]:
    """The cards but for their identity."""
    return [Gpu(**{**vars(gpu), "uuid": None}) for gpu in machine.gpus]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_identifies_a_host_is_not_in_the_file(secret: str) -> None:
    assert secret.lower() in json.dumps(telling()).lower()
    assert secret.lower() not in json.dumps(pseudonymised(telling(), "tower7")).lower()


@pytest.mark.parametrize("name", NAMES)
def test_the_uuids_of_a_capture_are_others_afterwards(name: str) -> None:
    document = json.loads(captured(name))
    text = json.dumps(pseudonymised(document, name))
    assert [gpu.uuid for gpu in host(document, name).gpus if gpu.uuid and gpu.uuid in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_machine_reads_the_same_but_for_identities(name: str) -> None:
    document = json.loads(captured(name))
    before, after = host(document, name), host(pseudonymised(document, name), name)
    assert known(after) == known(before)
    assert (after.pairs, after.problems, after.driver) == (
        before.pairs,
        before.problems,
        before.driver,
    )


def test_the_number_that_kfd_and_amdgpu_give_a_card_stays_one_number_and_is_another() -> None:
    document = json.loads(captured("8xMI210-two-hives"))
    hidden = pseudonymised(document, "tower7")
    before, after = (read_kfd(found["kfd"]).value.gpus for found in (document, hidden))
    assert not {node.unique_id for node in before} & {node.unique_id for node in after}
    assert not {node.hive_id for node in before} & {node.hive_id for node in after} - {None}
    assert len({node.hive_id for node in after}) == len({node.hive_id for node in before})
    cards = read_amdgpu(hidden["amdgpu"]).value  # type: ignore[arg-type]
    assert {card.unique_id for card in cards.values()} == {node.unique_id for node in after}
    assert [node.pci_bus_id for node in after] == [node.pci_bus_id for node in before]


def test_no_unique_id_stays_none() -> None:
    found = pseudonymised({"kfd": {"1/properties": "simd_count 4\nunique_id 0"}}, "tower7")
    assert found["kfd"] == {"1/properties": "simd_count 4\nunique_id 0"}


def test_the_hive_of_a_card_is_another_afterwards() -> None:
    files = {"0000:01:00.0": {"xgmi_hive_info/xgmi_hive_id": "1234567890123"}}
    found = pseudonymised({"amdgpu": files}, "tower7")
    assert "1234567890123" not in json.dumps(found)


def test_pseudonyms_are_the_same_in_every_capture_of_a_host() -> None:
    assert pseudonymised(telling(), "a") == pseudonymised(telling(), "a")


def test_pseudonyms_of_two_hosts_do_not_tell_that_a_card_moved() -> None:
    first, second = (pseudonymised(telling(key), "a")["tools"] for key in ("one", "two"))
    assert first != second


def test_the_key_does_not_leave_with_the_file() -> None:
    assert "b1f8" not in json.dumps(pseudonymised(telling("b1f8b1f8b1f8"), "a"))


@pytest.mark.parametrize(
    "kept",
    [
        "Mon Nov 23 12:34:56 2026",
        "0000:01:00.0 and 00000000:C1:00.0",
        "580.105.08, 595.71.05, 94.02.42.80.11, pciutils 3.13.0",
        "127.0.0.1 and ::1",
        "Serial Number : N/A",
        "Device Serial Number 00-00-00-00-00-00-00-00",
        "owner of the serial port",
        "root=/dev/nvme0n1p2 ro quiet iommu=pt",
        "root=/dev/sda2",
        "FRU_ID: 113-AMDG21B003L",
        "<cluster_uuid>00000000-0000-0000-0000-000000000000</cluster_uuid>",
        "hive_id 0",
        "<process_name>/usr/lib/xorg/Xorg</process_name>",
        "0::/system.slice/multigpu-tower7.service",
    ],
)
def test_addresses_of_pci_times_and_versions_stay(kept: str) -> None:
    assert Pseudonyms("key", ("tower7",)).line(kept, names=True) == kept


def test_a_host_whose_name_is_a_common_word_does_not_garble_the_kernel_log() -> None:
    line = "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."
    assert Pseudonyms("key", ("gpu",)).line(line, names=True) == line


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    hidden = Pseudonyms("key", ("tower7",))
    assert hidden.line(text, names=True) == hidden.line(text, names=True)


def test_one_identity_has_one_pseudonym_in_decimal_and_in_hexadecimal() -> None:
    hidden = pseudonymised(telling(), "tower7")
    properties = str(hidden["kfd"]["1/properties"])  # type: ignore[index]
    card = hidden["amdgpu"]["0000:03:00.0"]  # type: ignore[index]
    assert f"\nunique_id {int(card['unique_id'], 16)}" in properties
    assert f"\nhive_id {card['xgmi_hive_info/xgmi_hive_id']}\n" in properties


def test_a_file_that_was_shared_is_not_changed_by_sharing_it_again() -> None:
    once = pseudonymised(telling(), "tower7")
    assert pseudonymised(once, "tower7") == once
