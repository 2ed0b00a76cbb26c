"""Residual tables from measurements: penalised least squares on a grid, as strong as unseen shapes bear out.

Tensor-product linear splines with a penalty on differences: Eilers and Marx, "Flexible smoothing with B-splines and
penalties", Statistical Science 11 (1996).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.bands import left_out_errors
from hermes_sim.calibration.device_file import error_mapping
from hermes_sim.calibration.fit import fit_error
from hermes_sim.core.whole_file import write_whole
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.hardware.residual import LARGEST_LOG_RATIO, Residuals, ResidualTable, encode

FloatArray = npt.NDArray[np.float64]

STRENGTHS: Final = (0.1, 0.5, 2.0, 8.0, 32.0)
"""Weight of the roughness of the table, in measurements per node."""
RIDGE_FRAC: Final = 0.02
"""Pull towards zero, as a share of that weight ..."""
SMALLEST_RIDGE: Final = 0.05
"""... and at least so much."""
NUM_FOLDS: Final = 4
NUM_ROUNDS: Final = 2
"""Of reweighting: from squares towards absolute errors."""
SMALLEST_ERROR: Final = 0.03
"""Below this absolute error, squares count."""
SUPPORT: Final = 0.5
"""Measurements, as interpolation weights add up, that a node needs to count as measured."""
NEEDED_GAIN_FRAC: Final = 0.02
"""A table stays only if it takes at least this share off the error of shapes it has not seen."""


def octave_knots(values: npt.ArrayLike, per_octave: float = 1.0) -> tuple[float, ...]:
    """Knots from the smallest to the largest value (at least 1), evenly spaced in log2, rounded to whole numbers."""
    positive = np.maximum(np.asarray(values, np.float64), 1.0)
    low, high = np.log2(positive.min()), np.log2(positive.max())
    count = max(int(np.ceil((high - low) * per_octave - 1e-9)), 0) + 1
    return tuple(float(knot) for knot in np.unique(np.round(2.0 ** np.linspace(low, high, count))))


def shape_folds(groups: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Fold of every row, the same for all rows of a group; scattered over the groups in their order."""
    _, number = np.unique(groups, return_inverse=True)
    scattered = number.ravel().astype(np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return np.asarray(scattered * np.uint64(NUM_FOLDS) >> np.uint64(32), np.int64)


def fit_residual(
    features: Mapping[str, npt.ArrayLike],
    log_ratio: npt.ArrayLike,
    axes: Mapping[str, Sequence[float]],
    groups: npt.ArrayLike,
    *,
    bridges: bool = False,
) -> ResidualTable | None:
    """Table of ln(measured / analytic) over `axes` (name -> knots); None where it would not help unseen shapes.

    features: a column for each axis. groups: shape of each row, as any number; rows of one shape are never on both
    sides of the cross-validation that chooses the strength of the smoothing and decides whether the table stays.
    bridges: nodes between two measured neighbours count as measured, where whole values of an axis were kept out.
    """
    knots = {name: tuple(float(knot) for knot in values) for name, values in axes.items()}
    whole = np.asarray(log_ratio, np.float64)
    ratio = np.clip(whole, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    design = _design([np.asarray(features[name], np.float64) for name in knots], list(knots.values()))
    rough = _roughness(list(knots.values()))
    folds = shape_folds(np.asarray(groups))
    before = float(np.abs(ratio).mean())
    left_out = [_cross_validated(design, ratio, rough, strength, folds) for strength in STRENGTHS]
    errors = [float(np.abs(ratio - found).mean()) for found in left_out]
    after = min(errors)
    if not after < (1.0 - NEEDED_GAIN_FRAC) * before:
        return None
    best = errors.index(after)
    values = _solve(design, ratio, rough, STRENGTHS[best])
    shape = tuple(len(one) for one in knots.values())
    has_data = (np.asarray(design.sum(axis=0)).ravel() >= SUPPORT).reshape(shape)
    if bridges:
        has_data = _bridged(has_data)
    return ResidualTable(
        axes=knots,
        values=encode(values.reshape(shape), has_data),
        num_points=len(ratio),
        before_frac=float(f"{min(before, 1.0):.4g}"),
        after_frac=float(f"{min(after, 1.0):.4g}"),
        left_out=fit_error(left_out_errors(whole - left_out[best], len(np.unique(groups)))),
    )


def _bridged(has_data: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The nodes with data, and those between two of them along any axis."""
    found = has_data.copy()
    for axis in range(has_data.ndim):
        along, out = np.moveaxis(has_data, axis, 0), np.moveaxis(found, axis, 0)
        out[1:-1] |= along[:-2] & along[2:]
    return found


def _design(columns: Sequence[FloatArray], knots: Sequence[Sequence[float]]) -> Any:
    """Sparse [num_points, num_nodes]: interpolation weights of every row, clamped to the outermost knots."""
    from scipy.sparse import csr_array

    num_points = len(columns[0])
    nodes, weights = np.zeros((num_points, 1), np.int64), np.ones((num_points, 1))
    for column, ends in zip(columns, knots, strict=True):
        position = np.log2(np.maximum(column, 1.0))
        at = np.log2(np.maximum(ends, 1.0))
        if len(at) == 1:
            continue
        below = np.clip(np.searchsorted(at, position, side="right") - 1, 0, len(at) - 2)
        above_frac = np.clip((position - at[below]) / (at[below + 1] - at[below]), 0.0, 1.0)
        nodes = np.concatenate([nodes * len(at) + below[:, None], nodes * len(at) + below[:, None] + 1], axis=1)
        weights = np.concatenate([weights * (1.0 - above_frac)[:, None], weights * above_frac[:, None]], axis=1)
    rows = np.repeat(np.arange(num_points), nodes.shape[1])
    size = int(np.prod([len(one) for one in knots]))
    return csr_array((weights.ravel(), (rows, nodes.ravel())), shape=(num_points, size))


def _roughness(knots: Sequence[Sequence[float]]) -> Any:
    """Sparse [num_nodes, num_nodes]: sum over neighbours of (difference)^2 per octave between them."""
    from scipy.sparse import coo_array

    index = np.arange(int(np.prod([len(one) for one in knots]))).reshape([len(one) for one in knots])
    rows, columns, values = [], [], []
    for axis, ends in enumerate(knots):
        for number, gap in enumerate(np.diff(np.log2(np.maximum(ends, 1.0)))):
            low, high = index.take(number, axis).ravel(), index.take(number + 1, axis).ravel()
            rows += [low, high, low, high]
            columns += [low, high, high, low]
            values += [np.full(len(low), sign / gap) for sign in (1.0, 1.0, -1.0, -1.0)]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))) if rows else None
    return coo_array(entries if entries else (index.size, index.size), shape=(index.size, index.size)).tocsr()


def _cross_validated(
    design: Any, ratio: FloatArray, rough: Any, strength: float, folds: npt.NDArray[np.int64]
) -> FloatArray:
    """Value of every row by a table without the fold of its shape; zero where one fold holds all rows."""
    found = np.zeros(len(ratio))
    for fold in range(NUM_FOLDS):
        out = folds == fold
        if not out.all() and out.any():
            found[out] = design[out] @ _solve(design[~out], ratio[~out], rough, strength)
    return found


def _solve(design: Any, ratio: FloatArray, rough: Any, strength: float) -> FloatArray:
    """Node values that minimise robust errors + strength x roughness + ridge (conjugate gradients)."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import cg

    ridge = max(RIDGE_FRAC * strength, SMALLEST_RIDGE)
    penalty = strength * rough + diags_array(np.full(rough.shape[0], ridge))
    weights = np.ones(len(ratio))
    values = np.zeros(rough.shape[0])
    for _ in range(NUM_ROUNDS):
        weighted = diags_array(weights) @ design
        normal = (design.T @ weighted + penalty).tocsr()
        scaling = diags_array(1.0 / normal.diagonal())
        values, _ = cg(normal, weighted.T @ ratio, x0=values, rtol=1e-5, maxiter=2000, M=scaling)
        weights = 1.0 / np.maximum(np.abs(ratio - design @ values), SMALLEST_ERROR)
        weights /= weights.mean()
    return np.asarray(values)


def write_residuals(path: Path, residuals: Residuals) -> None:
    """The file of a device's tables; none where there is no table."""
    if residuals.tables or residuals.experts:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, render_residuals(residuals))
    else:
        path.unlink(missing_ok=True)


def render_residuals(residuals: Residuals) -> str:
    """The file of a device's tables, one line of numbers a table."""
    lines = [
        f"device: {residuals.device}",
        "source:",
        f"  title: {residuals.source.title}",
        "  where: >-",
        f"    {residuals.source.where}",
        f"  kind: {residuals.source.kind}",
        "tables:" if residuals.tables else "tables: {}",
    ]
    for name, table in residuals.tables.items():
        lines += [f"  {name}:", "    axes:"]
        lines += [f"      {axis}: [{', '.join(f'{knot:g}' for knot in knots)}]" for axis, knots in table.axes.items()]
        lines += [f"    num_points: {table.num_points}"]
        lines += _scores(table)
        lines += [f'    values: "{table.values}"']
    lines += ["experts:"] if residuals.experts else []
    for name, curves in residuals.experts.items():
        lines += [f"  {name}:", f"    tokens: [{', '.join(f'{knot:g}' for knot in curves.tokens)}]"]
        lines += [f"    {key}: {getattr(curves, key):g}" for key in ("reach", "noise", "num_points")]
        lines += _scores(curves)
        lines += [f'    {key}: "{text}"' for key in ("layers", "uneven", "even") if (text := getattr(curves, key))]
    return "\n".join(lines) + "\n"


def _scores(table: ResidualTable | ExpertResidual) -> list[str]:
    """Errors by cross-validation, and those of corrected times on both sides of the split."""
    parts = [f"    {key}: {value:.4g}" for key in ("before_frac", "after_frac") if (value := getattr(table, key))]
    errors = ((key, getattr(table, key, None)) for key in ("left_out", "in_sample", "held_out"))
    return parts + [f"    {key}: {error_mapping(error)}" for key, error in errors if error]
