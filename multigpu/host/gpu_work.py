"""Do the cards work, or do they only wait for each other? Readings in, words out.

A rank that waits in a collective shows full utilization at little power (Llama 3 405B's training
report; NVIDIA's DCGM counts an SM that spins as busy), so what counts is power, held against what
the same card drew while tokens moved, or its limit as long as that is not known.
"""

from __future__ import annotations

from typing import Dict, Optional

from multigpu.host.gpu_facts import Card, Reading

WORKING_SHARE, SPINNING_SHARE = 0.5, 0.35
FULL_PERCENT, SOME_PERCENT = 95, 20
SPINS = 3
"""Readings in a row that look like a deadlock; one may fall between two steps."""
FORGET = 0.98


class GpuWork:
    """The power that each card draws while it works, and what the last reading says."""

    def __init__(self) -> None:
        self.usual_w: Dict[str, float] = {}
        self.spins = 0
        self.known = False
        self.working = False
        self.at: Optional[float] = None

    def take(self, reading: Optional[Reading], moved: bool) -> None:
        """A reading, and whether tokens moved just now. The same one twice counts once."""
        if reading is None or reading.at == self.at:
            return
        self.at = reading.at
        cards = [card for card in reading.cards if card.power_w is not None]
        self.known = bool(cards) and len(cards) == len(reading.cards)
        if moved:
            for card in cards:
                usual = self.usual_w.get(card.uuid, 0.0) * FORGET
                self.usual_w[card.uuid] = max(usual, card.power_w or 0.0)
        self.working = any(self._works(card) for card in cards)
        spinning = self.known and all(self._spins(card) for card in cards)
        self.spins = self.spins + 1 if spinning else 0

    @property
    def deadlocked(self) -> bool:
        """True when all cards have looked for a while as if they waited for each other."""
        return self.spins >= SPINS

    def _works(self, card: Card) -> bool:
        share = self._share(card, WORKING_SHARE, SPINNING_SHARE)
        return share is not None and share >= 1 and (card.utilization or 0) >= SOME_PERCENT

    def _spins(self, card: Card) -> bool:
        share = self._share(card, SPINNING_SHARE, SPINNING_SHARE)
        return share is not None and share < 1 and (card.utilization or 0) >= FULL_PERCENT

    def _share(self, card: Card, of_usual: float, of_limit: float) -> Optional[float]:
        """Power as a multiple of the threshold; None where there is nothing to compare with."""
        if card.power_w is None:
            return None
        if card.uuid in self.usual_w:
            return card.power_w / max(1.0, of_usual * self.usual_w[card.uuid])
        if card.power_limit_w:
            return card.power_w / max(1.0, of_limit * card.power_limit_w)
        return None
