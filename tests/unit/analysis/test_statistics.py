"""Student, Welch, Holm, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hermes_sim.analysis.batch_means import (
    batch_means,
    means_of_batches,
    quantile_of_series,
    von_neumann,
)
from hermes_sim.analysis.paired_series import quantile_difference, series_difference
from hermes_sim.analysis.statistics import (
    holm,
    mean_of_replications,
    paired_difference,
    welch_difference,
)


def test_students_interval_and_pairs_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.302653.
    found = paired_difference(np.array([10.0, 20.0, 30.0]), np.array([11.0, 22.0, 33.0]))
    assert found.mean == 2.0
    assert found.half_width_95 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.p_value == pytest.approx(stats.ttest_rel([11, 22, 33], [10, 20, 30]).pvalue)
    assert found.significant is False


def test_one_pair_says_nothing_and_equal_ones_say_the_same() -> None:
    one = paired_difference(np.array([1.0]), np.array([2.0]))
    assert math.isnan(one.p_value)
    assert one.significant is None
    same = paired_difference(np.full(3, 0.1), np.full(3, 0.1))
    assert (same.mean, same.half_width_95, same.significant) == (0.0, 0.0, False)
    assert paired_difference(np.zeros(3), np.ones(3)).significant is True


def test_welch_is_scipys() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.0, 1.0, 8), rng.normal(1.0, 4.0, 5)
    found = welch_difference(mean_of_replications(a), mean_of_replications(b))
    theirs = stats.ttest_ind(b, a, equal_var=False)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found.half_width_95 == pytest.approx(theirs.confidence_interval().high - found.mean)


def test_welch_without_spread_or_without_an_interval() -> None:
    steady = mean_of_replications(np.full(3, 2.0))
    assert welch_difference(steady, steady).p_value == 1.0
    assert welch_difference(steady, mean_of_replications(np.full(3, 2.5))).p_value == 0.0
    assert welch_difference(steady, mean_of_replications(np.array([1.0]))).significant is None


def test_holm_by_hand() -> None:
    """Three tests and one that could not be made: 0.01 x 3, 0.02 x 2, 0.04 x 1, none below the one before."""
    assert holm([0.04, math.nan, 0.01, 0.02])[0::2] == [0.04, 0.03]
    assert holm([0.04, math.nan, 0.01, 0.02])[3] == 0.04
    assert math.isnan(holm([0.04, math.nan, 0.01, 0.02])[1])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_bounds_the_chance_of_any_false_find() -> None:
    rng = np.random.default_rng(2)
    tables = rng.random((2000, 20))
    false = np.mean([min(holm(list(table))) < 0.05 for table in tables])
    assert false == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
    assert np.mean(tables.min(axis=1) < 0.05) > 0.6, "without it most tables would have one"


def test_means_of_batches_are_of_neighbours_and_of_all() -> None:
    assert list(means_of_batches(np.arange(7.0), 3)) == [0.5, 2.5, 5.0]


def test_von_neumann_sees_a_trend_and_not_an_alternation() -> None:
    assert von_neumann(np.arange(20.0)) > 3.0
    assert von_neumann(np.tile([0.0, 1.0], 10)) < -3.0
    assert von_neumann(np.ones(10)) == 0.0


def test_a_run_too_short_for_its_correlation_says_so() -> None:
    trend = batch_means(np.arange(100.0))
    assert trend.is_correlated
    assert trend.num == 10
    assert trend.half_width_95 > batch_means(np.random.default_rng(1).permutation(np.arange(100.0))).half_width_95
    assert not batch_means(np.arange(49.0)).is_known
    assert math.isnan(batch_means(np.zeros(0)).value)


def test_equal_values_have_no_spread() -> None:
    for estimate in (batch_means(np.full(60, 0.1)), quantile_of_series(np.full(60, 0.1), 0.5)):
        assert estimate.half_width_95 == 0.0
    assert estimate.value == 0.1


def test_a_series_against_itself_is_the_same() -> None:
    series = np.random.default_rng(1).normal(size=30)
    for found in (series_difference(series, series), quantile_difference(series, series, 0.99)):
        assert (found.mean, found.half_width_95, found.p_value) == (0.0, 0.0, 1.0)


def test_fewer_than_ten_pairs_beyond_the_percentile_say_nothing() -> None:
    series = np.random.default_rng(1).normal(size=999)
    assert math.isnan(quantile_difference(series, series + 1.0, 0.99).p_value)
    longer = np.random.default_rng(1).normal(size=1000)
    for fraction in (0.9, 0.99):
        assert quantile_difference(longer, longer + 1.0, fraction).significant is True
        assert quantile_difference(longer, longer + 1.0, fraction).mean == pytest.approx(1.0)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_nothing_is_known_of_a_mean_that_is_not_finite(value: float) -> None:
    assert not mean_of_replications(np.array([1.0, value])).is_known
