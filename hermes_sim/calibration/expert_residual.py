"""Corrections of layers of experts from measured ones: a curve over tokens for each, as strong as others bear out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.residual import NEEDED_GAIN_FRAC, NUM_FOLDS
from hermes_sim.hardware.expert_residual import ExpertResidual, whole_thousandths
from hermes_sim.hardware.residual import LARGEST_LOG_RATIO
from hermes_sim.perf.expert_residual import at_knots, kriging_weights

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

OCTAVES_A_KNOT: Final = 1.5
"""Largest distance of knots of the tokens."""
REACHES: Final = (0.35, 0.5, 1.0, 2.0)
NOISES: Final = (0.03, 0.1, 0.3, 1.0)
"""To choose from by cross-validation."""
ROUGHNESS: Final = 0.3
"""Weight of (difference of neighbouring knots)^2 in one layer's curve, in measurements ..."""
RIDGE: Final = 0.05
"""... and of the pull towards none."""
SMALLEST_ERROR: Final = 0.03
"""Below this absolute error, squares count; above, absolute errors."""
NUM_ROUNDS: Final = 2


def fit_expert_residual(
    shapes: FloatArray, num_tokens: FloatArray, is_even: BoolArray, log_ratio: FloatArray
) -> tuple[ExpertResidual, FloatArray] | None:
    """Table, and the corrections that rows get from other folds' layers alone; None where it would not help those.

    shapes: [num_rows, 5] as `ExpertLayer`. Rows of one layer are never on both sides of the cross-validation that
    chooses reach and noise and decides whether the table stays.
    """
    ratio = np.clip(log_ratio, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    layers, number = np.unique(shapes, axis=0, return_inverse=True)
    number = number.ravel()
    knots = _token_knots(num_tokens)
    position = np.log2(np.maximum(num_tokens, 1.0))
    curves = {even: _curves(number, len(layers), position, ratio, knots, is_even == even) for even in (False, True)}
    for even in (False, True):
        missing = np.isnan(curves[even][:, 0])
        curves[even][missing] = curves[not even][missing]
    best: tuple[float, float, float, FloatArray] | None = None
    for reach, noise in itertools.product(REACHES, NOISES):
        found = np.zeros(len(ratio))
        for out in _folds(len(layers)):
            weights = kriging_weights(layers[out], layers[~out], reach, noise)
            for even in (False, True):
                rows = out[number] & (is_even == even)
                predicted = np.zeros_like(curves[even])
                predicted[out] = weights @ curves[even][~out]
                found[rows] = at_knots(np.log2(knots), predicted[number[rows]], position[rows])
        error = float(np.abs(log_ratio - found).mean())
        if best is None or error < best[0]:
            best = error, reach, noise, found
    assert best is not None
    after, reach, noise, found = best
    before = float(np.abs(log_ratio).mean())
    if not after < (1.0 - NEEDED_GAIN_FRAC) * before:
        return None
    table = ExpertResidual(
        tokens=tuple(knots.tolist()),
        layers=" ".join(str(round(value)) for value in layers.ravel().tolist()),
        uneven=whole_thousandths(curves[False]),
        even=whole_thousandths(curves[True]) if is_even.any() else "",
        reach=reach,
        noise=noise,
        num_points=len(ratio),
        before_frac=float(f"{min(before, 1.0):.4g}"),
        after_frac=float(f"{min(after, 1.0):.4g}"),
    )
    return table, found


def _token_knots(num_tokens: FloatArray) -> FloatArray:
    """From the fewest to the most tokens, evenly in log2, rounded to whole numbers; at least two."""
    low, high = np.log2(max(num_tokens.min(), 1.0)), np.log2(max(num_tokens.max(), 2.0))
    count = max(int(np.ceil((high - low) / OCTAVES_A_KNOT - 1e-9)), 1) + 1
    knots = np.unique(np.round(2.0 ** np.linspace(low, high, count)))
    return np.asarray(knots if len(knots) > 1 else np.array([knots[0], 2.0 * knots[0]]))


def _curves(
    number: IntArray, num_layers: int, position: FloatArray, ratio: FloatArray, knots: FloatArray, chosen: BoolArray
) -> FloatArray:
    """[num_layers, num_knots] penalised linear splines of the chosen rows of each layer; NaN without rows."""
    number, position, ratio = number[chosen], position[chosen], ratio[chosen]
    size = len(knots)
    steps = np.diff(np.eye(size), axis=0)
    penalty = ROUGHNESS * steps.T @ steps + RIDGE * np.eye(size)
    hats = at_hats(np.log2(knots), position)
    curves: FloatArray = np.zeros((num_layers, size))
    weights = np.ones(len(ratio))
    for _ in range(NUM_ROUNDS):
        normal, right = np.tile(penalty, (num_layers, 1, 1)), np.zeros((num_layers, size))
        np.add.at(normal, number, weights[:, None, None] * hats[:, :, None] * hats[:, None, :])
        np.add.at(right, number, (weights * ratio)[:, None] * hats)
        curves = np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0], np.float64)
        error = np.abs(ratio - (hats * curves[number]).sum(axis=1))
        weights = SMALLEST_ERROR / np.maximum(error, SMALLEST_ERROR)
    curves[np.bincount(number, minlength=num_layers) == 0] = np.nan
    return curves


def at_hats(knots: FloatArray, position: FloatArray) -> FloatArray:
    """[num_rows, num_knots] interpolation weights, clamped to the outermost knots."""
    eye = np.eye(len(knots))
    return np.column_stack([np.interp(position, knots, eye[column]) for column in range(len(knots))])


def _folds(num_layers: int) -> Iterator[BoolArray]:
    """Which layers each fold leaves out: multiplicative hashing of their number (Knuth, TAOCP 3, 6.4)."""
    scattered = np.arange(num_layers, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    fold = scattered * np.uint64(NUM_FOLDS) >> np.uint64(32)
    for number in range(NUM_FOLDS):
        out = np.asarray(fold == number)
        if out.any() and not out.all():
            yield out
