"""Where the warm-up of a run ends: MSER-5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_sim.analysis.batch_means import means_of_batches
from hermes_sim.analysis.statistics import FloatArray

BATCH_SIZE = 5
LEAST_BATCHES = 20
"""Fewer tell no warm-up from chance."""
LEAST_REMAINING = 5
"""Batches: a mean of fewer at the end has a small error by chance."""

ROUNDING = 1e-12
"""Share of the error of the whole: less is none, as behind a cut that leaves equal values."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """What MSER-5 says of a series."""

    num_cut: int
    """Values of the warm-up, a multiple of five; 0 where there is no steady state."""
    is_steady: bool | None
    """False: the best cut lies in the later half, so that the series has not settled. None: too short to tell."""


def mser5(values: FloatArray) -> Truncation:
    """The cut behind which the mean is known best: the smallest marginal standard error of what is left.

    Means of batches of five; MSER(d) = sum of squared deviations behind d / (n - d)**2. A cut gains by leaving out what
    is unlike the rest and loses by leaving less. A best cut in the later half is no answer: more of the run is unlike
    its end than like it.
    Sources: White, Simulation 69 (1997) 323-334; White, Cobb and Spratt, Winter Simulation Conference 2000, 755;
    Franklin and White, ibid. 2008, 541-546.
    """
    num = len(values) // BATCH_SIZE
    if num < LEAST_BATCHES:
        return Truncation(0, None)
    means = means_of_batches(values[: num * BATCH_SIZE], num)
    errors = marginal_errors(means)[: num - LEAST_REMAINING + 1]
    best = int(np.argmax(errors <= errors.min() + ROUNDING * errors[0]))
    return Truncation(best * BATCH_SIZE, True) if best <= num // 2 else Truncation(0, False)


def marginal_errors(means: FloatArray) -> FloatArray:
    """[num] squared marginal standard error of the mean of what is left behind the first 0, 1, 2, ... values."""
    centred = means - means.mean()
    left = np.arange(len(means), 0, -1)
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum(centred[::-1] ** 2)[::-1]
    errors: FloatArray = np.maximum(squares - sums**2 / left, 0.0) / left**2
    return errors
