"""Bands from shapes left out in turn hold nine in ten measurements of shapes that nobody fitted."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.calibration.bands import conformal_band, left_out_errors
from hermes_sim.calibration.residual import fit_residual
from hermes_sim.perf.residual import residuals_at

AXES = {"m": [1, 16, 256, 4096], "n": [64, 256, 1024, 4096, 16384], "k": [64, 256, 1024, 4096, 16384]}


def test_many_shapes_leave_the_plain_quantiles() -> None:
    errors = np.linspace(-1.0, 1.0, 100_001)
    low, high = conformal_band(errors, 100_000)
    assert low == pytest.approx(np.exp(-0.9), rel=1e-4)
    assert high == pytest.approx(np.exp(0.9), rel=1e-4)


def test_few_shapes_widen_the_band_up_to_all_that_was_seen() -> None:
    errors = np.linspace(-0.5, 0.5, 1001)
    wide, wider = conformal_band(errors, 40), conformal_band(errors, 25)
    assert wider[0] < wide[0] < wide[1] < wider[1]
    assert conformal_band(errors, 5) == pytest.approx((np.exp(-0.5), np.exp(0.5)))


def test_summary_states_prediction_over_measurement() -> None:
    summary = left_out_errors(np.log([2.0, 2.0, 2.0]), 3)  # measured is twice the prediction
    assert summary.bias_frac == pytest.approx(-0.5)
    assert (summary.low_frac, summary.high_frac) == pytest.approx((2.0, 2.0))


def scattered(seed: int, num_shapes: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Shapes with an error of their own beside a trend and noise: features, ln(measured / analytic), groups."""
    random = np.random.default_rng(seed)
    n, k = 2.0 ** random.uniform(6, 14, (2, num_shapes))
    groups = np.repeat(np.arange(num_shapes), 20)
    features = {"m": 2.0 ** random.uniform(0, 12, len(groups)), "n": n[groups], "k": k[groups]}
    own = 0.15 * random.standard_normal(num_shapes)[groups] + 0.03 * random.standard_normal(len(groups))
    return features, 0.4 * np.sin(np.log2(features["m"]) / 3.0) + own, groups


def test_band_of_a_residual_table_holds_for_shapes_it_has_not_seen() -> None:
    features, ratio, groups = scattered(1, 150)
    table = fit_residual(features, ratio, AXES, groups)
    assert table is not None
    assert table.left_out is not None
    band = table.left_out
    assert table.band is band
    assert band.low_frac is not None
    assert band.high_frac is not None
    unseen, truth, _ = scattered(2, 400)
    measured_over_corrected = np.exp(truth - residuals_at(table, unseen)[0])
    inside = (measured_over_corrected >= band.low_frac) & (measured_over_corrected <= band.high_frac)
    assert 0.85 < inside.mean() < 0.95
    # errors on the shapes that the table was fitted to promise too much
    fitted = np.exp(ratio - residuals_at(table, features)[0])
    assert np.quantile(fitted, 0.95) / np.quantile(fitted, 0.05) < band.high_frac / band.low_frac
