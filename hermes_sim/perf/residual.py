"""Value of a residual table at a point: multilinear in log2 of the axes, compiled.

A table is packed into one flat array, so that compiled code carries any number of axes, or none, in one argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.residual import ResidualTable

FloatArray = npt.NDArray[np.float64]

MAX_AXES = 4  # of a packed table: what an engine fixes is cut off before

IS_TABLE = 0  # 0: no table, the ratio is 1 everywhere
NUM_KNOTS = 1  # .. NUM_KNOTS + MAX_AXES: knots of each axis, 1 where there is none
FIRST_KNOT = NUM_KNOTS + MAX_AXES  # then log2 of the knots of each axis, then the values, then which nodes have data

NO_RESIDUAL: FloatArray = np.zeros(1)
"""Packed form of no table at all."""


def pack_residual(table: ResidualTable | None) -> FloatArray:
    """Flat array of a table for `residual_log_ratio`. ValueError with more than MAX_AXES axes."""
    if table is None:
        return NO_RESIDUAL
    if len(table.axes) > MAX_AXES:
        raise ValueError(f"a packed table has at most {MAX_AXES} axes, got {', '.join(table.axes)}")
    axes = [np.log2(np.maximum(knots, 1.0)) for knots in table.axes.values()]
    return _packed(axes, table.log_ratios, table.has_data)


def pack_curve(knots: Sequence[float], log_ratios: FloatArray, support: float) -> FloatArray:
    """Flat array of one curve over the first axis; support: how much of it rests on measurements, alike all along."""
    return _packed([np.log2(np.maximum(knots, 1.0))], log_ratios, np.full(len(knots), support))


def slice_residual(table: ResidualTable | None, at: Mapping[str, float]) -> FloatArray:
    """Packed table over the axes that `at` does not name, the others held at its values.

    What an engine fixes once (heads, head size) leaves the inner loop this way.
    """
    if table is None:
        return NO_RESIDUAL
    unknown = set(at) - set(table.axes)
    if unknown:
        raise ValueError(f"no axis {sorted(unknown)} in a table over {list(table.axes)}")
    values, data = table.log_ratios, table.has_data
    kept: list[FloatArray] = []
    for name, knots in table.axes.items():
        position = np.log2(np.maximum(knots, 1.0))
        axis = len(kept)
        if name not in at:
            kept.append(position)
            continue
        weights = _weights(position, at[name])
        values = np.tensordot(values, weights, (axis, 0))
        data = np.tensordot(data, weights, (axis, 0))
    return _packed(kept, values, data)


def pad_residuals(packed: list[FloatArray]) -> FloatArray:
    """[num_tables, longest]: packed tables as rows of one array."""
    rows = np.zeros((len(packed), max((len(one) for one in packed), default=1)))
    for row, one in zip(rows, packed, strict=True):
        row[: len(one)] = one
    return rows


@compiled
def residual_log_ratio(packed: FloatArray, x0: float, x1: float, x2: float, x3: float) -> tuple[float, float]:
    """ln(measured / analytic) at a point, and how much of it rests on measurements (0 to 1).

    Coordinates in the order of the axes, in their own units; those of axes that the table lacks are not looked at.
    Beyond the outermost knots the value falls to zero within one octave.
    """
    if packed[IS_TABLE] == 0.0:
        return 0.0, 0.0
    n0, n1, n2, n3 = int(packed[1]), int(packed[2]), int(packed[3]), int(packed[4])
    knot = FIRST_KNOT
    i0, w0, f0 = _place(packed, knot, n0, x0)
    knot += n0
    i1, w1, f1 = _place(packed, knot, n1, x1)
    knot += n1
    i2, w2, f2 = _place(packed, knot, n2, x2)
    knot += n2
    i3, w3, f3 = _place(packed, knot, n3, x3)
    start = knot + n3
    size = n0 * n1 * n2 * n3
    fade = f0 * f1 * f2 * f3
    if fade == 0.0:
        return 0.0, 0.0
    total, support = 0.0, 0.0
    for corner in range(16):
        b0, b1, b2, b3 = corner & 1, (corner >> 1) & 1, (corner >> 2) & 1, (corner >> 3) & 1
        weight = (w0 if b0 else 1.0 - w0) * (w1 if b1 else 1.0 - w1)
        weight *= (w2 if b2 else 1.0 - w2) * (w3 if b3 else 1.0 - w3)
        if weight > 0.0:
            node = start + (((i0 + b0) * n1 + i1 + b1) * n2 + i2 + b2) * n3 + i3 + b3
            total += weight * packed[node]
            support += weight * packed[node + size]
    return fade * total, fade * support


@compiled
def _place(packed: FloatArray, first: int, num_knots: int, x: float) -> tuple[int, float, float]:
    """Knot below, share of the one above, and what is left of the value this far outside."""
    if num_knots == 1:
        if math.isinf(packed[first]):  # no such axis
            return 0, 0.0, 1.0
        return 0, 0.0, max(1.0 - abs(math.log2(max(x, 1.0)) - packed[first]), 0.0)
    position = math.log2(max(x, 1.0))
    last = first + num_knots - 1
    if position <= packed[first]:
        return 0, 0.0, max(1.0 - (packed[first] - position), 0.0)
    if position >= packed[last]:
        return num_knots - 2, 1.0, max(1.0 - (position - packed[last]), 0.0)
    below = 0
    while packed[first + below + 1] <= position:
        below += 1
    low, high = packed[first + below], packed[first + below + 1]
    return below, (position - low) / (high - low), 1.0


@compiled
def fill_residuals(packed: FloatArray, coordinates: FloatArray, log_ratios: FloatArray, support: FloatArray) -> None:
    """Both results of `residual_log_ratio` at every row of coordinates [num_points, MAX_AXES]."""
    for row in range(coordinates.shape[0]):
        log_ratios[row], support[row] = residual_log_ratio(
            packed, coordinates[row, 0], coordinates[row, 1], coordinates[row, 2], coordinates[row, 3]
        )


def residuals_at(table: ResidualTable, features: Mapping[str, npt.ArrayLike]) -> tuple[FloatArray, FloatArray]:
    """ln(measured / analytic) and the share that rests on measurements, at arrays of every axis of the table."""
    columns = [np.asarray(features[name], np.float64) for name in table.axes]
    coordinates = np.ones((len(columns[0]), MAX_AXES))
    coordinates[:, : len(columns)] = np.column_stack(columns)
    log_ratios, support = np.zeros(len(coordinates)), np.zeros(len(coordinates))
    fill_residuals(pack_residual(table), coordinates, log_ratios, support)
    return log_ratios, support


def _packed(axes: list[FloatArray], values: FloatArray, has_data: FloatArray) -> FloatArray:
    padded = [*axes, *([np.array([np.inf])] * (MAX_AXES - len(axes)))]
    head = np.array([1.0, *(len(knots) for knots in padded)])
    return np.concatenate([head, *padded, np.ravel(values), np.ravel(has_data)])


def _weights(position: FloatArray, x: float) -> FloatArray:
    """Share of each knot (log2) at a point, as the compiled form has it."""
    packed = np.concatenate([np.zeros(FIRST_KNOT), position])
    below, above_frac, fade = _place(packed, FIRST_KNOT, len(position), x)
    weights = np.zeros(len(position))
    weights[below] += fade * (1.0 - above_frac)
    if above_frac > 0.0:
        weights[below + 1] += fade * above_frac
    return weights
