"""Quantities with units, read exactly: decimal text times a rational factor, rounded to a float once.

GB = 1e9 bytes, GiB = 2**30 bytes; Gb and Gbit are 1e9 bits. Case counts: Mb is a megabit, MB a megabyte, mW a
milliwatt, MW a megawatt. Operations are counted as in the field: TOP/s and TFLOP/s are both 1e12 per second.
"""

from __future__ import annotations

import difflib
import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from hermes_sim.core.words import shown

_DECIMAL: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_TIME: Final = {
    "s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6), "ns": Fraction(1, 10**9),
    "min": Fraction(60), "h": Fraction(3600), "d": Fraction(86400), "y": Fraction(31_557_600),
}  # fmt: skip


def _bytes() -> dict[str, Fraction]:
    units = {f"{prefix}B": Fraction(factor) for prefix, factor in (_DECIMAL | _BINARY).items()}
    for spelling in ("bit", "b"):
        units |= {f"{prefix}{spelling}": Fraction(factor, 8) for prefix, factor in (_DECIMAL | _BINARY).items()}
    return units


def _compute() -> dict[str, Fraction]:
    spellings = ("FLOP/s", "FLOPS", "FLOPs/s", "OP/s", "OPS", "OPs/s")
    prefixes = _DECIMAL | {"E": 10**18}
    return {f"{prefix}{word}": Fraction(factor) for word in spellings for prefix, factor in prefixes.items()}


def _rate() -> dict[str, Fraction]:
    counted = ("", "1", "req", "request", "requests", "queries", "sessions")
    per = {"s": Fraction(1), "min": Fraction(1, 60), "h": Fraction(1, 3600), "d": Fraction(1, 86400)}
    return {f"{word}/{time}": factor for word in counted for time, factor in per.items()}


def _scaled(unit: str, prefixes: dict[str, Fraction]) -> dict[str, Fraction]:
    return {f"{prefix}{unit}": factor for prefix, factor in prefixes.items()}


_METRIC: Final = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 10**3), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
}  # fmt: skip

UNITS: Final[dict[str, dict[str, Fraction]]] = {
    "time": _TIME,
    "bytes": _bytes(),
    "bandwidth": {f"{unit}/s": factor for unit, factor in _bytes().items()},
    "compute": _compute(),
    "rate": _rate(),
    "power": _scaled("W", _METRIC),
    "energy": _scaled("J", {"p": Fraction(1, 10**12), **_METRIC})
    | {"Wh": Fraction(3600), "kWh": Fraction(3_600_000), "MWh": Fraction(3_600_000_000)},
    "frequency": {f"{prefix}Hz": Fraction(factor) for prefix, factor in _DECIMAL.items()},
    "price": {
        f"{currency}/{time}": 1 / hours
        for currency in ("USD", "$")
        for time, hours in {"h": Fraction(1), "hour": Fraction(1), "s": Fraction(1, 3600), "d": Fraction(24)}.items()
    },
    "money": {"USD": Fraction(1), "$": Fraction(1), "kUSD": Fraction(1000)},
    "electricity price": {
        "USD/kWh": Fraction(1),
        "$/kWh": Fraction(1),
        "ct/kWh": Fraction(1, 100),
        "USD/MWh": Fraction(1, 1000),
    },
    "carbon": {"g/kWh": Fraction(1), "kg/kWh": Fraction(1000), "kg/MWh": Fraction(1), "gCO2/kWh": Fraction(1)},
}
"""Dimension -> unit -> factor to the base unit."""

BASE_UNITS: Final[dict[str, str]] = {
    "time": "s", "bytes": "B", "bandwidth": "B/s", "compute": "FLOP/s", "rate": "/s", "power": "W", "energy": "J",
    "frequency": "Hz", "price": "USD/h", "carbon": "g/kWh",
    "money": "USD", "electricity price": "USD/kWh",
}  # fmt: skip

