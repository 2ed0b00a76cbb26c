"""Residual tables by kriging: what measurements say of their neighbourhood in log space, and nothing far from them.

The mean of a Gaussian process over log2 of the axes, with a Matern-3/2 covariance, at the nodes of a grid: it returns
to zero, the analytic time, away from measurements. Rasmussen and Williams, "Gaussian Processes for Machine Learning"
(2006), equations 2.25 and 4.17.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.residual import NEEDED_GAIN_FRAC, NUM_FOLDS, shape_folds
from hermes_sim.hardware.residual import LARGEST_LOG_RATIO, ResidualTable, encode

FloatArray = npt.NDArray[np.float64]

SMOOTHINGS: Final = ((1.0, 0.25), (1.0, 0.6), (2.0, 0.8))
"""(factor on the lengths, error of one measurement in standard deviations of what is left over): to choose from."""
NEAR: Final = 0.25
"""Covariance, in shares of the variance, with the nearest measurement that a node needs to count as measured."""
FEWEST_ROWS: Final = 40
MOST_ROWS_CROSS_VALIDATED: Final = 900
NODES_AT_ONCE: Final = 4096


def fit_kriged(
    features: Mapping[str, npt.ArrayLike],
    log_ratio: npt.ArrayLike,
    axes: Mapping[str, Sequence[float]],
    lengths: Mapping[str, float],
    groups: npt.ArrayLike,
) -> ResidualTable | None:
    """Table of ln(measured / analytic) over `axes` (name -> knots); None where it would not help unseen shapes.

    features: a column for each axis. lengths: octaves of each axis over which ratios are alike. groups: shape of each
    row, as any number; rows of one shape are never on both sides of the cross-validation that chooses the smoothing
    and decides whether the table stays.
    """
    names = list(axes)
    places = np.column_stack([_octaves(features[name]) for name in names]) / [lengths[name] for name in names]
    ratio = np.clip(np.asarray(log_ratio, np.float64), -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    if len(ratio) < FEWEST_ROWS:
        return None
    shapes = np.asarray(groups)
    few = np.random.default_rng(0).permutation(len(ratio))[:MOST_ROWS_CROSS_VALIDATED]
    errors = [_cross_validated(places[few] / factor, ratio[few], noise, shapes[few]) for factor, noise in SMOOTHINGS]
    before, after = float(np.abs(ratio[few]).mean()), min(errors)
    if not after < (1.0 - NEEDED_GAIN_FRAC) * before:
        return None
    factor, noise = SMOOTHINGS[errors.index(after)]
    nodes = np.array(list(itertools.product(*(_octaves(knots) / lengths[name] for name, knots in axes.items()))))
    values, nearest = _mean_at(nodes / factor, places / factor, ratio, noise)
    shape = tuple(len(knots) for knots in axes.values())
    return ResidualTable(
        axes={name: tuple(float(knot) for knot in knots) for name, knots in axes.items()},
        values=encode(values.reshape(shape), (nearest >= NEAR).reshape(shape)),
        num_points=len(ratio),
        before_frac=float(f"{min(before, 1.0):.4g}"),
        after_frac=float(f"{min(after, 1.0):.4g}"),
    )


def covariance(first: FloatArray, second: FloatArray) -> FloatArray:
    """[len(first), len(second)]: Matern 3/2 of the distances between rows, 1 where they are the same."""
    squared = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2.0 * first @ second.T
    distance = np.sqrt(3.0 * np.maximum(squared, 0.0))
    return np.asarray((1.0 + distance) * np.exp(-distance))


def _octaves(values: npt.ArrayLike) -> FloatArray:
    return np.log2(np.maximum(np.asarray(values, np.float64), 1.0))


def _weights(places: FloatArray, ratio: FloatArray, noise: float) -> FloatArray:
    from scipy.linalg import cho_factor, cho_solve

    noisy = covariance(places, places) + noise**2 * np.eye(len(ratio))
    return np.asarray(cho_solve(cho_factor(noisy, overwrite_a=True), ratio))


def _mean_at(nodes: FloatArray, places: FloatArray, ratio: FloatArray, noise: float) -> tuple[FloatArray, FloatArray]:
    """Mean of every node, and its covariance with the nearest measurement."""
    weights = _weights(places, ratio, noise)
    values, nearest = np.empty(len(nodes)), np.empty(len(nodes))
    for first in range(0, len(nodes), NODES_AT_ONCE):
        part = slice(first, first + NODES_AT_ONCE)
        alike = covariance(nodes[part], places)
        values[part], nearest[part] = alike @ weights, alike.max(axis=1)
    return values, nearest


def _cross_validated(places: FloatArray, ratio: FloatArray, noise: float, groups: npt.NDArray[np.generic]) -> float:
    """Mean absolute error on rows whose shapes were left out in turn."""
    folds = shape_folds(groups)
    error = 0.0
    for fold in range(NUM_FOLDS):
        out = folds == fold
        if out.all() or not out.any():
            continue
        weights = _weights(places[~out], ratio[~out], noise)
        error += float(np.abs(ratio[out] - covariance(places[out], places[~out]) @ weights).sum())
    return error / len(ratio)
