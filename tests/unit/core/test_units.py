"""Quantities are exact, their units unambiguous, their errors helpful."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.core.units import BASE_UNITS, COMMON_UNITS, UNITS, format_quantity, parse_quantity

DIMENSIONS = sorted(BASE_UNITS)


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("80 GiB", "bytes", 80 * 2.0**30),
        ("80GB", "bytes", 80e9),
        ("80 Gb", "bytes", 10e9),
        ("8 Mbit", "bytes", 1e6),
        ("1 KiB", "bytes", 1024.0),
        ("3.35 TB/s", "bandwidth", 3.35e12),
        ("100 Gbit/s", "bandwidth", 12.5e9),
        ("100 Gb/s", "bandwidth", 12.5e9),
        ("1 GiB/s", "bandwidth", 2.0**30),
        ("989 TFLOP/s", "compute", 989e12),
        ("989 TFLOPS", "compute", 989e12),
        ("1248 TOP/s", "compute", 1248e12),
        ("1.2 PFLOP/s", "compute", 1.2e15),
        ("50 ms", "time", 0.05),
        ("2.5us", "time", 2.5e-6),
        ("1.5 h", "time", 5400.0),
        ("2 d", "time", 172800.0),
        ("4 /s", "rate", 4.0),
        ("4 1/s", "rate", 4.0),
        ("4 req/s", "rate", 4.0),
        ("4 requests/s", "rate", 4.0),
        ("90 /min", "rate", 1.5),
        ("3600 /h", "rate", 1.0),
        ("400 W", "power", 400.0),
        ("400 mW", "power", 0.4),
        ("4 MW", "power", 4e6),
        ("3.5 pJ", "energy", 3.5e-12),
        ("1 kWh", "energy", 3.6e6),
        ("1.41 GHz", "frequency", 1.41e9),
        ("2.1 USD/h", "price", 2.1),
        ("2.1 $/h", "price", 2.1),
        ("24 USD/d", "price", 1.0),
        ("0.4 kg/kWh", "carbon", 400.0),
        (" 1e3 B ", "bytes", 1000.0),
        ("+.5 s", "time", 0.5),
    ],
)
def test_values(text: str, dimension: str, expected: float) -> None:
    assert parse_quantity(text, dimension) == expected


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("zero", [0, 0.0, "0", "0.0", "-0"])
def test_zero_needs_no_unit(dimension: str, zero: object) -> None:
    value = parse_quantity(zero, dimension)
    assert value == 0.0
    assert math.copysign(1.0, value) == 1.0


@pytest.mark.parametrize(
    ("value", "dimension", "message"),
    [
        (5, "time", "5 has no unit: needs a time with a unit (ns, us, ms, s, min, h, d)"),
        ("5", "rate", "'5' has no unit: needs a rate with a unit (/s, /min, /h, requests/s)"),
        ("3 sec", "time", "'sec' is not a unit of time (ns, us, ms, s, min, h, d). Did you mean 's'?"),
        ("8 mb", "bytes", "'mb' is not a unit of size (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB). Did you mean 'MB'?"),
        ("10 mw", "power", "'mw' is not a unit of power (mW, W, kW). Did you mean 'mW'?"),
        (
            "80 GB",
            "bandwidth",
            "'GB' is not a unit of bandwidth (B/s, MB/s, GB/s, TB/s, GiB/s, Mbit/s, Gbit/s). Did you mean 'GB/s'?",
        ),
        (
            "2.5 GT/s",
            "bandwidth",
            "'GT/s' counts transfers, not bytes: multiply by the lanes and the encoding and write GB/s",
        ),
        ("-3 GB", "bytes", "'-3 GB' is negative"),
        ("1,000 B", "bytes", "'1,000 B': write the number without commas"),
        ("nan s", "time", "'nan s' is not a time with a unit (ns, us, ms, s, min, h, d)"),
        ("inf s", "time", "'inf s' is not a time with a unit (ns, us, ms, s, min, h, d)"),
        (math.nan, "time", "nan has no unit: needs a time with a unit (ns, us, ms, s, min, h, d)"),
        ("1e400 s", "time", "'1e400 s' is outside the range of numbers"),
        ("1e999999999 s", "time", "'1e999999999 s' is outside the range of numbers"),
        (True, "time", "needs a time with a unit (ns, us, ms, s, min, h, d), got true"),
        (None, "time", "needs a time with a unit (ns, us, ms, s, min, h, d), got nothing"),
        ([1], "time", "needs a time with a unit (ns, us, ms, s, min, h, d), got a list"),
        ("", "time", "'' is not a time with a unit (ns, us, ms, s, min, h, d)"),
    ],
)
def test_refused_in_words(value: object, dimension: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        parse_quantity(value, dimension)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"\.\.\.") as caught:
        parse_quantity("9" * 10_000, "time")
    assert len(str(caught.value)) < 200


@given(value=st.floats(min_value=0.0, allow_nan=False, allow_infinity=False), dimension=st.sampled_from(DIMENSIONS))
def test_a_written_value_reads_back_identical(value: float, dimension: str) -> None:
    assert parse_quantity(f"{value!r} {BASE_UNITS[dimension]}", dimension) == value


@given(
    number=st.decimals(min_value=0, max_value=10**9, allow_nan=False, places=6),
    dimension=st.sampled_from(DIMENSIONS),
    data=st.data(),
)
def test_every_unit_is_rounded_once(number: object, dimension: str, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(sorted(UNITS[dimension])))
    assert parse_quantity(f"{number} {unit}", dimension) == float(Fraction(str(number)) * UNITS[dimension][unit])


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_units_that_differ_in_case_differ_in_value(dimension: str) -> None:
    assert UNITS[dimension][BASE_UNITS[dimension]] == 1
    assert set(COMMON_UNITS[dimension]) <= set(UNITS[dimension])


def test_a_bit_is_an_eighth_of_a_byte_and_case_tells_them_apart() -> None:
    assert UNITS["bytes"]["MB"] == 8 * UNITS["bytes"]["Mb"]
    assert UNITS["bytes"]["GB"] != UNITS["bytes"]["GiB"]


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (3.35e12, "bandwidth", "3.35 TB/s"),
        (0.05, "time", "50 ms"),
        (80e9, "bytes", "80 GB"),
        (999.96e6, "bytes", "1 GB"),
        (5400.0, "time", "1.5 h"),
        (0.0, "time", "0 s"),
        (2.1, "price", "2.1 USD/h"),
        (1234.0, "rate", "1,234 /s"),
        (989e12, "compute", "989 TFLOP/s"),
        (math.inf, "time", "inf"),
    ],
)
def test_shown_to_people(value: float, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text
