"""Bands that hold nine measurements in ten of shapes nobody fitted: conformal, from errors on shapes left out in turn.

Source: Barber, Candes, Ramdas, Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics 49 (2021),
CV+; rows of one shape are alike, so shapes rather than rows are what is counted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.calibration.fit import ErrorSummary, summarize

FloatArray = npt.NDArray[np.float64]

TAIL_FRAC: Final = 0.05
"""Measurements below the band, and as many above it."""


def conformal_band(log_errors: npt.ArrayLike, num_shapes: int) -> tuple[float, float]:
    """Measured over predicted: lower and upper end of the 90% band.

    log_errors: ln(measured / predicted), each from a fit without the row's shape. num_shapes: how many shapes the rows
    are of; few of them widen the band, as one more shape is drawn from so many.
    """
    errors = np.asarray(log_errors, np.float64)
    level = min((1.0 - TAIL_FRAC) * (1.0 + 1.0 / num_shapes), 1.0)
    return float(np.exp(np.quantile(errors, 1.0 - level))), float(np.exp(np.quantile(errors, level)))


def left_out_errors(log_errors: npt.ArrayLike, num_shapes: int) -> ErrorSummary:
    """Errors on shapes left out in turn, with the conformal band; arguments as above."""
    ratios = np.exp(np.asarray(log_errors, np.float64))
    low_frac, high_frac = conformal_band(log_errors, num_shapes)
    return replace(summarize(1.0 / ratios, np.ones(len(ratios))), low_frac=low_frac, high_frac=high_frac)
