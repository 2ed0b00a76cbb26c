"""How many visits wait, run and are preempted over time, from the moments of the visits themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hermes_sim.state.arrays import EngineArrays

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


ROWS_AT_A_TIME = 1 << 17
"""Rows looked at together: enough to be quick, few enough to need little memory."""


class MeanNumbers(NamedTuple):
    """[num_engines, num_intervals] means over each interval."""

    num_waiting: FloatArray
    """Arrived, in no step yet."""
    num_running: FloatArray
    """Between first and last step, and not preempted."""
    num_preempted: FloatArray
    """Waiting to go on after a preemption."""


def mean_numbers(state: EngineArrays, edges_s: FloatArray) -> MeanNumbers:
    """Exact integrals of the numbers of visits and samples at each engine, over equal intervals.

    Only how long a visit was preempted is known, not when: that time is spread evenly between its first step and its
    end. Its integral over the run is exact, as are those of the other two.
    """
    integrals_s = np.zeros((3, len(state.num_steps), len(edges_s) - 1))
    for first in range(0, len(state.row_engine), ROWS_AT_A_TIME):
        integrals_s += integrals_of(state, slice(first, first + ROWS_AT_A_TIME), edges_s)
    means = np.maximum(integrals_s, 0.0) / np.diff(edges_s)
    return MeanNumbers(*means)


def integrals_of(state: EngineArrays, rows: slice, edges_s: FloatArray) -> FloatArray:
    """[3, num_engines, num_intervals] what some of the rows add to the integrals: waiting, running, preempted."""
    num_engines = len(state.num_steps)
    engine, arrival_s, start_s = state.row_engine[rows], state.row_arrival_s[rows], state.row_start_s[rows]
    finish_s, preempted_s = state.row_finish_s[rows], state.row_preempted_s[rows]
    placed = (engine >= 0) & ~np.isnan(finish_s) & ~np.isnan(start_s)
    if not placed.all():
        engine, arrival_s, start_s, finish_s, preempted_s = (
            values[placed] for values in (engine, arrival_s, start_s, finish_s, preempted_s)
        )
    joined, started, left = (
        integral_of_passed(times_s, engine, edges_s, num_engines) for times_s in (arrival_s, start_s, finish_s)
    )
    preempted = np.zeros_like(joined)
    stopped = (preempted_s > 0.0) & (finish_s > start_s)
    if stopped.any():
        rate = preempted_s[stopped] / (finish_s - start_s)[stopped]
        for times_s, sign in ((start_s, 1.0), (finish_s, -1.0)):
            preempted += sign * integral_of_passed(times_s[stopped], engine[stopped], edges_s, num_engines, rate)
    return np.stack((joined - started, started - left - preempted, preempted))


def integral_of_passed(
    times_s: FloatArray, engine: IntArray, edges_s: FloatArray, num_engines: int, weights: FloatArray | None = None
) -> FloatArray:
    """[num_engines, num_intervals] integral over each interval of the (weighted) number of moments that have passed.

    A moment adds what is left of its own interval after it, and the whole of every later one. edges_s: from 0, equal
    intervals, but for the last.
    """
    num_intervals = len(edges_s) - 1
    if num_intervals == 0:
        return np.zeros((num_engines, 0))
    place = np.minimum((times_s / edges_s[1]).astype(np.int64), num_intervals - 1)
    cell = engine * np.int64(num_intervals) + place
    left_s = edges_s[place + 1] - times_s
    if weights is not None:
        left_s = left_s * weights
    cells = num_engines * num_intervals
    own_s = np.bincount(cell, left_s, minlength=cells).reshape(num_engines, num_intervals)
    number = np.bincount(cell, weights, minlength=cells).reshape(num_engines, num_intervals)
    before = np.cumsum(number, axis=1) - number
    integral_s: FloatArray = own_s + before * np.diff(edges_s)
    return integral_s
