"""Better coefficients of one device from a few measured points, starting from what its class or its file says.

Ten points cannot carry a dozen coefficients. So the coefficients are pulled back to where they start (ridge regression:
Hoerl and Kennard 1970), and how strongly is chosen by the error on points left out (leave-one-out, Stone 1974;
ten-fold beyond thirty points). If no strength beats leaving all as it is, all stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, round_to_bounds, summarize

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Predict = Callable[[dict[str, float], IntArray], FloatArray]
"""Coefficients, row numbers -> seconds of those rows."""

STRENGTHS: Final = (0.1, 0.3, 1.0)
"""Prior spreads of a coefficient, in shares of where it starts: from hardly movable to free."""

ERROR_SCALE: Final = 0.1
"""Relative error of a point that counts as large: beyond it the loss grows linearly (soft L1)."""

INSIDE: Final = 0.03
"""A search that starts on a bound does not leave it: as far inside, in shares of where a coefficient starts."""

MOST_FOLDS: Final = 30
FOLDS_OF_MANY: Final = 10
MOST_EVALUATIONS: Final = 15


@dataclass(frozen=True, slots=True)
class FewPointsFit:
    """What the points say."""

    values: dict[str, float]
    """Coefficients, four digits; where they started if nothing was better."""
    spread: float | None
    """Chosen prior spread; None where the coefficients stay as they were."""
    before: ErrorSummary
    """Error of the coefficients as they were."""
    left_out: ErrorSummary
    """Error on each point with coefficients fitted to the others."""
    after: ErrorSummary
    """Error on the points that were fitted."""


def fit_few_points(
    coefficients: Sequence[Coefficient], start: dict[str, float], predict: Predict, measured_s: FloatArray
) -> FewPointsFit:
    """Coefficients pulled towards `start` as strongly as leave-one-out wants it.

    Deterministic. ValueError with fewer than three points: nothing could be left out.
    """
    num_points = len(measured_s)
    if num_points < 3:
        raise ValueError(f"{num_points} points are too few to leave any out: three are the least")
    everything = np.arange(num_points)
    before_s = predict(start, everything)
    folds = _folds(num_points)
    chosen, left_out_s = None, before_s
    best = _loss(before_s, measured_s)
    for spread in STRENGTHS:
        predicted_s = np.empty(num_points)
        for fold in folds:
            others = np.setdiff1d(everything, fold)
            values = _fit(coefficients, start, predict, measured_s, others, spread)
            predicted_s[fold] = predict(values, fold)
        if (loss := _loss(predicted_s, measured_s)) < best:
            best, chosen, left_out_s = loss, spread, predicted_s
    values = start if chosen is None else _fit(coefficients, start, predict, measured_s, everything, chosen)
    return FewPointsFit(
        values=values,
        spread=chosen,
        before=summarize(before_s, measured_s),
        left_out=summarize(left_out_s, measured_s),
        after=summarize(predict(values, everything), measured_s),
    )


def _folds(num_points: int) -> list[IntArray]:
    """Rows left out together: each alone, or every tenth of many."""
    if num_points <= MOST_FOLDS:
        return [np.array([row]) for row in range(num_points)]
    return [np.arange(first, num_points, FOLDS_OF_MANY) for first in range(FOLDS_OF_MANY)]


def _loss(predicted_s: FloatArray, measured_s: FloatArray) -> float:
    """Mean absolute error of log time: one far point does not decide."""
    return float(np.abs(np.log(predicted_s / measured_s)).mean())


def _fit(
    coefficients: Sequence[Coefficient],
    start: dict[str, float],
    predict: Predict,
    measured_s: FloatArray,
    rows: IntArray,
    spread: float,
) -> dict[str, float]:
    """Penalised robust least squares of log time over some rows."""
    from scipy.optimize import least_squares

    first = np.array([start[c.name] for c in coefficients])
    unit = np.maximum(np.abs(first), [0.1 * c.scale for c in coefficients])
    lower = (np.array([c.lower for c in coefficients]) - first) / unit
    upper = (np.array([c.upper for c in coefficients]) - first) / unit
    measured = measured_s[rows]

    def values_at(moves: FloatArray) -> dict[str, float]:
        found = np.clip(first + moves * unit, [c.lower for c in coefficients], [c.upper for c in coefficients])
        return start | {c.name: float(value) for c, value in zip(coefficients, found, strict=True)}

    def residuals(moves: FloatArray) -> FloatArray:
        errors = np.log(predict(values_at(moves), rows) / measured) / ERROR_SCALE
        robust = np.sign(errors) * np.sqrt(2.0 * (np.sqrt(1.0 + errors**2) - 1.0))
        return np.concatenate([robust, moves / spread])

    margin = np.minimum(INSIDE, 0.25 * (upper - lower))
    fit = least_squares(
        residuals,
        np.clip(np.zeros(len(first)), lower + margin, upper - margin),
        bounds=(lower, upper),
        diff_step=np.full(len(first), 1e-3),
        max_nfev=MOST_EVALUATIONS,
    )
    found = values_at(fit.x)
    return found | {c.name: round_to_bounds(found[c.name], c) for c in coefficients}
