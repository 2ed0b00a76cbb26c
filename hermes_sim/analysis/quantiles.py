"""Percentiles: of values, and of a histogram."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
"""The ones a summary shows."""

NUM_BEYOND = 10
"""A percentile is trusted if so many values are expected beyond it: their count is then known to about a third
(standard deviation sqrt(10) of 10), and the 95% interval of the order statistic lies well inside the sample."""


def quantile(values: FloatArray, fraction: float) -> float:
    """Quantile by linear interpolation between order statistics (numpy's and vLLM's default); NaN of nothing.

    Infinite values count as larger than all others, so that a failed request can stand for "too late".
    """
    return ordered_quantile(np.sort(values), fraction)


def ordered_quantile(ordered: FloatArray, fraction: float) -> float:
    """The same of values in ascending order."""
    if len(ordered) == 0:
        return math.nan
    position = (len(ordered) - 1) * fraction
    below = int(position)
    weight = position - below
    if weight == 0.0:
        return float(ordered[below])
    if math.isinf(ordered[below + 1]):
        return math.inf
    return float(ordered[below] + weight * (ordered[below + 1] - ordered[below]))


def statistic(values: FloatArray, name: str) -> float:
    """`mean` or a percentile by its name (`p99`, `p99.9`); NaN of nothing."""
    if name == "mean":
        return float(values.mean()) if len(values) else math.nan
    return quantile(values, fraction_of(name))


def fraction_of(percentile: str) -> float:
    """`p99` -> 0.99."""
    match = re.fullmatch(r"p(\d+(?:\.\d+)?)", percentile)
    if match is None:
        raise ValueError(f"{percentile!r} is not a percentile (p50, p90, p99, ...)")
    return float(match[1]) / 100.0


def num_values_needed(fraction: float) -> int:
    """Sample size from which a percentile has NUM_BEYOND values beyond it, on its smaller side."""
    return math.ceil(round(NUM_BEYOND / min(fraction, 1.0 - fraction), 6))


def histogram_quantile(edges: FloatArray, counts: npt.NDArray[np.int64], fraction: float) -> tuple[float, float]:
    """Quantile of a histogram and its error bound: (value, width of its bin).

    edges: [num_bins + 1] ascending; counts: [num_bins]. Values are taken as evenly spread inside a bin, so the true
    quantile differs by less than the width of the bin. (NaN, NaN) of an empty histogram; in an open last bin its
    lower edge, with an infinite width.
    """
    total = int(counts.sum())
    if total == 0:
        return math.nan, math.nan
    cumulative = np.cumsum(counts)
    rank = fraction * total
    index = int(np.searchsorted(cumulative, rank, side="left"))
    while counts[index] == 0:
        index += 1
    width = float(edges[index + 1] - edges[index])
    if math.isinf(width):
        return float(edges[index]), width
    inside = (rank - (cumulative[index] - counts[index])) / counts[index]
    return float(edges[index] + max(inside, 0.0) * width), width
