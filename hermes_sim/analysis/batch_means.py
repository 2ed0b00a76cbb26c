"""Intervals from one run, whose requests depend on one another: batch means, and percentiles through them.

Neighbours wait in the same line and share batches, so that n requests tell less than n independent ones, and the
textbook's s / sqrt(n) is far too narrow. Means of long batches of neighbours are nearly independent and normal.
Assumed is a run in steady state: the warm-up cut off, the load below what is served.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

from hermes_sim.analysis.quantiles import ordered_quantile
from hermes_sim.analysis.statistics import (
    CONFIDENCE,
    Estimate,
    FloatArray,
    standard_error,
    t_estimate,
    t_quantile,
    unknown,
)

NUM_BATCHES = (30, 20, 10)
"""Tried in turn. More than 30 gain next to nothing, fewer than 10 know their spread badly
(Schmeiser, Operations Research 30 (1982) 556-568)."""
LEAST_BATCH_SIZE = 5
INDEPENDENT = 1.2816
"""Von Neumann's ratio, standardised, that independent batches exceed once in ten times."""
MOST_CORRELATION = 0.9
"""Of neighbouring batches; what is estimated above it from ten of them is not known."""
NORMAL = 1.959964


def batch_means(values: FloatArray) -> Estimate:
    """Mean of a series in order of time, with Student's interval over means of batches of neighbours.

    As many batches of 30, 20 and 10 as show no correlation between neighbours by von Neumann's ratio (Fishman and
    Yarberry, INFORMS Journal on Computing 9 (1997) 296-310); what correlation is left in them widens the interval
    (`correlation_factor`). If even ten batches show one, the estimate says so. Unknown below 50 values.
    """
    if len(values) == 0:
        return unknown(math.nan)
    mean, means, is_correlated = float(values.mean()), np.empty(0), True
    for num in NUM_BATCHES:
        if is_correlated and len(values) >= num * LEAST_BATCH_SIZE:
            means = means_of_batches(values, num)
            is_correlated = von_neumann(means) > INDEPENDENT
    num = len(means)
    if num == 0:
        return unknown(mean, len(values))
    error = correlation_factor(means) * standard_error(means)
    return t_estimate(mean, error, num - 1, num, is_correlated=is_correlated)


def correlation_factor(means: FloatArray) -> float:
    """How much wider than of independent batches: sqrt((1 + r) / (1 - r)), r being the correlation of neighbours.

    r is estimated with its bias of -1/n for n independent batches taken out, and not below 0.
    Source: Tafazzoli and Wilson, Skart, IIE Transactions 43 (2011) 110-128.
    """
    centred = means - means.mean()
    squares = float((centred**2).sum())
    if squares == 0.0:
        return 1.0
    correlation = float((centred[1:] * centred[:-1]).sum()) / squares + 1.0 / len(means)
    correlation = min(max(correlation, 0.0), MOST_CORRELATION)
    return math.sqrt((1.0 + correlation) / (1.0 - correlation))


def means_of_batches(values: FloatArray, num: int) -> FloatArray:
    """[num] means of neighbours; the batches differ in size by one at most."""
    edges = np.linspace(0, len(values), num + 1).astype(np.int64)
    sums: FloatArray = np.add.reduceat(values, edges[:-1])
    means: FloatArray = sums / np.diff(edges)
    return means


def von_neumann(means: FloatArray) -> float:
    """Correlation of neighbours: standard normal where there is none, large where it is positive.

    1 - sum of squared steps / (2 x sum of squared deviations), over its standard deviation sqrt((n - 2) / (n**2 - 1)).
    Source: von Neumann, Annals of Mathematical Statistics 12 (1941) 367-395.
    """
    deviations = float(((means - means.mean()) ** 2).sum())
    if deviations == 0.0:
        return 0.0
    num = len(means)
    ratio = 1.0 - float((np.diff(means) ** 2).sum()) / (2.0 * deviations)
    return ratio / math.sqrt((num - 2) / (num**2 - 1))


def quantile_of_series(values: FloatArray, fraction: float, ordered: FloatArray | None = None) -> Estimate:
    """Quantile of a series in order of time, with an interval of two of its order statistics.

    Of n independent values, those whose ranks a binomial(n, fraction) number stays between are the interval. Of
    dependent ones n is replaced by the number of independent ones that would know the share below the quantile as
    well, which batch means of the indicator tell, lessened for what so few batches do not know.
    Sources: David and Nagaraja, Order Statistics, 7.1; Woodruff, JASA 47 (1952) 635-646; Heidelberger and Lewis,
    Operations Research 32 (1984) 185-209, for dependent series. Unknown where a rank falls off the sample.
    ordered: the values in ascending order, where they are at hand.
    """
    ordered = np.sort(values) if ordered is None else ordered
    value = ordered_quantile(ordered, fraction)
    if math.isnan(value) or math.isinf(value):
        return unknown(value, len(values))
    share = batch_means((values <= value).astype(np.float64))
    if not share.is_known:
        return unknown(value, len(values))
    num = float(len(values))
    if share.standard_error > 0.0:
        num = min(num, fraction * (1.0 - fraction) / share.standard_error**2)
    num *= (NORMAL / t_quantile(share.degrees)) ** 2
    return _between_ranks(ordered, fraction, num, share)


def _between_ranks(ordered: FloatArray, fraction: float, num_independent: float, share: Estimate) -> Estimate:
    """Between the order statistics that stand for the ranks of so many independent values. share: of the values below
    the quantile."""
    value = ordered_quantile(ordered, fraction)
    below, above = binomial_ranks(math.floor(num_independent), fraction)
    if below < 1 or above > math.floor(num_independent):
        return unknown(value, len(ordered))
    scale = len(ordered) / math.floor(num_independent)
    low = float(ordered[max(math.floor(below * scale) - 1, 0)])
    high = float(ordered[min(math.ceil(above * scale) - 1, len(ordered) - 1)])
    error = (high - low) / 2.0 / t_quantile(share.degrees)
    return Estimate(value, low, high, error, share.degrees, share.num, share.is_correlated)


def binomial_ranks(num: int, fraction: float) -> tuple[int, int]:
    """Ranks from 1 of the two order statistics that hold the quantile between them with 95% chance at least; 0, or
    num + 1, where there is none on that side."""
    from scipy.special import bdtr

    def num_below(share: float) -> int:
        """Smallest count that a binomial number does not exceed with this chance."""
        return bisect_left(range(num), share, key=lambda count: float(bdtr(count, num, fraction)))

    tail = (1.0 - CONFIDENCE) / 2.0
    return num_below(tail), num_below(1.0 - tail) + 1
