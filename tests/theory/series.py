"""Series in steady state whose mean is known, many at once."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def autoregressive(rng: np.random.Generator, num_series: int, num: int, correlation: float) -> FloatArray:
    """[num_series, num] of AR(1): mean 0, standard deviation 1, neighbours correlated by so much."""
    series = rng.normal(size=(num, num_series))
    series[1:] *= math.sqrt(1.0 - correlation**2)
    for index in range(1, num):
        series[index] += correlation * series[index - 1]
    return np.ascontiguousarray(series.T)


def waits_mm1(rng: np.random.Generator, num_series: int, num: int, load: float) -> FloatArray:
    """[num_series, num] waits at a single server, mean service 1, Poisson arrivals; the first drawn from the law of
    all. Mean load / (1 - load). Lindley's recursion as a reflected random walk."""
    steps = rng.exponential(1.0, (num_series, num - 1)) - rng.exponential(1.0 / load, (num_series, num - 1))
    first = np.where(rng.random(num_series) < load, rng.exponential(1.0 / (1.0 - load), num_series), 0.0)
    walk = np.cumsum(np.concatenate([first[:, None], steps], axis=1), axis=1)
    waits: FloatArray = walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0.0)
    return waits
