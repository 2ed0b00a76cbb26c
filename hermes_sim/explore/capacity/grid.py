"""The loads that a search for capacity may try: a fixed ladder, so that whatever way it takes ends on the same rung."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from hermes_sim.workload.load import LoadUnit

LEAST_RATE_PER_S: Final = 1e-6
LEAST_DIGITS: Final = 4
"""Significant ones of a rate."""


@dataclass(frozen=True, slots=True)
class LoadLadder:
    """Loads a step of `tolerance` apart: rates of few digits; of clients whole numbers, at least one apart."""

    unit: LoadUnit
    tolerance: float
    _clients: list[int] = field(default_factory=lambda: [1])

    def value(self, rung: int) -> float:
        """Ascending; rung 0 is 1 request/s, or 1 client."""
        if self.unit == "clients":
            while len(self._clients) <= rung:
                last = self._clients[-1]
                self._clients.append(max(last + 1, math.floor(last * (1.0 + self.tolerance))))
            return float(self._clients[rung])
        rate_per_s = (1.0 + self.tolerance) ** rung
        digits = max(LEAST_DIGITS, 2 - math.floor(math.log10(self.tolerance)))
        return float(f"{rate_per_s:.{digits - 1}e}")

    @property
    def least(self) -> int:
        """The lowest rung."""
        return 0 if self.unit == "clients" else self.below(LEAST_RATE_PER_S)

    def below(self, value: float) -> int:
        """The highest rung that is not above a load, at least the lowest there is."""
        if self.unit == "clients":
            rung = 0
            while self.value(rung + 1) <= value:
                rung += 1
            return rung
        rung = math.floor(math.log(max(value, LEAST_RATE_PER_S)) / math.log1p(self.tolerance)) - 1
        while self.value(rung + 1) <= value:
            rung += 1
        return rung

    def steps(self, factor: float) -> int:
        """Rungs that a load is multiplied by about so much in, at least one."""
        return max(1, round(math.log(factor) / math.log1p(self.tolerance)))
