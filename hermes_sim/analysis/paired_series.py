"""The same requests in two runs: how much their means and percentiles differ, pair by pair.

What long prompts and bursts do to both runs cancels in the differences. Pairs depend on their neighbours in time.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np

from hermes_sim.analysis.batch_means import (
    INDEPENDENT,
    NORMAL,
    batch_means,
    correlation_factor,
    von_neumann,
)
from hermes_sim.analysis.quantiles import NUM_BEYOND, ordered_quantile, quantile
from hermes_sim.analysis.statistics import Difference, Estimate, FloatArray, difference_from, t_estimate

NUM_SECTIONS: Final = 10
SAME: Final = Difference(0.0, 0.0, 1.0, 0)


def series_difference(first: FloatArray, second: FloatArray) -> Difference:
    """Mean of second - first over pairs in order of time: batch means of the differences."""
    _require_pairs(first, second)
    if np.array_equal(first, second):
        return replace(SAME, num=len(first))
    return difference_from(replace(batch_means(second - first), num=len(first)))


def quantile_difference(first: FloatArray, second: FloatArray, fraction: float) -> Difference:
    """Quantile of second - that of first over pairs in order of time.

    By sectioning where ten sections have ten values beyond the quantile each, else by linearising; unknown where all
    pairs together have fewer than ten beyond it.
    """
    _require_pairs(first, second)
    if np.array_equal(first, second):
        return replace(SAME, num=len(first))
    num_beyond = round(len(first) * min(fraction, 1.0 - fraction), 6)
    whole = quantile(second, fraction) - quantile(first, fraction)
    if num_beyond < NUM_BEYOND or not math.isfinite(whole):
        return Difference(whole, math.nan, math.nan, len(first))
    way = _by_sections if num_beyond >= NUM_SECTIONS * NUM_BEYOND else _linearised
    return difference_from(replace(way(first, second, fraction, whole), num=len(first)))


def _require_pairs(first: FloatArray, second: FloatArray) -> None:
    if len(first) != len(second):
        raise ValueError(f"pairs need as many values on both sides, got {len(first)} and {len(second)}")


def _by_sections(first: FloatArray, second: FloatArray, fraction: float, whole: float) -> Estimate:
    """The spread of the differences of ten sections of neighbours around that of the whole series.

    Sources: Asmussen and Glynn, Stochastic Simulation, III.5a; Nakayama, ACM TOMACS 24 (2014) 19.
    """
    edges = np.linspace(0, len(first), NUM_SECTIONS + 1).astype(np.int64)[1:-1]
    sections = zip(np.split(first, edges), np.split(second, edges), strict=True)
    differences = np.array([quantile(b, fraction) - quantile(a, fraction) for a, b in sections])
    spread = math.sqrt(float(((differences - whole) ** 2).sum()) / (NUM_SECTIONS - 1))
    standard_error = correlation_factor(differences) * spread / math.sqrt(NUM_SECTIONS)
    is_correlated = von_neumann(differences) > INDEPENDENT
    return t_estimate(whole, standard_error, NUM_SECTIONS - 1, NUM_SECTIONS, is_correlated=is_correlated)


def _linearised(first: FloatArray, second: FloatArray, fraction: float, whole: float) -> Estimate:
    """Batch means of what each pair moves the difference by, to first order.

    Bahadur, Annals of Mathematical Statistics 37 (1966) 577-580: a sample quantile is the true one plus the mean of
    (fraction - [value below it]) / density there. A section with a value or two beyond the quantile would not show
    its spread.
    """
    moved = _influence(second, fraction) - _influence(first, fraction)
    spread = batch_means(moved)
    return t_estimate(whole, spread.standard_error, spread.degrees, spread.num, is_correlated=spread.is_correlated)


def _influence(values: FloatArray, fraction: float) -> FloatArray:
    """[num] (fraction - [value <= quantile]) / density; 1 / density from order statistics around the quantile.

    Siddiqui's estimate with the bandwidth of Hall and Sheather, Journal of the Royal Statistical Society B 50 (1988)
    381-391, for intervals of 95%, its optimum taken as that of a normal law.
    """
    from scipy.special import ndtri

    ordered, z = np.sort(values), float(ndtri(fraction))
    density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    curvature = 1.5 * density**2 / (2.0 * z * z + 1.0)
    width = len(values) ** (-1 / 3) * NORMAL ** (2 / 3) * curvature ** (1 / 3)
    low, high = max(fraction - width, 0.0), min(fraction + width, 1.0)
    sparsity = (ordered_quantile(ordered, high) - ordered_quantile(ordered, low)) / (high - low)
    influence: FloatArray = sparsity * (fraction - (values <= ordered_quantile(ordered, fraction)))
    return influence