COMMON_UNITS: Final[dict[str, tuple[str, ...]]] = {
    "time": ("ns", "us", "ms", "s", "min", "h", "d"),
    "bytes": ("B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"),
    "bandwidth": ("B/s", "MB/s", "GB/s", "TB/s", "GiB/s", "Mbit/s", "Gbit/s"),
    "compute": ("FLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "TOP/s"),
    "rate": ("/s", "/min", "/h", "requests/s"),
    "power": ("mW", "W", "kW"),
    "energy": ("pJ", "nJ", "uJ", "mJ", "J", "kJ", "kWh"),
    "frequency": ("Hz", "kHz", "MHz", "GHz"),
    "price": ("USD/h", "$/h"),
    "money": ("USD", "kUSD"),
    "electricity price": ("USD/kWh", "ct/kWh"),
    "carbon": ("g/kWh", "kg/kWh"),
}
"""What messages name; UNITS accepts more spellings."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY: Final = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>.*)", re.DOTALL)
_LARGEST_EXPONENT: Final = 400
"""Beyond any float: keeps the rational arithmetic below small whatever a file says."""


def parse_quantity(value: object, dimension: str) -> float:
    """Number in the base unit of `dimension` from text such as '80 GiB', '50ms', '100 Gbit/s'.

    A bare 0 needs no unit. Raises ValueError, in words for the author of a file, for a number without a unit, an
    unknown unit, and values that are negative, not finite or too large.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        raise ValueError(f"{shown(value)} has no unit: needs {_describe(dimension)}")
    if not isinstance(value, str):
        raise ValueError(f"needs {_describe(dimension)}, got {shown(value)}")
    found = _QUANTITY.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{shown(value)} is not {_describe(dimension)}")
    number, unit = found["number"], found["unit"].strip()
    quantity = _exact(number, _factor(unit, number, dimension), value)
    if quantity < 0:
        raise ValueError(f"{shown(value)} is negative")
    return quantity + 0.0  # -0.0 becomes 0.0


def format_quantity(value: float, dimension: str) -> str:
    """Three significant digits with the unit that gives them the shortest way: '3.35 TB/s', '50 ms', '80 GB'.

    For people; files hold the exact value in the base unit instead.
    """
    if not math.isfinite(value):
        return str(value)
    units = [(unit, float(UNITS[dimension][unit])) for unit in _DISPLAY_UNITS[dimension]]
    unit, factor = units[0]
    for candidate, candidate_factor in units[1:]:
        if abs(value) >= candidate_factor * 0.9995:
            unit, factor = candidate, candidate_factor
    scaled = value / factor
    digits = f"{scaled:.3g}" if abs(scaled) < 999.5 else f"{scaled:,.0f}"
    return f"{digits} {unit}" if value else f"0 {BASE_UNITS[dimension]}"


_DISPLAY_UNITS: Final[dict[str, tuple[str, ...]]] = {
    "time": ("ns", "us", "ms", "s", "min", "h", "d"),
    "bytes": ("B", "kB", "MB", "GB", "TB", "PB"),
    "bandwidth": ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s"),
    "compute": ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "EFLOP/s"),
    "rate": ("/s",),
    "power": ("mW", "W", "kW", "MW"),
    "energy": ("pJ", "nJ", "uJ", "mJ", "J", "kJ", "MJ"),
    "frequency": ("Hz", "kHz", "MHz", "GHz"),
    "price": ("USD/h",),
    "money": ("USD",),
    "electricity price": ("USD/kWh",),
    "carbon": ("g/kWh",),
}
"""Ascending."""


def _exact(number: str, factor: Fraction, value: str) -> float:
    decimal = Decimal(number)
    if decimal and abs(decimal.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"{shown(value)} is outside the range of numbers")
    try:
        return float(Fraction(decimal) * factor)
    except OverflowError:
        raise ValueError(f"{shown(value)} is outside the range of numbers") from None


def _factor(unit: str, number: str, dimension: str) -> Fraction:
    units = UNITS[dimension]
    if unit in units:
        return units[unit]
    if not unit:
        if not Decimal(number):
            return Fraction(0)
        raise ValueError(f"{shown(number)} has no unit: needs {_describe(dimension)}")
    if unit.startswith(","):
        raise ValueError(f"{shown(number + unit)}: write the number without commas")
    if dimension == "bandwidth" and unit.endswith("T/s"):
        raise ValueError(
            f"{shown(unit)} counts transfers, not bytes: multiply by the lanes and the encoding and write GB/s"
        )
    noun = _NOUNS[dimension]
    raise ValueError(f"{shown(unit)} is not a unit of {noun} ({_names(dimension)}).{_suggestion(unit, dimension)}")


def _suggestion(unit: str, dimension: str) -> str:
    """Near match; the same letters in another case first, because Mb is not MB."""
    same_letters = [known for known in UNITS[dimension] if known.casefold() == unit.casefold()]
    common = [known for known in same_letters if known in COMMON_UNITS[dimension]]
    near = common or same_letters or difflib.get_close_matches(unit[:20], UNITS[dimension], n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


_NOUNS: Final = {
    "time": "time", "bytes": "size", "bandwidth": "bandwidth", "compute": "compute", "rate": "rate",
    "power": "power", "energy": "energy", "frequency": "frequency", "price": "price", "carbon": "carbon intensity",
    "money": "amount of money", "electricity price": "price of electricity",
}  # fmt: skip


def _describe(dimension: str) -> str:
    return f"a {_NOUNS[dimension]} with a unit ({_names(dimension)})"


def _names(dimension: str) -> str:
    return ", ".join(COMMON_UNITS[dimension])
