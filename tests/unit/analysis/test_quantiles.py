"""Percentiles agree with numpy on values, and stay within a bin on histograms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.analysis.quantiles import fraction_of, histogram_quantile, num_values_needed, quantile, statistic

values = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=50)
fractions = st.sampled_from([0.5, 0.9, 0.95, 0.99])


@given(values, fractions)
def test_equals_linear_interpolation_of_numpy(sample: list[float], fraction: float) -> None:
    expected = float(np.quantile(sample, fraction))
    assert quantile(np.array(sample), fraction) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_infinite_values_reach_only_the_percentiles_they_touch() -> None:
    sample = np.array([1.0, 2.0, 3.0, 4.0, math.inf])
    assert quantile(sample, 0.5) == 3.0
    assert quantile(sample, 0.75) == 4.0
    assert quantile(sample, 0.76) == math.inf


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(quantile(np.array([]), 0.5))
    assert math.isnan(statistic(np.array([]), "mean"))


def test_statistics_by_name() -> None:
    sample = np.array([1.0, 2.0, 6.0])
    assert statistic(sample, "mean") == 3.0
    assert statistic(sample, "p50") == 2.0
    assert fraction_of("p99.9") == pytest.approx(0.999)
    with pytest.raises(ValueError, match="'q3' is not a percentile"):
        fraction_of("q3")


def test_ten_values_are_wanted_beyond_a_percentile() -> None:
    assert [num_values_needed(fraction_of(name)) for name in ("p50", "p90", "p95", "p99", "p99.9")] == [
        20, 100, 200, 1000, 10_000,
    ]  # fmt: skip


def test_histogram_by_hand() -> None:
    # Of 6 values the 3rd is the 3rd of 4 in [0.25, 0.75]: 0.25 + 3/4 x 0.5.
    assert histogram_quantile(np.array([0.0, 0.25, 0.75, 1.25]), np.array([0, 4, 2]), 0.5) == (0.625, 0.5)


@given(values, fractions)
def test_histogram_is_within_a_bin_of_the_order_statistic(sample: list[float], fraction: float) -> None:
    edges = np.concatenate([[0.0], np.geomspace(1e-3, 2e6, 60)])
    counts, _ = np.histogram(sample, edges)
    value, width = histogram_quantile(edges, counts, fraction)
    exact = np.sort(sample)[math.ceil(fraction * len(sample)) - 1]
    assert abs(value - exact) <= width * (1 + 1e-9)


def test_empty_and_open_histograms() -> None:
    assert math.isnan(histogram_quantile(np.array([0.0, 1.0]), np.array([0]), 0.5)[0])
    assert histogram_quantile(np.array([0.0, 1.0, math.inf]), np.array([0, 3]), 0.5) == (1.0, math.inf)
