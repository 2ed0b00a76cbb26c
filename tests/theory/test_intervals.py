"""Intervals of one run against series whose true mean and percentiles are known: they cover as often as they say.

Counts of covering intervals are held against four standard deviations of a binomial number. Seeds are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import norm

from hermes_sim.analysis.batch_means import (
    batch_means,
    binomial_ranks,
    quantile_of_series,
)
from hermes_sim.analysis.paired_series import quantile_difference, series_difference
from hermes_sim.analysis.statistics import Estimate, mean_of_replications, paired_difference
from tests.theory.series import autoregressive, waits_mm1


def coverage(estimates: Sequence[Estimate], true: float) -> float:
    return float(np.mean([one.low <= true <= one.high for one in estimates]))


def assert_covers(estimates: Sequence[Estimate], true: float, *, most: float = 0.0) -> None:
    """95%, by four standard deviations; `most` where the rule is known to be on the safe side."""
    slack = 4.0 * math.sqrt(0.95 * 0.05 / len(estimates))
    assert 0.95 - slack <= coverage(estimates, true) <= max(0.95 + slack, most)


@pytest.mark.parametrize(("correlation", "num"), [(0.0, 500), (0.5, 1000), (0.9, 4000)])
def test_batch_means_cover_the_mean_of_a_correlated_series(correlation: float, num: int) -> None:
    series = autoregressive(np.random.default_rng(1), 500, num, correlation)
    assert_covers([batch_means(one) for one in series], 0.0)


def test_batch_means_cover_the_mean_wait_of_mm1() -> None:
    waits = waits_mm1(np.random.default_rng(2), 300, 10_000, 0.5)
    assert_covers([batch_means(one) for one in waits], 1.0)


def test_taken_for_independent_they_would_not() -> None:
    """Why batches are needed: s / sqrt(n) covers half as often."""
    series = autoregressive(np.random.default_rng(1), 200, 4000, 0.9)
    assert coverage([mean_of_replications(one) for one in series], 0.0) < 0.5


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_order_statistics_cover_percentiles_of_a_correlated_series(fraction: float, correlation: float) -> None:
    series = autoregressive(np.random.default_rng(3), 200, 4000, correlation)
    found = [quantile_of_series(one, fraction) for one in series]
    known = [one for one in found if one.is_known]
    assert len(known) >= 0.97 * len(found)
    assert_covers(known, float(norm.ppf(fraction)), most=0.995)


def test_ranks_of_a_percentile_by_the_binomial_law() -> None:
    """Median of 100: David and Nagaraja's ranks 40 and 61, 96.5% by the binomial law."""
    assert binomial_ranks(100, 0.5) == (40, 61)
    assert binomial_ranks(367, 0.99)[1] == 368, "p99 needs 368 values"
    assert binomial_ranks(368, 0.99)[1] == 368


def test_width_falls_with_the_square_root_of_the_length() -> None:
    series = autoregressive(np.random.default_rng(4), 100, 16_000, 0.5)
    for interval in (batch_means, lambda one: quantile_of_series(one, 0.9)):
        short, long = (np.mean([interval(one[:num]).half_width_95 for one in series]) for num in (1000, 16_000))
        assert short / long == pytest.approx(4.0, rel=0.1)


def test_pairs_of_correlated_series_cover_their_difference_and_gain_by_pairing() -> None:
    rng = np.random.default_rng(5)
    common = autoregressive(rng, 300, 2000, 0.8)
    other = common + 0.1 + 0.1 * autoregressive(rng, 300, 2000, 0.8)
    pairs = [series_difference(a, b) for a, b in zip(common, other, strict=True)]
    covered = np.mean([abs(one.mean - 0.1) <= one.half_width_95 for one in pairs])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 300))
    assert np.mean([one.half_width_95 for one in pairs]) < 0.2 * np.mean(
        [batch_means(one).half_width_95 for one in common]
    )
    assert all(one.significant for one in pairs)


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_pairs_cover_the_difference_of_percentiles(fraction: float) -> None:
    """By sections up to p90; of p99 a section would have four values beyond, so it is linearised."""
    rng = np.random.default_rng(6)
    first = autoregressive(rng, 300, 4000, 0.5)
    second = 1.2 * first + 0.1 * rng.normal(size=first.shape)
    true = float(norm.ppf(fraction)) * (math.sqrt(1.2**2 + 0.1**2) - 1.0)
    found = [quantile_difference(a, b, fraction) for a, b in zip(first, second, strict=True)]
    covered = np.mean([abs(one.mean - true) <= one.half_width_95 for one in found])
    assert covered == pytest.approx(0.96, abs=4 * math.sqrt(0.95 * 0.05 / 300))
    unpaired = np.nanmean([quantile_of_series(one, fraction).half_width_95 for one in second])
    assert np.mean([one.half_width_95 for one in found]) < 0.5 * unpaired


def test_differences_that_are_none_are_found_one_time_in_twenty() -> None:
    rng = np.random.default_rng(7)
    pairs = rng.normal(size=(1000, 2, 5)) + rng.normal(size=(1000, 1, 5)) * 10.0
    found = np.mean([paired_difference(a, b).significant for a, b in pairs])
    assert found == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 1000))
