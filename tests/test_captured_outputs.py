"""Outputs of real machines, read in place: every file of the index, what is true of it.

Skipped where the folder does not lie beside the checkout.
"""

from __future__ import annotations

import csv
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tests.truth
from multigpu.parse import kinds
from multigpu.store.inputs import decoded

RIGS = Path(__file__).parents[1] / "../shared/rigs"
INDEX = RIGS / "INDEX.tsv"


def truths() -> dict[str, Callable[[Path], None]]:
    """File of the index -> the function that asserts what is known of it."""
    found: dict[str, Callable[[Path], None]] = {}
    for module in pkgutil.iter_modules(tests.truth.__path__):
        found.update(importlib.import_module(f"tests.truth.{module.name}").TRUTH)
    return found


def indexed() -> list[str]:
    """Files of the index, none where the folder is absent."""
    if not INDEX.exists():
        return []
    with INDEX.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row["file"] for row in rows]


@pytest.mark.skipif(not INDEX.exists(), reason="no captured outputs beside the checkout")
def test_every_file_of_the_index_has_its_truth() -> None:
    assert sorted(truths()) == sorted(indexed())
    assert len(indexed()) >= 99


@pytest.mark.parametrize("file", indexed())
def test_a_captured_output_is_read_as_what_it_is(file: str) -> None:
    truths()[file](RIGS / file)


# Beginning of a captured file's name -> how the names of its possible formats begin.
FORMATS = {
    "a_": ("nvidia-smi-",),
    "b_": ("nvidia-smi-topo-m", "nvidia-smi-nvlink-s"),
    "c_": ("lspci-",),
    "d_": ("nccl-log",),
    "e_bandwidth/nccl": ("nccl-tests",),
    "e_bandwidth/rccl": ("nccl-tests",),
    "e_bandwidth/p2p": ("p2p-bandwidth-latency",),
    "e_bandwidth/nvb": ("nvbandwidth",),
    "f_serving_log/vllm": ("vllm-log",),
    "f_serving_log/sglang": ("sglang-log",),
    "f_serving_log/llama": ("llama-cpp-log",),
    "g_": ("kernel-log",),
    "h_amd/rocm_smi": ("rocm-smi",),
    "h_amd/amd_smi": ("amd-smi",),
    "h_amd/rocminfo": ("rocminfo",),
    "i_model_config/gguf": ("gguf-metadata",),
    "i_": ("hf-config",),
}


@pytest.mark.parametrize("file", [file for file in indexed() if ".tar" not in file])
def test_the_format_of_a_captured_output_is_guessed(file: str) -> None:
    expected = next(formats for begin, formats in FORMATS.items() if file.startswith(begin))
    kind = kinds.guess(decoded((RIGS / file).read_bytes()))
    assert kind is not None and kind.name.startswith(expected)
