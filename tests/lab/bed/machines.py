"""The tables of simulated machines, `machines/*.ini`: what the simulated NVML and PCI tree show."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from .settings import HERE, LabError

FOLDER = HERE / "machines"
FIRST_PORT = 50052


@dataclass(frozen=True)
class Card:
    """One simulated card; `values` are the keys of its section, as text."""

    index: int
    values: dict[str, str]

    @property
    def port(self) -> int:
        """Where the card's ggml-rpc-server listens, on the host's loopback."""
        return FIRST_PORT + self.index

    def __getitem__(self, key: str) -> str:
        return self.values[key]


@dataclass(frozen=True)
class Machine:
    name: str
    table: Path
    cards: tuple[Card, ...]


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.ini"))


def load(name: str) -> Machine:
    """Read one table. Raises LabError with the known names for an unknown one."""
    table = FOLDER / f"{name}.ini"
    if not table.is_file():
        raise LabError(f"no machine called {name}; there are {', '.join(names())}")
    parser = configparser.ConfigParser()
    parser.read(table)
    sections = [section for section in parser.sections() if section.startswith("gpu ")]
    cards = tuple(Card(int(s.split()[1]), dict(parser[s])) for s in sections)
    return Machine(name, table, cards)
