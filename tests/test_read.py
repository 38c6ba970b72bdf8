"""`python -m multigpu read`: what was understood of a text, and the lines that were not."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from multigpu.cli import main
from multigpu.outline import outline
from tests.hosts import HERE, captured
from tests.hosts.machines import MACHINES
from tests.rigs import sysfs
from tests.rigs.amd_rocm_smi import rocm_smi_json
from tests.rigs.amd_rocminfo import rocminfo
from tests.rigs.amd_sysfs import kfd_section
from tests.rigs.lspci import lspci_vvv
from tests.rigs.nvidia_smi import list_gpus
from tests.rigs.nvidia_table import table

TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tPHB\t0-15\t0\t\tN/A
GPU1\tPHB\t X \t0-15\t0\t\tN/A
"""
LINKS = """\
GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-11111111-2222-3333-4444-555555555555)
\t Link 0: 14.062 GB/s
something the tool never prints
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors."""
    status = main(["read", *words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def paste(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_pasted_matrix_is_recognised_and_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paste(monkeypatch, "$ nvidia-smi topo -m\n" + TOPOLOGY)
    status, out, _ = run(capsys)
    assert status == 0
    assert out.startswith("standard input\n  nvidia-smi-topo-m, all 4 lines understood\n")
    assert "0-1 PHB" in out


def test_lines_that_were_not_understood_are_shown_with_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "links.txt").write_text(LINKS)
    status, out, _ = run(capsys, str(tmp_path / "links.txt"))
    assert status == 0
    assert "2 of 3 lines understood" in out
    assert "3  something the tool never prints" in out


def test_a_text_of_no_known_format_is_refused_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "poem.txt").write_text("the cards are many\nand the lanes are few\n")
    (tmp_path / "topo.txt").write_text(TOPOLOGY)
    status, out, err = run(capsys, str(tmp_path / "poem.txt"), str(tmp_path / "topo.txt"))
    assert status == 1
    assert "poem.txt is in no format that is known; name one with --as" in err
    assert "PHB" in out


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "nowhere.txt")
    assert (status, err) == (1, "nowhere.txt cannot be read: No such file or directory\n")


def test_an_unknown_kind_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--as", "nvidia-smi-topo", "x")
    assert status == 1
    assert "nvidia-smi-topo-m" in err and err.count("\n") == 1


def test_a_kind_can_be_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("nothing of the sort\n")
    status, out, _ = run(capsys, "--as", "nvidia-smi-topo-m", str(tmp_path / "x"))
    assert status == 1  # nothing was understood
    assert "0 of 1 lines understood" in out


def test_json_holds_value_and_lines_that_were_not_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "links.txt").write_text(LINKS)
    _, out, _ = run(capsys, "--json", str(tmp_path / "links.txt"))
    (record,) = json.loads(out)
    assert record["kind"] == "nvidia-smi-nvlink-s"
    assert record["unread"] == [{"line": 3, "text": "something the tool never prints"}]


def test_a_captured_machine_is_shown_as_its_survey(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, str(HERE / "4090+3090.json"))
    assert "4090+3090 · 2 GPUs, mixed by architecture" in out


def test_a_folder_of_outputs_is_one_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(captured("2x3090-nvlink"))
    for number, command in enumerate(("nvidia-smi -q -x", "nvidia-smi topo -m", "lspci -nn")):
        if record := document["tools"].get(command):
            (tmp_path / f"output-{number}.txt").write_text("\n".join(record["stdout"]))
    (tmp_path / "shopping.txt").write_text("bread\n")
    status, out, _ = run(capsys, str(tmp_path))
    assert status == 0
    assert "2 GPUs, matched" in out and "NV4" in out
    assert "shopping.txt: no known format, left out" in out


def test_a_folder_of_captured_machines_is_every_one_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1x4090", "2x3090-nvlink"):
        (tmp_path / f"{name}.json").write_text(captured(name))
    _, out, _ = run(capsys, str(tmp_path))
    assert "1x4090 · 1 GPU" in out and "2x3090-nvlink · 2 GPUs" in out


def test_what_powershell_redirects_is_read_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "topo.txt").write_text(TOPOLOGY, encoding="utf-16")
    _, out, _ = run(capsys, str(tmp_path / "topo.txt"))
    assert "PHB" in out


def test_a_line_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text(TOPOLOGY + "\x1b]0;title\x07evil\n")
    _, out, _ = run(capsys, str(tmp_path / "x"))
    assert "\x07" not in out and "\x1b]" not in out


def test_a_folder_of_amd_outputs_is_one_machine_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rig,) = (rig for rig in MACHINES if rig.host.name == "8xMI210-two-hives")
    (tmp_path / "smi.json").write_text(rocm_smi_json(rig.host, rig.dialect))
    (tmp_path / "agents.txt").write_text(rocminfo(rig.host, rig.dialect))
    status, out, _ = run(capsys, str(tmp_path))
    assert status == 0
    assert "8 GPUs, matched" in out and "65520 MiB" in out
    assert "not seen" in out and "rocm-smi --showtopo" in out


