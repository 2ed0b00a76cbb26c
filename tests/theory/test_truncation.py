"""MSER-5 against transients that are known."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.analysis.truncation import Truncation, marginal_errors, mser5
from tests.theory.series import autoregressive


def test_the_rule_by_hand() -> None:
    """Of 4, 0, 0, 2: sums of squares about the mean 11, 8/3, 2, 0 over 16, 9, 4, 1."""
    assert marginal_errors(np.array([4.0, 0.0, 0.0, 2.0])) == pytest.approx([11 / 16, 8 / 27, 2 / 4, 0.0])


@pytest.mark.parametrize("num_transient", [100, 500])
def test_a_transient_is_removed_and_hardly_more(num_transient: int) -> None:
    """Raised by five standard deviations, falling to nothing: at least two thirds of it go, and little else."""
    rng = np.random.default_rng(1)
    series = autoregressive(rng, 100, 4000, 0.5)
    series[:, :num_transient] += 5.0 * (1.0 - np.arange(num_transient) / num_transient)
    found = [mser5(one) for one in series]
    assert all(one.is_steady for one in found)
    cuts = np.array([one.num_cut for one in found])
    assert np.mean((cuts >= 0.6 * num_transient) & (cuts <= num_transient + 400)) > 0.9
    raw, cut = series.mean(), np.mean([one[num:].mean() for one, num in zip(series, cuts, strict=True)])
    assert abs(cut) < 0.15 * raw, "the bias of the mean goes"


def test_a_step_is_cut_where_it_ends() -> None:
    series = np.concatenate([np.full(50, 9.0), np.zeros(450)])
    assert mser5(series) == Truncation(50, True)


def test_without_a_transient_next_to_nothing_is_cut() -> None:
    found = [mser5(one) for one in autoregressive(np.random.default_rng(2), 200, 2000, 0.0)]
    assert all(one.is_steady for one in found)
    assert np.mean([one.num_cut for one in found]) < 20


@pytest.mark.parametrize("trend", [np.arange(1000.0), np.sqrt(np.arange(1000.0))])
def test_what_grows_to_the_end_has_no_steady_state(trend: np.ndarray) -> None:
    assert mser5(trend) == Truncation(0, False)
    assert mser5(trend + np.random.default_rng(3).normal(size=1000)) == Truncation(0, False)


def test_equal_values_are_steady_and_few_say_nothing() -> None:
    assert mser5(np.full(200, 0.1)) == Truncation(0, True)
    assert mser5(np.zeros(99)) == Truncation(0, None)
