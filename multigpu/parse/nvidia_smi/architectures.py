"""Compute capability of an NVIDIA card that nobody asked for it: by architecture or by name.

Sources: the CUDA programming guide's table of compute capabilities, and NVIDIA's list of GPUs by
compute capability (developer.nvidia.com/cuda-gpus).
"""

from __future__ import annotations

import re

Capability = tuple[int, int]

# What `product_architecture` says (drivers 510 and newer), and the exceptions by product name.
ARCHITECTURES: dict[str, Capability] = {
    "Maxwell": (5, 2),
    "Pascal": (6, 1),
    "Volta": (7, 0),
    "Turing": (7, 5),
    "Ampere": (8, 6),
    "Ada Lovelace": (8, 9),
    "Hopper": (9, 0),
    "Blackwell": (12, 0),
}
EXCEPTIONS: tuple[tuple[str, str, Capability], ...] = (
    ("Maxwell", r"\b(M10|GTX 7[45]0)\b", (5, 0)),
    ("Pascal", r"\bG?P100\b", (6, 0)),
    ("Ampere", r"\b(A100|A800|A30|CMP 170HX)", (8, 0)),
    ("Ampere", r"\bOrin\b", (8, 7)),
    ("Blackwell", r"\bG?B[12]00\b", (10, 0)),
    ("Blackwell", r"\bG?B300\b", (10, 3)),
    ("Blackwell", r"\bThor\b", (11, 0)),
    ("Blackwell", r"\bGB10\b", (12, 1)),
)

# For drivers before 510, the tables and lists, which name no architecture. First match wins.
NAMES: tuple[tuple[str, str], ...] = (
    (r"\b(RTX PRO \d{4}\b|RTX 50[5-9]0\b|GB10\b|G?B[123]00\b)", "Blackwell"),
    (r"\b(G?H100|H200|H800|H20|GH200)\b", "Hopper"),
    (r"\b(L40S?|L4|L20|RTX 40[5-9]0|RTX [2456]\d00 Ada)\b", "Ada Lovelace"),
    (r"\b(A100X?|A800|A[234]0|A10[GM]?|A16|A2|RTX A\d{4}|RTX 30[5-9]0)\b", "Ampere"),
    (r"\b(T4G?|TITAN RTX|RTX 20[6-8]0|GTX 16[5-6]0|Quadro RTX \d{4})\b", "Turing"),
    (r"\b(V100S?|G?V100|TITAN V)\b", "Volta"),
    (r"\b(P100|P40|P4|Quadro G?P\d{3,4}|TITAN X[Pp]|GTX 10[5-8]0|TITAN X \(Pascal\))", "Pascal"),
    (r"\b(M40|M60|M10|GTX 9[5-8]0|GTX TITAN X|GTX 750)\b", "Maxwell"),
)


# A table's name is cut within a word: `NVIDIA A10...` may be an A100.
CUT = re.compile(r"[^\s-]*\.\.\.$")


def compute_capability(architecture: str | None, name: str | None) -> Capability | None:
    """By architecture and product name, by the name alone where the architecture is not told.

    None for an architecture that is not in the table, or a name that tells nothing.
    """
    sure = CUT.sub("", name or "")
    family = architecture or _family(sure)
    for exception, pattern, capability in EXCEPTIONS:
        if exception == family and re.search(pattern, sure):
            return capability
    return ARCHITECTURES.get(family or "")


def _family(name: str) -> str | None:
    return next((family for pattern, family in NAMES if re.search(pattern, name)), None)