def test_outputs_of_one_host_complete_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rig,) = (rig for rig in MACHINES if rig.host.name == "4090+3090")
    (tmp_path / "table.txt").write_text(table(rig.host, rig.dialect))
    (tmp_path / "lspci.txt").write_text(lspci_vvv(rig.host, rig.dialect))
    _, out, _ = run(capsys, str(tmp_path))
    assert "24564 MiB" in out  # the table
    assert "x4 of x16" in out and "limited at 0000:00:1c.4" in out  # lspci


def test_a_copy_of_sysfs_in_a_folder_is_read_without_being_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rig,) = (rig for rig in MACHINES if rig.host.name == "4090+3090")
    sysfs.write(sysfs.pci_section(rig.host, rig.dialect), tmp_path / "sys")
    (tmp_path / "list.txt").write_text(list_gpus(rig.host, rig.dialect))
    _, out, _ = run(capsys, str(tmp_path))
    assert "list.txt: " in out and "current_link_width" not in out
    assert "2 GPUs" in out


@pytest.mark.parametrize("ending", ["tar.gz", "tgz"])
def test_an_archive_of_kfd_is_read(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (rig,) = (rig for rig in MACHINES if rig.host.name == "8xMI210-two-hives")
    with tarfile.open(tmp_path / f"kfd.{ending}", "w:gz") as archive:
        for name, text in kfd_section(rig.host).items():
            member = tarfile.TarInfo(f"topology/nodes/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    status, out, _ = run(capsys, str(tmp_path / f"kfd.{ending}"))
    assert status == 0
    assert "kfd-topology" in out and out.count("gfx90a") == 8


@pytest.mark.parametrize(
    ("name", "tool"), [("2x3090-x4", "nvidia-smi -q -x"), ("2x7900xtx", "amd-smi static --json")]
)
def test_a_folder_with_lspci_alone_claims_nothing_about_the_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, tool: str
) -> None:
    listing = json.loads(captured(name))["tools"]["lspci -vvv -D -nn"]["stdout"]
    (tmp_path / "lspci.txt").write_text("\n".join(listing))
    _, out, _ = run(capsys, str(tmp_path))
    assert "known from PCI only" in out and f"`{tool}`" in " ".join(out.split())
    assert not [w for w in ("no driver", "not installed", "NOT USABLE", "  ok ") if w in out]


@pytest.mark.parametrize(
    ("text", "why"), [("\n \n", "is empty"), ("MZ\0\1", "is no text")], ids=["empty", "binary"]
)
def test_what_no_format_could_be_of_asks_for_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    (tmp_path / "odd").write_text(text)
    status, _, err = run(capsys, str(tmp_path / "odd"))
    assert (status, err) == (1, f"{tmp_path / 'odd'} {why}\n")


def test_a_folder_with_nothing_in_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "core").write_bytes(b"\0" * 100)
    status, out, err = run(capsys, str(tmp_path))
    assert (status, out) == (1, "") and "holds no text" in err


def test_a_stream_without_end_is_left_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "/dev/zero")
    assert status == 1 and "has more than 64 MiB" in err


def test_words_longer_than_the_screen_are_broken() -> None:
    path = "/models/" + "deep/" * 30 + "model-00001-of-00003.gguf"
    for value in ({"model": path}, ((path, "1"), ("b", "2")), path):
        shown = outline(value, 80, "    ").splitlines()
        assert max(map(len, shown)) <= 80
        assert path in "".join(line.strip() for line in shown)


def test_a_name_of_no_format_that_is_like_none_gets_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, _, err = run(capsys, "--as", "q#q#q", "x")
    assert "did you mean" not in err and "there are captured-machine," in err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_captured_machine_is_surveyed_from_a_pipe_in_any_encoding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoding: str
) -> None:
    data = captured("1x4090").encode(encoding)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["survey", "-"]) == 0
    assert capsys.readouterr().out.startswith("standard input · 1 GPU")


def test_the_output_of_a_tool_is_no_captured_machine_and_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "topo.txt").write_text(TOPOLOGY)
    assert main(["survey", str(tmp_path / "topo.txt")]) == 1
    assert f"`python -m multigpu read {tmp_path / 'topo.txt'}`" in capsys.readouterr().err


def test_a_capture_of_the_probe_is_shared_without_the_names_of_its_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(captured("1x4090"))
    document["system"] |= {"hostname": "tower7", "machine_id": "b1f8" * 8}
    (tmp_path / "tower7.json").write_text(json.dumps(document))
    assert main(["share", str(tmp_path / "tower7.json")]) == 0
    shared = capsys.readouterr().out
    assert "tower7" not in shared and "b1f8" not in shared
    (tmp_path / "shared.json").write_text(shared)
    assert main(["survey", str(tmp_path / "shared.json")]) == 0


def test_a_quotation_of_a_mail_reads_as_what_it_quotes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = TOPOLOGY.splitlines()
    paste(monkeypatch, "".join(f"> {line}\n" if line else ">\n" for line in [*lines, ""]))
    assert run(capsys)[1].startswith("standard input\n  nvidia-smi-topo-m, all 3 lines understood")
    paste(monkeypatch, "> " + lines[0] + "\n" + lines[1])
    assert "> " in run(capsys)[1]
