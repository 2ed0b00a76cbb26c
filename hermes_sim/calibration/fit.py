"""Bounded robust fit of a few coefficients, the split into fitted and held-out shapes, and the error on both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.fit_error import FitError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NUM_FITTED_POINTS = 4000
"""A table is thinned to about as many rows for the fit; errors are reported over all rows."""

MOST_SIMULATED: Final = 12
"""Steps of a fit by secants."""

SMALLEST_GAIN: Final = 1e-3
"""Smaller relative gains are chance where a simulation predicts."""

TOLERANCE: Final = 1e-8
"""The same where `predict` is smooth: SciPy's own."""


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One number to fit, with the bounds that physics sets."""

    name: str
    start: float
    lower: float
    upper: float
    scale: float = 1.0
    """Order of magnitude, so that the optimiser's steps are alike."""


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Absolute percentage errors |predicted - measured| / measured, as fractions."""

    median_frac: float
    mean_frac: float
    p90_frac: float
    bias_frac: float
    """Mean of predicted / measured - 1."""
    num_points: int
    low_frac: float
    """Measured over predicted: its 5% quantile, and ..."""
    high_frac: float
    """... its 95% quantile. Nine measurements in ten lie between predicted x low and predicted x high."""


def summarize(predicted_s: FloatArray, measured_s: FloatArray) -> ErrorSummary:
    """Errors of one set of rows."""
    signed = predicted_s / measured_s - 1.0
    absolute = np.abs(signed)
    return ErrorSummary(
        median_frac=float(np.median(absolute)),
        mean_frac=float(absolute.mean()),
        p90_frac=float(np.quantile(absolute, 0.9)),
        bias_frac=float(signed.mean()),
        num_points=len(absolute),
        low_frac=float(np.quantile(measured_s / predicted_s, 0.05)),
        high_frac=float(np.quantile(measured_s / predicted_s, 0.95)),
    )


def fit_error(summary: ErrorSummary) -> FitError:
    """What a device file keeps of an error summary, four digits."""
    return FitError(
        median_frac=float(f"{summary.median_frac:.4g}"),
        mean_frac=float(f"{summary.mean_frac:.4g}"),
        bias_frac=float(f"{summary.bias_frac:.3f}") + 0.0,  # no negative zero
        num_points=summary.num_points,
        p90_frac=float(f"{summary.p90_frac:.4g}"),
        low_frac=float(f"{summary.low_frac:.4g}"),
        high_frac=float(f"{summary.high_frac:.4g}"),
    )


def fit_coefficients(
    coefficients: Sequence[Coefficient],
    predict: Callable[[dict[str, float]], FloatArray],
    measured_s: FloatArray,
    *,
    num_starts: int = 2,
    relative_step: float = 1e-3,
    secants: bool = False,
) -> dict[str, float]:
    """Coefficients that minimise the robust (soft-L1) error of log time, rounded to four digits.

    Deterministic: one or two fixed starts, no randomness. `predict` gives seconds for the rows of `measured_s`.
    relative_step: of the finite differences. secants: they are as wide as each coefficient's scale instead, for a
    `predict` that is not smooth, such as a simulation.
    """
    from scipy.optimize import least_squares

    scale = np.array([c.scale for c in coefficients])
    lower = np.array([c.lower for c in coefficients]) / scale
    upper = np.array([c.upper for c in coefficients]) / scale
    start = np.array([c.start for c in coefficients]) / scale
    names = [c.name for c in coefficients]

    def residuals(values: FloatArray) -> FloatArray:
        return np.asarray(np.log(predict(dict(zip(names, (values * scale).tolist(), strict=True))) / measured_s))

    def slopes(values: FloatArray) -> FloatArray:
        """[num_rows, num_coefficients] each over one scale, inwards where the upper bound is near."""
        at = residuals(values)
        widths = np.where(values + 1.0 <= upper, 1.0, -1.0)
        return np.stack([(residuals(values + one) - at) / one.sum() for one in np.diag(widths)], axis=1)

    fits = [
        least_squares(
            residuals,
            np.clip(first, lower + 1e-9, upper - 1e-9),
            bounds=(lower, upper),
            loss="soft_l1",
            f_scale=0.1,
            jac=slopes if secants else "2-point",
            diff_step=None if secants else np.full(len(start), relative_step),
            max_nfev=MOST_SIMULATED if secants else 40,
            ftol=SMALLEST_GAIN if secants else TOLERANCE,
            xtol=SMALLEST_GAIN if secants else TOLERANCE,
        )
        for first in (start, 0.75 * start + 0.25 * upper)[:num_starts]
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    return {c.name: round_to_bounds(value, c) for c, value in zip(coefficients, best.x * scale, strict=True)}


def round_to_bounds(value: float, coefficient: Coefficient) -> float:
    """Four significant digits, still within the bounds; what is a thousandth of its magnitude or less is 0."""
    if abs(value) < 1e-3 * coefficient.scale and coefficient.lower <= 0.0:
        return 0.0
    return min(max(float(f"{value:.4g}"), coefficient.lower), coefficient.upper)


def thin(fitted: BoolArray) -> BoolArray:
    """About NUM_FITTED_POINTS of the fitted rows, scattered over the table.

    Multiplicative hashing of the row number (Knuth, TAOCP 3, 6.4): a fixed stride would fall in step with the columns.
    """
    scattered = np.arange(len(fitted), dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return np.asarray(fitted & (scattered < (1 << 32) * min(NUM_FITTED_POINTS / max(fitted.sum(), 1), 1.0)))
