"""Text files of the controller."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from multigpu.errors import MultigpuError
from multigpu.store import texts
from multigpu.units import ENVIRONMENT_TEMPLATE, UNIT_TEMPLATE

TEMPLATES = Path(__file__).parent.parent / "templates"


def test_the_templates_and_the_locks_are_there() -> None:
    assert {UNIT_TEMPLATE, ENVIRONMENT_TEMPLATE} <= set(texts.templates(TEMPLATES))
    assert "--hash=sha256:" in texts.requirements(TEMPLATES, "vllm-0.33.0")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MultigpuError, match=r"vllm-9\.txt: No such file"):
        texts.requirements(tmp_path, "vllm-9")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(MultigpuError, match=r"latin is not text: .* utf-8; restore it"):
        texts.read(tmp_path / "latin")


def test_writing_says_whether_anything_changed_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "plans/tower.yaml"
    assert texts.read_if_there(path) is None
    assert texts.write(path, "ü: 1\n")
    assert not texts.write(path, "ü: 1\n")
    assert texts.write(path, "ü: 2\n")
    assert texts.read_if_there(path) == "ü: 2\n"
    assert [file.name for file in path.parent.iterdir()] == ["tower.yaml"]


def test_the_identity_of_a_file_is_its_hash_and_size(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert texts.file_identity(str(path)) == (hashlib.sha256(b"GGUF").hexdigest(), 4)
    with pytest.raises(MultigpuError, match="gone: No such file"):
        texts.file_identity(str(tmp_path / "gone"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file where the folder should be")
    with pytest.raises(MultigpuError, match=r"plans/tower\.yaml cannot be written"):
        texts.write(tmp_path / "plans/tower.yaml", "x")


def test_a_folder_without_templates_is_named(tmp_path: Path) -> None:
    with pytest.raises(MultigpuError, match="holds no templates"):
        texts.templates(tmp_path)
