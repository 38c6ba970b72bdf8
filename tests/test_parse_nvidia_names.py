"""What architecture and product name tell of the compute capability."""

from __future__ import annotations

import pytest

from multigpu.parse.nvidia_smi.architectures import compute_capability


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [
        ("Ampere", "NVIDIA GeForce RTX 3090", (8, 6)),
        ("Ampere", "NVIDIA A100-SXM4-40GB", (8, 0)),
        ("Pascal", "Tesla P100-PCIE-16GB", (6, 0)),
        ("Blackwell", "NVIDIA GeForce RTX 5090", (12, 0)),
        ("Blackwell", "NVIDIA B200", (10, 0)),
        ("Blackwell", "NVIDIA GB10", (12, 1)),
        ("Hopper", "NVIDIA H100 80GB HBM3", (9, 0)),
        ("Rubin", "NVIDIA R100", None),
        (None, "Graphics Device", None),
    ],
)
def test_the_architecture_tells_the_compute_capability_where_nothing_else_does(
    architecture: str | None, name: str, expected: tuple[int, int] | None
) -> None:
    assert compute_capability(architecture, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Tesla V100-SXM2...", (7, 0)),
        ("NVIDIA RTX PRO 6000 Blac...", (12, 0)),
        ("NVIDIA A10...", None),
        ("NVIDIA RTX 6000 Ada Generation", (8, 9)),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5)),
        ("NVIDIA A10G", (8, 6)),
        ("A100-PCIE-40GB", (8, 0)),
        ("NVIDIA GB300", (10, 3)),
        ("NVIDIA GeForce RTX 4080 SUPER", (8, 9)),
        ("Quadro P2000", (6, 1)),
        ("NVIDIA GeForce GT 710", None),
    ],
)
def test_the_name_tells_the_compute_capability_where_no_architecture_does(
    name: str, expected: tuple[int, int] | None
) -> None:
    assert compute_capability(None, name) == expected
