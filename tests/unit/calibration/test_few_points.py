"""A few points move coefficients as far as they are worth, and no farther."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.calibration.few_points import fit_few_points
from hermes_sim.calibration.fit import Coefficient

COEFFICIENTS = (
    Coefficient("compute_frac", 0.8, 0.1, 1.0),
    Coefficient("memory_frac", 0.8, 0.1, 1.0),
    Coefficient("launch_s", 2e-6, 0.0, 1e-4, 1e-6),
)
START = {"compute_frac": 0.8, "memory_frac": 0.8, "launch_s": 2e-6}
TRUTH = {"compute_frac": 0.5, "memory_frac": 0.9, "launch_s": 5e-6}


def points(number: int, seed: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FLOPs, bytes and noisy times of so many kernels of a device with a known roofline."""
    random = np.random.default_rng(seed)
    flops, moved = 10.0 ** random.uniform(7, 12, number), 10.0 ** random.uniform(5, 9, number)
    return flops, moved, roofline(TRUTH, flops, moved) * np.exp(noise * random.standard_normal(number))


def roofline(values: dict[str, float], flops: np.ndarray, moved: np.ndarray) -> np.ndarray:
    compute_s = flops / (1e15 * values["compute_frac"])
    return values["launch_s"] + np.maximum(compute_s, moved / (2e12 * values["memory_frac"]))


def test_ten_points_find_a_roofline() -> None:
    flops, moved, measured_s = points(10, seed=3)
    found = fit_few_points(COEFFICIENTS, START, lambda v, rows: roofline(v, flops[rows], moved[rows]), measured_s)
    unseen_flops, unseen_moved, unseen_s = points(200, seed=4)
    errors = np.abs(roofline(found.values, unseen_flops, unseen_moved) / unseen_s - 1.0)
    assert np.median(errors) < 0.03
    assert found.left_out.median_frac < 0.25 * found.before.median_frac


def test_coefficients_that_are_right_stay_as_they_are() -> None:
    flops, moved, measured_s = points(10, seed=5, noise=0.05)
    found = fit_few_points(COEFFICIENTS, TRUTH, lambda v, rows: roofline(v, flops[rows], moved[rows]), measured_s)
    assert found.left_out.mean_frac <= found.before.mean_frac * 1.05
    for name, value in TRUTH.items():
        assert found.values[name] == pytest.approx(value, rel=0.2)


def test_points_of_one_roof_leave_the_other_alone() -> None:
    """Nothing here is limited by compute, so its efficiency stays where its class put it."""
    _, moved, _ = points(12, seed=6)
    flops = np.full(12, 1.0)
    measured_s = roofline(TRUTH, flops, moved)
    found = fit_few_points(COEFFICIENTS, START, lambda v, rows: roofline(v, flops[rows], moved[rows]), measured_s)
    assert found.values["compute_frac"] == START["compute_frac"]
    assert found.values["memory_frac"] == pytest.approx(0.9, rel=0.05)


def test_two_points_are_refused() -> None:
    with pytest.raises(ValueError, match="three are the least"):
        fit_few_points(COEFFICIENTS, START, lambda v, rows: np.ones(len(rows)), np.ones(2))
