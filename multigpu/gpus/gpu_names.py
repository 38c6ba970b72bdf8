"""What people and drivers call a GPU: one key for every spelling, and the memory size it names.

`NVIDIA GeForce RTX 3090`, `rtx3090` and `RTX 3090 24GB` have one key; `H100 80GB HBM3`, `h100_sxm`
and `NVIDIA A100-SXM4-80GB` keep the words that tell form factors apart.
"""

from __future__ import annotations

import re

SIZE = re.compile(r"(?<![\w.])(\d{1,3})\s?(?:gib|gb|g)(?![a-z0-9])", re.I)
WORD = re.compile(r"[a-z0-9]+")
SERIES = re.compile(r"(?:(?:rtx|gtx|rx)(?=\d{4})|quadro(?=[pg])|pro(?=[wv]\d))(.+)")
BRACKETS = re.compile(r"\[([^\]]{1,120})\]")

NOISE = frozenset(
    {
        *("nvidia", "amd", "ati", "geforce", "radeon", "instinct", "tesla"),
        *("corporation", "advanced", "micro", "devices", "inc", "tm", "r"),
        *("graphics", "gpu", "gpus", "card", "accelerator", "generation", "gen", "edition"),
        *("blackwell", "workstation"),
    }
)
"""Words that tell no two models apart. `Quadro` does: RTX 6000 alone may be one of three."""

SPELLINGS = (
    (re.compile(r"\b(?:hbm\d?e?|gddr\d?x?)\b", re.I), " "),
    (re.compile(r"\bmobile\b", re.I), "laptop"),
    (re.compile(r"\bmax[ -]?q\b", re.I), "maxq"),
    (re.compile(r"\bpci[ -]?e(?:xpress)?\b", re.I), "pcie"),
    (re.compile(r"sxm[24-6]\b", re.I), "sxm"),
    (re.compile(r"[+]", re.I), "plus"),
)


def size_gb(text: str) -> int | None:
    """The memory size in a text, in GB as it is sold; None when there is none."""
    found = SIZE.search(text.replace("_", " ").replace("-", " "))
    return int(found[1]) if found else None


def key(text: str) -> str:
    """The letters and digits that tell models apart, without the memory size."""
    return exact_key(SIZE.sub(" ", text.replace("_", " ").replace("-", " ")))


def exact_key(text: str) -> str:
    """`key` with the memory size left in: in `GH200 480GB` it is the processor's."""
    text = text.lower().replace("_", " ").replace("-", " ")
    for pattern, word in SPELLINGS:
        text = pattern.sub(word, text)
    words = WORD.findall(text)
    return "".join(word for word in words if word not in NOISE)


def short(model_key: str) -> str | None:
    """`3090ti` of `rtx3090ti`, `p40`, `w7900`: what people write where nothing else is meant."""
    found = SERIES.match(model_key)
    return found[1] if found else None


def alternatives(text: str) -> tuple[str, ...]:
    """The models of a PCI name: `Navi 22 [Radeon RX 6700/6700 XT / 6800M]` has three."""
    found = BRACKETS.search(text)
    if found is None:
        return (text,)
    first, *others = (part.strip() for part in found[1].split("/"))
    lead = first.rsplit(" ", 1)[0] if others else ""
    series = re.match(r"(?:Radeon |GeForce |Instinct )?(?:RX|RTX|GTX|PRO)?", lead, re.I)
    start = series[0] if series else ""
    return (first, *(f"{start} {part}" for part in others))
