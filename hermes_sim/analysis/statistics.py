"""What may be said about numbers that chance has a part in: estimates with intervals, differences, many at once.

Replications (runs with other seeds) are independent of one another; requests of one run are not, and
analysis/batch_means.py is for those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
LEVEL = 1.0 - CONFIDENCE
"""Of a test: the chance to see a difference where there is none."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the interval that holds the true one in 95 of 100 runs; NaN where nothing can be said."""

    value: float
    low: float
    high: float
    standard_error: float
    degrees: float
    """Of freedom of the standard error."""
    num: int
    """Batches, or replications, that it rests on."""
    is_correlated: bool = False
    """Even the longest batches depended on each other: the run is too short, the interval a guess."""

    @property
    def half_width_95(self) -> float:
        return (self.high - self.low) / 2.0

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, slots=True)
class Difference:
    """A second mean minus a first, with what chance allows; NaN where nothing can be said."""

    mean: float
    half_width_95: float
    p_value: float
    """Chance of a difference as large where there is none; two-sided."""
    num: int
    """Pairs, or values on both sides."""
    is_correlated: bool = False
    """As of Estimate."""

    @property
    def significant(self) -> bool | None:
        """On its own, at 5%; of several see `holm`. None where nothing can be said."""
        return None if math.isnan(self.p_value) else self.p_value < LEVEL


def t_quantile(degrees: float) -> float:
    """Student's t that 95% of draws stay within, on both sides together."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1.0 + CONFIDENCE) / 2.0))


def t_estimate(
    value: float, standard_error: float, degrees: float, num: int, *, is_correlated: bool = False
) -> Estimate:
    """Student's interval around a value."""
    half_width = t_quantile(degrees) * standard_error if degrees > 0 else math.nan
    return Estimate(value, value - half_width, value + half_width, standard_error, degrees, num, is_correlated)


def unknown(value: float, num: int = 0) -> Estimate:
    """A value about which too little is known for an interval."""
    return Estimate(value, math.nan, math.nan, math.nan, math.nan, num)


def mean_of_replications(values: FloatArray) -> Estimate:
    """Mean of independent values, one a seed: Student's t with n - 1 degrees of freedom. No interval of one value."""
    num = len(values)
    if num == 0:
        return unknown(math.nan)
    mean = float(values.mean())
    if num == 1 or math.isnan(mean):
        return unknown(mean, num)
    return t_estimate(mean, standard_error(values), num - 1, num)


def standard_error(values: FloatArray) -> float:
    """Of the mean of two independent values or more; exactly 0 of equal ones, whatever their mean is rounded to."""
    spread = 0.0 if values.min() == values.max() else float(values.std(ddof=1))
    return spread / math.sqrt(len(values))


def paired_difference(first: FloatArray, second: FloatArray) -> Difference:
    """Mean of second - first over independent pairs: the same seeds in both (common random numbers).

    What the seeds do to both alike cancels, so that far smaller differences show than between unpaired runs. Student's
    t of the differences. Source: Law, Simulation Modeling and Analysis, 5th ed., 10.2.1 and 11.2.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need as many values on both sides, got {len(first)} and {len(second)}")
    return difference_from(mean_of_replications(second - first))


def welch_difference(first: Estimate, second: Estimate) -> Difference:
    """Second - first of two independent estimates whose variances may differ.

    Degrees of freedom after Welch-Satterthwaite. Source: Welch, Biometrika 34 (1947) 28-35.
    """
    mean, num = second.value - first.value, first.num + second.num
    variances = (first.standard_error**2, second.standard_error**2)
    if not all(math.isfinite(value) for value in (mean, *variances)):
        return Difference(mean, math.nan, math.nan, num)
    total = sum(variances)
    parts = (variance**2 / one.degrees for variance, one in zip(variances, (first, second), strict=True))
    degrees = total**2 / sum(parts) if total > 0.0 else math.inf
    is_correlated = first.is_correlated or second.is_correlated
    return difference_from(t_estimate(mean, math.sqrt(total), degrees, num, is_correlated=is_correlated))


def difference_from(estimate: Estimate) -> Difference:
    """The difference that an estimate of one is: tested against none."""
    return Difference(
        estimate.value, estimate.half_width_95, _p_value(estimate), estimate.num, is_correlated=estimate.is_correlated
    )


def _p_value(estimate: Estimate) -> float:
    from scipy.special import ndtr, stdtr

    if not estimate.is_known:
        return math.nan
    if estimate.standard_error == 0.0:
        return 1.0 if estimate.value == 0.0 else 0.0
    ratio = -abs(estimate.value) / estimate.standard_error
    return 2.0 * float(stdtr(estimate.degrees, ratio) if math.isfinite(estimate.degrees) else ndtr(ratio))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, raised so that the chance of any false one among them stays below the level.

    The smallest is held against all tests, the next against one less, and so on; NaN is no test.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    tests = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    raised = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(tests):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        raised[index] = highest
    return raised
