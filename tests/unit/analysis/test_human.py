"""Numbers for people."""

from __future__ import annotations

import math

import pytest

from hermes_sim.analysis import human


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8381, "0.838"), (9.4149, "9.41"), (26.96, "27.0"), (842.4, "842"), (1234.5, "1,234"), (0.0, "0"),
     (9.999, "10.0"), (1.2e-7, "1.20e-07"), (0.00123456, "0.00123"), (-3.14159, "-3.14"), (math.nan, "-"),
     (math.inf, "-")],
)  # fmt: skip
def test_three_significant_digits(value: float, shown: str) -> None:
    assert human.digits(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0 s"), (0.031, "31.0 ms"), (0.838, "0.838 s"), (9.41, "9.41 s"), (501.0, "8 min 21 s"),
     (7500.0, "2 h 05 min"), (2.5e-5, "25.0 us"), (3e-9, "3.00 ns"), (1e-11, "0.0100 ns"), (None, "-")],
)  # fmt: skip
def test_durations(seconds: float | None, shown: str) -> None:
    assert human.duration(seconds) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (1.0, "100%"), (0.384, "38%"), (0.004, "0.4%"), (4.7e-5, "<0.01%"),
     (0.9962, "99.6%"), (0.99999, "99.9%"), (1.16, "116%"), (None, "-")],
)  # fmt: skip
def test_a_small_share_or_rest_is_not_rounded_away(share: float | None, shown: str) -> None:
    assert human.percent(share) == shown


def test_one_unit_for_a_row_of_times() -> None:
    assert human.time_unit([0.031, 0.029, 0.6, math.nan, None]) == "ms"
    assert human.time_unit([]) == "s"
    assert human.in_unit(0.6, "ms") == "600 ms"


def test_a_stated_time_gets_no_digits_it_did_not_have() -> None:
    assert [human.as_written(seconds) for seconds in (2.0, 0.05, 1.5)] == ["2 s", "50 ms", "1.5 s"]


def test_money_and_prefixes() -> None:
    assert human.usd(0.6123) == "$0.612"
    assert human.usd(45.678) == "$45.68"
    assert human.usd(12345.678) == "$12,346"
    assert human.usd(None) == "-"
    assert human.with_prefix(3.2e9, "B") == "3.20 GB"
    assert human.with_prefix(12.0, "B") == "12.0 B"
    assert human.count(19366) == "19,366"
