"""Numbers as a person reads them: three significant digits, a fitting unit, thousands separated."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = "-"
"""Stands where a thing did not happen."""

SMALLEST_MAGNITUDE = -5

TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def digits(value: float, significant: int = 3) -> str:
    """Decimal number with so many significant digits: 0.838, 9.41, 27.0, 1,234; 1.20e-07 where it would be long."""
    if not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < SMALLEST_MAGNITUDE:
        return f"{value:.{significant - 1}e}"
    if round(abs(value), significant - 1 - magnitude) >= 10 ** (magnitude + 1):
        magnitude += 1
    return f"{value:,.{max(0, significant - 1 - magnitude)}f}"


def count(value: float) -> str:
    """Whole number with thousands separated."""
    return f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Share as a percentage; one decimal where rounding would hide a small share or a small rest."""
    if share is None or not math.isfinite(share):
        return NOTHING
    if 0 < share < 1e-4:
        return "<0.01%"
    if share != 0 and (abs(share) < 0.01 or 0.99 < share < 1):
        return f"{share * 100:.2g}%" if abs(share) < 0.01 else f"{math.floor(share * 1000) / 10:.1f}%"
    return f"{share * 100:.0f}%"


def duration(seconds: float | None) -> str:
    """Time in its own unit, or in minutes and hours: 838 ms, 9.41 s, 8 min 21 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 120:
        return in_unit(seconds, time_unit([seconds]))
    if seconds < 7200:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def as_written(seconds: float) -> str:
    """A stated time without added digits: 2 s, 50 ms."""
    unit = time_unit([seconds])
    return f"{seconds / TIME_UNITS[unit]:g} {unit}"


def time_unit(values_s: Sequence[float | None]) -> str:
    """The unit in which the median of these times is written: the largest of which it is at least 0.5."""
    known = sorted(abs(value) for value in values_s if value is not None and math.isfinite(value) and value != 0)
    if not known:
        return "s"
    middle = known[(len(known) - 1) // 2]
    return next((unit for unit, size in reversed(TIME_UNITS.items()) if middle >= 0.5 * size), "ns")


def in_unit(seconds: float | None, unit: str, significant: int = 3) -> str:
    """A time in a given unit, the unit behind it."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds == 0:
        return f"0 {unit}"
    return f"{digits(seconds / TIME_UNITS[unit], significant)} {unit}"


def with_prefix(value: float | None, unit: str) -> str:
    """Decimal prefix: 19.5 TFLOP, 3.2 GB."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{digits(value / size)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def usd(value: float | None) -> str:
    """Dollars: whole from a thousand on, two decimals, three significant digits below one dollar."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if abs(value) >= 1000:
        return f"${value:,.0f}"
    return f"${value:,.2f}" if abs(value) >= 1 or value == 0 else f"${digits(value)}"
