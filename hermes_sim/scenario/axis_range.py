"""Numbers between two ends that an axis runs through: spaced for a grid, or drawn anywhere between them."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from hermes_sim.core.schema import Description, PositiveInt
from hermes_sim.core.words import shown

Number = int | float

MOST_NUMBERS: Final = 10_000
"""Of one range."""
_DIGITS: Final = 6
"""Significant, of a number that was drawn: the file of its scenario states it as the table does."""
_SLACK: Final = 1e-9
"""Share of a step by which rounding may carry the last one past the end."""
_WRITTEN = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*", re.DOTALL)


def number_and_unit(text: str) -> tuple[float, str] | None:
    """'4 /s' -> (4.0, '/s'), '0.5' -> (0.5, ''); None for a text that is no number with at most a unit behind it."""
    found = _WRITTEN.fullmatch(text)
    if found is None or (found[2] and " " in found[2]):
        return None
    return float(found[1]), found[2]


class Range(Description):
    """From one number to another, both included: whole numbers where both are written without a point."""

    model_config = ConfigDict(populate_by_name=False)

    start: Number | str = Field(alias="from")
    """A number, or a quantity with its unit: `1 /s`."""
    end: Number | str = Field(alias="to")
    """In the same unit."""
    num: PositiveInt | None = Field(default=None, le=MOST_NUMBERS)
    """So many numbers, evenly spaced; this or `step`. Sampling and search take any number between the ends if neither
    is given, else one of these."""
    step: Number | str | None = None
    """From one number to the next: added, or on a logarithmic scale multiplied."""
    scale: Literal["linear", "log"] = "linear"
    """What is spaced, or drawn, evenly: the number or its logarithm."""

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, data: Any) -> Any:
        for key in ("from", "to", "step"):
            if isinstance(data, dict) and isinstance(data.get(key), bool):
                raise ValueError(f"{key} needs a number, got {shown(data[key])}")
        return data

    @model_validator(mode="after")
    def _makes_sense(self) -> Range:
        low, unit = self._parsed("from", self.start)
        high, other = self._parsed("to", self.end)
        if unit != other:
            raise ValueError(f"from and to need the same unit, got {shown(unit)} and {shown(other)}")
        if not low < high:
            raise ValueError(f"from must be below to, got {shown(self.start)} and {shown(self.end)}")
        if self.scale == "log" and low <= 0:
            raise ValueError(f"a logarithmic scale needs numbers above 0, got from {shown(self.start)}")
        if self.step is not None:
            self._check_step(unit)
        return self

    def _check_step(self, unit: str) -> None:
        assert self.step is not None
        if self.num is not None:
            raise ValueError("takes num or step, not both")
        step, step_unit = self._parsed("step", self.step)
        if step_unit != ("" if self.scale == "log" else unit):
            expected = "no unit: it is a factor" if self.scale == "log" else f"the unit of from, {shown(unit)}"
            raise ValueError(f"step needs {expected}, got {shown(self.step)}")
        if step <= (1 if self.scale == "log" else 0):
            raise ValueError(f"step must be > {1 if self.scale == 'log' else 0}, got {shown(self.step)}")
        if len(self._stepped()) > MOST_NUMBERS:
            raise ValueError(f"step {shown(self.step)} makes more than {MOST_NUMBERS:,} numbers")

    @staticmethod
    def _parsed(key: str, value: Number | str) -> tuple[float, str]:
        found = (float(value), "") if isinstance(value, int | float) else number_and_unit(value)
        if found is None or not math.isfinite(found[0]):
            raise ValueError(f"{key} needs a number, with its unit if it has one, got {shown(value)}")
        return found

    @property
    def low(self) -> float:
        return self._parsed("from", self.start)[0]

    @property
    def high(self) -> float:
        return self._parsed("to", self.end)[0]

    @property
    def unit(self) -> str:
        """As the file writes it; empty for plain numbers."""
        return self._parsed("from", self.start)[1]

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are counts."""
        return isinstance(self.start, int) and isinstance(self.end, int) and isinstance(self.step, int | None)

    @property
    def is_log(self) -> bool:
        return self.scale == "log"

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """All it can be, ascending; None where it can be anything between the ends."""
        if self.step is not None:
            found = self._stepped()
        elif self.num is not None:
            found = [self._at(index / max(self.num - 1, 1)) for index in range(self.num)]
        elif self.is_whole and not self.is_log and self.high - self.low < MOST_NUMBERS:
            found = [self.low + index for index in range(int(self.high - self.low) + 1)]
        else:
            return None
        return tuple(dict.fromkeys(self.rounded(number) for number in found))

    def number_at(self, share: float) -> float:
        """The number at a share in [0, 1) of the way, each as likely as any other for an even share."""
        numbers = self.numbers
        if numbers is not None:
            return numbers[min(int(share * len(numbers)), len(numbers) - 1)]
        if not self.is_whole:
            return self.rounded(self._at(share))
        low, high = self.low - 0.5, self.high + 0.5  # each count has the span around it
        if self.is_log:
            low, high = math.log(low), math.log(high)
        number = low + share * (high - low)
        return min(max(self.rounded(math.exp(number) if self.is_log else number), self.low), self.high)

    def rounded(self, number: float) -> float:
        """As it is written down: six significant digits, or a whole number."""
        return float(round(number)) if self.is_whole else float(f"{number:.{_DIGITS}g}")

    def text(self, number: float) -> str:
        """The number as a file would state it: '4 /s'."""
        digits = str(round(number)) if self.is_whole else f"{number:.{_DIGITS}g}"
        return f"{digits} {self.unit}" if self.unit else digits

    def value(self, text: str) -> Number | str:
        """What the file would hold, for a number in text."""
        if self.unit:
            return text
        return int(text) if self.is_whole else float(text)

    def _at(self, share: float) -> float:
        if self.is_log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)

    def _stepped(self) -> list[float]:
        assert self.step is not None
        step = self._parsed("step", self.step)[0]
        span = math.log(self.high / self.low) / math.log(step) if self.is_log else (self.high - self.low) / step
        num = min(int(span + _SLACK), MOST_NUMBERS) + 1
        return [self.low * step**index if self.is_log else self.low + index * step for index in range(num)]
