"""Warm-up and cool-down: which requests are measured, and between which times."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.scenario.measure import Margin, Measure
from hermes_sim.scenario.window import measured_window

ARRIVALS_S = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])


def measure(warm_up: str | float = 0.0, cool_down: str | float = 0.0) -> Measure:
    return Measure(warm_up=Margin.parse(warm_up), cool_down=Margin.parse(cool_down))


def test_without_a_cut_the_whole_run_is_measured() -> None:
    window = measured_window(ARRIVALS_S, 12.0, measure())
    assert (window.start_s, window.end_s) == (0.0, 12.0)
    assert window.measured.all()
    assert window.whole_run


@pytest.mark.parametrize(
    ("warm_up", "cool_down", "first", "last"),
    [("20 %", "10 %", 2, 8), (0.25, 0.0, 2, 9), ("2 s", "0 s", 2, 9), ("1.5 s", "1.5 s", 2, 7), (0.0, "2 s", 0, 7)],
)
def test_cuts_by_share_and_by_time(warm_up: str | float, cool_down: str | float, first: int, last: int) -> None:
    window = measured_window(ARRIVALS_S, 12.0, measure(warm_up, cool_down))
    assert list(np.flatnonzero(window.measured)) == list(range(first, last + 1))
    assert window.start_s == ARRIVALS_S[first]
    assert window.end_s == (12.0 if last == 9 else ARRIVALS_S[last + 1])
    assert not window.whole_run


def test_order_of_rows_does_not_matter_and_requests_that_never_arrived_are_not_measured() -> None:
    arrival_s = np.array([3.0, np.nan, 0.0, 2.0, 1.0])
    window = measured_window(arrival_s, 5.0, measure(warm_up=0.25))
    assert list(window.measured) == [True, False, False, True, True]


def test_nothing_left_is_defined() -> None:
    assert not measured_window(ARRIVALS_S, 12.0, measure("100 s")).measured.any()
    assert measured_window(np.zeros(0), 0.0, measure(0.1, 0.1)).length_s == 0.0
