"""Kriged residual tables: what was measured comes back, what was not is left to the analytic time."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.calibration.kriging import covariance, fit_kriged

KNOTS = {"tokens": tuple(2.0**octave for octave in range(4, 23)), "heads": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)}
LENGTHS = {"tokens": 2.0, "heads": 2.0}


def rows(heads: tuple[float, ...], num_rows: int = 600) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "tokens": 2.0 ** random.uniform(4.0, 10.0, num_rows),
        "heads": np.asarray(random.choice(heads, num_rows), float),
    }


def test_covariance_is_one_at_no_distance_and_falls() -> None:
    found = covariance(np.zeros((1, 2)), np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0], [3.0, 4.0]]))[0]
    assert found[0] == pytest.approx(1.0)
    assert np.all(np.diff(found) < 0.0)
    assert found[3] == pytest.approx((1.0 + 5.0 * np.sqrt(3.0)) * np.exp(-5.0 * np.sqrt(3.0)))


def test_a_smooth_ratio_comes_back_and_far_away_there_is_none() -> None:
    features = rows((1.0, 2.0, 4.0, 8.0))
    ratio = 0.2 * np.sin(np.log2(features["tokens"]) / 2.0) + 0.05 * np.log2(features["heads"])
    table = fit_kriged(features, ratio, KNOTS, LENGTHS, features["heads"])
    assert table is not None
    assert table.after_frac is not None
    assert table.before_frac is not None
    assert table.after_frac < 0.3 * table.before_frac
    octaves, heads = np.arange(4.0, 11.0), np.arange(4.0)
    expected = 0.2 * np.sin(octaves / 2.0)[:, None] + 0.05 * heads
    np.testing.assert_allclose(table.log_ratios[:7, :4], expected, atol=0.02)
    assert not table.has_data[-1].any()  # twelve octaves beyond what was measured
    assert np.abs(table.log_ratios[-1]).max() == 0.0


def test_what_no_other_shape_shares_is_no_table() -> None:
    features = rows((1.0, 32.0))
    random = np.random.default_rng(4)
    assert fit_kriged(features, random.normal(0.0, 0.1, 600), KNOTS, LENGTHS, features["heads"]) is None
    assert fit_kriged({name: column[:20] for name, column in features.items()}, np.full(20, 0.3), KNOTS, LENGTHS,
                      np.arange(20)) is None  # fmt: skip
