"""A residual table finds a smooth error, leaves noise alone, and helps shapes that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.calibration.residual import fit_residual, octave_knots
from hermes_sim.perf.residual import residuals_at


def shapes(seed: int, num_shapes: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Thirty rows for each of some shapes (n, k), and the number of the shape."""
    random = np.random.default_rng(seed)
    n, k = 2.0 ** random.uniform(6, 14, (2, num_shapes))
    m = 2.0 ** random.uniform(0, 13, (num_shapes, 30))
    features = {"m": m.ravel(), "n": np.repeat(n, 30), "k": np.repeat(k, 30)}
    return features, np.repeat(np.arange(num_shapes), 30)


def error(features: dict[str, np.ndarray]) -> np.ndarray:
    return 0.3 * np.sin(np.log2(features["m"]) / 2.0) + 0.02 * (np.log2(features["n"]) - 10.0)


AXES = {"m": [1, 4, 16, 64, 256, 1024, 8192], "n": [64, 512, 4096, 16384], "k": [64, 1024, 16384]}


def test_a_smooth_error_is_found_on_shapes_that_were_not_fitted() -> None:
    features, groups = shapes(1, 80)
    noise = 0.05 * np.random.default_rng(2).standard_normal(len(groups))
    table = fit_residual(features, error(features) + noise, AXES, groups)
    assert table is not None
    unseen, _ = shapes(3, 40)
    left = np.abs(error(unseen) - residuals_at(table, unseen)[0]).mean()
    assert left < 0.3 * np.abs(error(unseen)).mean()
    assert table.num_points == len(groups)
    assert table.after_frac is not None
    assert table.before_frac is not None
    assert table.after_frac < table.before_frac


def test_errors_of_each_shape_alone_are_no_table() -> None:
    features, groups = shapes(4, 60)
    of_shape = np.random.default_rng(5).standard_normal(60)[groups] * 0.2
    assert fit_residual(features, of_shape, AXES, groups) is None


def test_nothing_is_said_where_nothing_was_measured() -> None:
    features, groups = shapes(6, 60)
    small = features["m"] < 60.0
    fitted = {name: column[small] for name, column in features.items()}
    table = fit_residual(fitted, np.full(small.sum(), 0.4), AXES, groups[small])
    assert table is not None
    far = {"m": [1024.0, 8192.0], "n": [512.0, 512.0], "k": [1024.0, 1024.0]}
    np.testing.assert_array_equal(residuals_at(table, far), np.zeros((2, 2)))
    value, support = residuals_at(table, {"m": [16.0], "n": [512.0], "k": [1024.0]})
    assert value[0] == pytest.approx(0.4, abs=0.03)
    assert support[0] == 1.0


def test_outliers_do_not_move_it() -> None:
    features, groups = shapes(7, 60)
    ratio = np.full(len(groups), 0.1)
    ratio[::11] = 0.69
    table = fit_residual(features, ratio, AXES, groups)
    assert table is not None
    values, _ = residuals_at(table, features)
    assert np.median(values) == pytest.approx(0.1, abs=0.03)


def test_the_fit_is_deterministic() -> None:
    features, groups = shapes(8, 30)
    assert fit_residual(features, error(features), AXES, groups) == fit_residual(
        features, error(features), AXES, groups
    )


def test_knots_span_the_values() -> None:
    assert octave_knots([1, 8, 3]) == (1.0, 2.0, 4.0, 8.0)
    assert octave_knots([0, 16], per_octave=0.5) == (1.0, 4.0, 16.0)
    assert octave_knots([5, 5]) == (5.0,)


def test_a_context_kept_out_between_measured_ones_is_bridged() -> None:
    """0.3 at all knots but the third and the last, where nothing was measured: the third has neighbours."""
    knots = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    rows = np.repeat([1.0, 2.0, 8.0, 16.0], 40)
    groups = np.arange(len(rows)) % 8
    plain, bridged = (
        fit_residual({"tokens": rows}, np.full(len(rows), 0.3), {"tokens": knots}, groups, bridges=bridges)
        for bridges in (False, True)
    )
    assert plain is not None
    assert bridged is not None
    assert plain.has_data.tolist() == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    assert bridged.has_data.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert bridged.log_ratios[2] == pytest.approx(0.3, abs=0.1)
