"""`workload.measure.warm_up: auto`: how many requests met a machine that had not settled yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hermes_sim.analysis.findings import SATURATED, saturated
from hermes_sim.analysis.frames import FloatArray, floats, is_finished
from hermes_sim.analysis.truncation import mser5
from hermes_sim.scenario.measure import Measure
from hermes_sim.scenario.window import MeasuredWindow, measured_window

LEAST_S = 1e-9
"""Shorter latencies are none; their logarithm would outweigh all others."""
INSIDE = "requests inside"


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What was cut off the beginning of a run, and what decided it."""

    num_requests: int
    time_s: float
    """From the first arrival to the first that is measured."""
    decided_by: str | None
    """The series that settles last; where there is no steady state, the one that does not; None if all were settled
    from the start, or too short to tell."""
    is_steady: bool | None
    """None: too few requests to tell."""


def run_window(
    requests: pd.DataFrame, visits: pd.DataFrame, duration_s: float, measure: Measure
) -> tuple[MeasuredWindow, WarmUp | None]:
    """The measured window of a run that is over, and the warm-up that was found where the workload asks for it."""
    arrival_s = floats(requests, "arrival_s")
    if not measure.warm_up.is_automatic:
        return measured_window(arrival_s, duration_s, measure), None
    found = find_warm_up(requests, visits)
    return measured_window(arrival_s, duration_s, measure, found.num_requests), found


def find_warm_up(requests: pd.DataFrame, visits: pd.DataFrame) -> WarmUp:
    """The latest cut of MSER-5 over TTFT, E2E, and the number of requests inside at each arrival.

    Latencies are taken as logarithms: they spread over orders of magnitude, and one long answer would decide the cut.
    They must settle in the first half of the run, and the queues must not grow to its end; else there is no steady
    state, and nothing is cut. The number inside shows best how a machine fills up, but in bursts it swings for longer
    than any warm-up: it may lengthen the cut, not forbid it.
    """
    arrived = requests[np.isfinite(floats(requests, "arrival_s"))].sort_values("arrival_s", kind="stable")
    if saturated(visits, requests) is not None:
        return WarmUp(0, 0.0, SATURATED, False)
    finished = is_finished(arrived)
    cuts: dict[str, int] = {}
    for name in ("ttft", "e2e"):
        values_s = floats(arrived, f"{name}_s")
        rows = np.flatnonzero(finished & np.isfinite(values_s))
        found = mser5(np.log(np.maximum(values_s[rows], LEAST_S)))
        if found.is_steady is False:
            return WarmUp(0, 0.0, name.upper(), False)
        if found.is_steady:
            cuts[name.upper()] = int(rows[found.num_cut]) if found.num_cut else 0
    if not cuts:
        return WarmUp(0, 0.0, None, None)
    filling = mser5(num_inside(arrived))
    cuts[INSIDE] = filling.num_cut if filling.is_steady else 0
    latest = max(cuts, key=lambda name: cuts[name])
    if cuts[latest] == 0:
        return WarmUp(0, 0.0, None, True)
    arrival_s = floats(arrived, "arrival_s")
    return WarmUp(cuts[latest], float(arrival_s[cuts[latest]] - arrival_s[0]), latest, True)


def num_inside(arrived: pd.DataFrame) -> FloatArray:
    """[num_requests] requests that each one met on its arrival: arrived before it, and not gone yet.

    arrived: in order of arrival. One that was turned away without an end counts as gone at once.
    """
    arrival_s, finish_s = floats(arrived, "arrival_s"), floats(arrived, "finish_s")
    gone_s = np.sort(np.where(np.isfinite(finish_s), finish_s, arrival_s))
    return (np.arange(len(arrival_s)) - np.searchsorted(gone_s, arrival_s, "right")).astype(np.float64)
