"""Correction of a layer of experts from the measured layers most like it: kriging over shapes, linear over log tokens.

Simple kriging with mean zero and a Matern covariance of order 3/2: Rasmussen and Williams, "Gaussian Processes for
Machine Learning" (2006), equations 2.25 and 4.17.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.expert_residual import ExpertLayer, ExpertResidual
from hermes_sim.hardware.residual import LARGEST_LOG_RATIO
from hermes_sim.perf.residual import pack_curve

FloatArray = npt.NDArray[np.float64]

OCTAVES: Final = ExpertLayer(8.0, 8.0, 4.0, 4.0, 8.0)
"""Usual distance: octaves of each number of a layer's shape."""


def likeness(shapes: FloatArray, others: FloatArray, reach: float) -> FloatArray:
    """[num_shapes, num_others] covariance of layers, 1 for the same shape. Rows as `ExpertLayer`."""
    scale = reach * np.array(OCTAVES)
    here, there = np.log2(shapes) / scale, np.log2(others) / scale
    squares = (here**2).sum(axis=1)[:, None] + (there**2).sum(axis=1)[None, :] - 2.0 * here @ there.T
    distance = np.sqrt(3.0 * np.maximum(squares, 0.0))
    return np.asarray((1.0 + distance) * np.exp(-distance))


def kriging_weights(shapes: FloatArray, others: FloatArray, reach: float, noise: float) -> FloatArray:
    """[num_shapes, num_others] shares of the others' corrections in each shape's."""
    own = likeness(others, others, reach)
    own[np.diag_indices(len(own))] += noise
    return np.asarray(np.linalg.solve(own, likeness(others, shapes, reach)).T)


def correction_curves(table: ExpertResidual, shapes: FloatArray, *, is_even: bool) -> tuple[FloatArray, FloatArray]:
    """[num_shapes, num_knots] ln(measured / analytic), and [num_shapes] how much of it rests on measurements (0..1)."""
    weights = kriging_weights(shapes, table.shapes, table.reach, table.noise)
    curves = np.clip(weights @ table.curves(is_even=is_even), -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    support = (weights * likeness(shapes, table.shapes, table.reach)).sum(axis=1)
    return curves, np.clip(support, 0.0, 1.0)


def layer_correction(table: ExpertResidual, layer: ExpertLayer) -> FloatArray:
    """Packed over tokens (perf/residual.py), for rows that fall on experts by chance: what an engine runs with."""
    curves, support = correction_curves(table, np.array([layer], np.float64), is_even=False)
    return pack_curve(table.tokens, curves[0], float(support[0]))


def corrections_at(
    table: ExpertResidual, shapes: FloatArray, num_tokens: FloatArray, is_even: npt.NDArray[np.bool_]
) -> FloatArray:
    """ln(measured / analytic) of rows of layers; beyond the outermost knots it falls to none within one octave."""
    different, number = np.unique(shapes, axis=0, return_inverse=True)
    knots, position = np.log2(table.tokens), np.log2(np.maximum(num_tokens, 1.0))
    found = np.zeros(len(shapes))
    for even in (False, True):
        rows = is_even == even
        if rows.any():
            curves, _ = correction_curves(table, different, is_even=even)
            found[rows] = at_knots(knots, curves[number.ravel()[rows]], position[rows])
    outside = np.maximum(np.maximum(knots[0] - position, position - knots[-1]), 0.0)
    return np.asarray(found * np.maximum(1.0 - outside, 0.0))


def at_knots(knots: FloatArray, curves: FloatArray, position: FloatArray) -> FloatArray:
    """Each curve [num_rows, num_knots] at its row's position, linear between knots, held beyond them."""
    below = np.clip(np.searchsorted(knots, position, side="right") - 1, 0, len(knots) - 2)
    above_frac = np.clip((position - knots[below]) / (knots[below + 1] - knots[below]), 0.0, 1.0)
    rows = np.arange(len(position))
    return np.asarray(curves[rows, below] * (1.0 - above_frac) + curves[rows, below + 1] * above_frac)
