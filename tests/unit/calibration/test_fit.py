"""The fit finds what it should, the split keeps shapes apart, rounding keeps bounds."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.calibration.fit import (
    NUM_FITTED_POINTS,
    Coefficient,
    fit_coefficients,
    round_to_bounds,
    summarize,
    thin,
)
from hermes_sim.calibration.split import held_out

COEFFICIENTS = (Coefficient("frac", 0.5, 0.1, 1.0), Coefficient("launch_s", 1e-6, 0.0, 1e-4, 1e-6))


def roofline(values: dict[str, float], num_bytes: np.ndarray) -> np.ndarray:
    return values["launch_s"] + num_bytes / (1e12 * values["frac"])


def test_fit_recovers_the_truth_despite_outliers() -> None:
    num_bytes = np.geomspace(1e3, 1e9, 200)
    measured_s = roofline({"frac": 0.81, "launch_s": 4.2e-6}, num_bytes)
    measured_s[::20] *= 3.0
    found = fit_coefficients(COEFFICIENTS, lambda values: roofline(values, num_bytes), measured_s)
    assert found["frac"] == pytest.approx(0.81, rel=0.01)
    assert found["launch_s"] == pytest.approx(4.2e-6, rel=0.01)


def test_fit_is_deterministic_and_rounded() -> None:
    num_bytes = np.geomspace(1e3, 1e9, 50)
    measured_s = roofline({"frac": 1 / 3, "launch_s": 1e-6 / 3}, num_bytes)
    first, again = (fit_coefficients(COEFFICIENTS, lambda v: roofline(v, num_bytes), measured_s) for _ in range(2))
    assert first == again
    assert first["frac"] == 0.3333


def test_secants_see_through_the_noise_of_a_simulation() -> None:
    num_bytes = np.geomspace(1e6, 1e9, 60)
    noise = 1e-3 * np.sin(np.arange(60) * 12.9898)

    def predict(values: dict[str, float]) -> np.ndarray:  # jumps by a thousandth as soon as anything changes
        return roofline(values, num_bytes) * (1.0 + noise * np.sin(1e5 * values["frac"] + 1e11 * values["launch_s"]))

    coefficients = (Coefficient("frac", 0.5, 0.1, 1.0, 0.1), Coefficient("launch_s", 2e-5, 0.0, 1e-4, 5e-6))
    measured_s = roofline({"frac": 0.81, "launch_s": 4.2e-6}, num_bytes)
    found = fit_coefficients(coefficients, predict, measured_s, num_starts=1, secants=True)
    assert found["frac"] == pytest.approx(0.81, rel=0.01)
    assert found["launch_s"] == pytest.approx(4.2e-6, rel=0.2)
    narrow = fit_coefficients(coefficients, predict, measured_s, num_starts=1)
    assert abs(narrow["frac"] - 0.81) > 10 * abs(found["frac"] - 0.81)  # stuck near its start


def test_bounds_hold_after_rounding() -> None:
    assert round_to_bounds(0.99996, Coefficient("x", 0.5, 0.0, 0.99997)) == 0.99997
    assert round_to_bounds(1e-12, Coefficient("x", 0.5, 0.0, 1.0)) == 0.0
    assert round_to_bounds(123.456, Coefficient("x", 1.0, 0.0, 1e3)) == 123.5


def test_a_shape_is_never_on_both_sides() -> None:
    n, k = np.repeat(np.arange(64, 6400, 64), 50), np.tile(np.arange(64, 3264, 64), 99)
    held = held_out(n, k)
    assert 0.15 < held.mean() < 0.25
    np.testing.assert_array_equal(held, held_out(n[::-1], k[::-1])[::-1])
    assert (held_out([4096], [1024]) == held_out([4096], [1024])).all()


def test_thinning_leaves_columns_of_any_period_balanced() -> None:
    kept = thin(np.ones(50_000, bool))
    assert kept.sum() == pytest.approx(NUM_FITTED_POINTS, rel=0.02)
    for period in (2, 3, 8, 16):
        shares = np.bincount(np.flatnonzero(kept) % period, minlength=period) / kept.sum()
        np.testing.assert_allclose(shares, 1 / period, rtol=0.1)
    assert thin(np.ones(100, bool)).all()


def test_error_summary_by_hand() -> None:
    found = summarize(np.array([1.1, 0.8, 1.0, 2.0]), np.ones(4))
    assert found.mean_frac == pytest.approx((0.1 + 0.2 + 0.0 + 1.0) / 4)
    assert found.median_frac == pytest.approx(0.15)
    assert found.bias_frac == pytest.approx((0.1 - 0.2 + 0.0 + 1.0) / 4)
    assert found.num_points == 4
