"""What a user would be surprised by, named before the question: saturation, failures, short runs, weak numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.analysis.human import count, duration, percent
from hermes_sim.analysis.quantiles import NUM_BEYOND, fraction_of, num_values_needed
from hermes_sim.scenario.window import MeasuredWindow

NUM_SLICES = 40
MIN_GROWTH_FRAC = 0.02
CHANCE_FACTOR = 3.0
FILLING_FRAC = 0.05
PREEMPTED_FRAC = 0.01
SATURATED = "queue"
"""What decides about the warm-up of a run whose queues grew to its end."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One warning: its kind for programs, its text for people."""

    kind: str
    text: str


def queue_growth(visits: pd.DataFrame, requests: pd.DataFrame) -> float:
    """Visits waiting for their first step: growth from the first to the last arrival, by a straight-line fit.

    Taken over the later three quarters of that time (an empty machine fills first) and scaled to all of it.
    """
    arrivals_s = floats(requests, "arrival_s")
    arrivals_s = arrivals_s[np.isfinite(arrivals_s)]
    if len(arrivals_s) < 2:
        return 0.0
    first_s, last_s = float(arrivals_s.min()), float(arrivals_s.max())
    if last_s <= first_s:
        return 0.0
    times_s = np.linspace(first_s + (last_s - first_s) / 4, last_s, NUM_SLICES)
    joined_s, started_s = floats(visits, "arrival_s"), floats(visits, "start_s")
    joined_s, started_s = np.sort(joined_s[np.isfinite(joined_s)]), np.sort(started_s[np.isfinite(started_s)])
    waiting = np.searchsorted(joined_s, times_s, "right") - np.searchsorted(started_s, times_s, "right")
    slope_per_s = np.polyfit(times_s - times_s[0], waiting.astype(np.float64), 1)[0]
    return float(slope_per_s * (last_s - first_s))


def saturated(visits: pd.DataFrame, requests: pd.DataFrame) -> Finding | None:
    """The queues kept growing until the last arrival: latencies then tell the length of the run, not the system.

    Growth counts if it exceeds 2% of the arrivals and three times the square root of their number, which is what a
    queue in balance drifts by chance.
    """
    num_arrived = int(np.isfinite(floats(requests, "arrival_s")).sum())
    growth = queue_growth(visits, requests)
    if growth <= max(MIN_GROWTH_FRAC * num_arrived, CHANCE_FACTOR * math.sqrt(num_arrived)):
        return None
    text = (
        f"saturated: the queues grew until the last arrival, by {count(min(growth, num_arrived))} of "
        f"{count(num_arrived)} requests; "
        "latencies grow with the length of the run"
    )
    return Finding("saturated", text)


WHY = {
    "too_long": "they can never fit the engine's memory or limits",
    "rate_limit": "more than the rate limit lets in",
    "queue_full": "max_outstanding requests were inside",
    "shed": "turned out for a higher class",
    "too_late": "their first token would have come too late",
    "no_first_token": "no token in time",
    "no_end": "not ended in time",
}
"""Reason of a request -> in words."""


def failed(requests: pd.DataFrame) -> Iterable[Finding]:
    """Requests that were not served, clipped prompts, preemptions."""
    num = len(requests)
    for status, why in (
        ("rejected", "every SLO counts them as missed"),
        ("left", "their clients hung up; every SLO counts them as missed"),
        ("failed", "failures lost them more often than they may be retried; every SLO counts them as missed"),
        ("unfinished", "still inside when the run ended; every SLO counts them as missed"),
    ):
        such = requests[requests["status"] == status]
        if len(such):
            reasons = such["reason"].value_counts()
            because = ", ".join(f"{WHY[str(name)]} ({count(n)})" for name, n in reasons.items() if n and name in WHY)
            why = f"{because}; {why}" if because else why
            yield Finding(status, f"{status}: {count(len(such))} of {count(num)} requests: {why}")
    clipped = requests[requests["num_clipped_tokens"] > 0]
    if len(clipped):
        lost = f"{count(float(clipped['num_clipped_tokens'].sum()))} tokens lost"
        text = f"clipped: {count(len(clipped))} of {count(num)} prompts cut to the model's limit, {lost}"
        yield Finding("clipped", text)
    retried = requests[requests["num_retries"] > 0]
    if len(retried):
        text = f"retried: {count(len(retried))} of {count(num)} requests were lost by failures and sent again"
        yield Finding("retried", text)
    num_preempted = int((requests["num_preemptions"] > 0).sum())
    if num and num_preempted / num > PREEMPTED_FRAC:
        text = f"preempted: {percent(num_preempted / num)} of the requests lost their KV blocks and went on later"
        yield Finding("preempted", text)


def too_short(requests: pd.DataFrame, window: MeasuredWindow, asked: Iterable[str]) -> Finding | None:
    """Too few measured requests for a percentile: fewer than NUM_BEYOND are expected beyond it."""
    num = int((is_finished(requests) & window.measured).sum())
    percentiles = [name for name in asked if name != "mean"]
    if not percentiles or num == 0:
        return None
    highest = max(percentiles, key=fraction_of)
    needed = num_values_needed(fraction_of(highest))
    if num >= needed:
        return None
    beyond = round(num * (1 - fraction_of(highest)))
    few = f"about {beyond} of {count(num)} requests lie" if beyond > 1 else f"hardly one of {count(num)} requests lies"
    text = f"short: {few} beyond {highest}, too few to place it well; of {count(needed)} there would be {NUM_BEYOND}"
    return Finding("too_short", text)


def nothing_measured(requests: pd.DataFrame, window: MeasuredWindow) -> Finding | None:
    """Warm-up and cool-down leave no request, or none arrived at all."""
    if len(requests) == 0:
        return Finding("empty", "empty: no request arrived")
    if not window.measured.any():
        return Finding("empty", "empty: warm-up and cool-down leave no request to measure")
    return None


def empty_window(requests: pd.DataFrame, window: MeasuredWindow) -> Finding | None:
    """Requests were measured, but the window is so short that none finished inside: its rates are 0, no gap counts."""
    finish_s = floats(requests, "finish_s")
    finished = is_finished(requests) & window.measured
    if not finished.any() or ((finish_s >= window.start_s) & (finish_s <= window.end_s)).any():
        return None
    text = (
        f"window: no request finished inside the measured window of {duration(window.length_s)}, so throughput and "
        "goodput are 0 (workload.measure cuts by arrival; measure the whole run, or send requests for longer)"
    )
    return Finding("empty_window", text)


def warm_up_included(requests: pd.DataFrame, window: MeasuredWindow) -> Finding | None:
    """Measured requests that met a machine still filling up: they arrived within one mean E2E of the first arrival."""
    if not window.whole_run or len(requests) == 0:
        return None
    e2e_s, arrival_s = floats(requests, "e2e_s"), floats(requests, "arrival_s")
    if not np.isfinite(e2e_s).any():
        return None
    filling_s = float(np.nanmean(e2e_s))
    share = float((arrival_s < np.nanmin(arrival_s) + filling_s).mean())
    if share <= FILLING_FRAC or share == 1.0:
        return None
    text = (
        f"warm-up included: {percent(share)} of the requests arrived in the first {duration(filling_s)}, while the "
        "machine was filling (workload.measure.warm_up cuts them off)"
    )
    return Finding("warm_up_included", text)


def not_settled(is_steady: bool | None, decided_by: str | None) -> Finding | None:
    """`warm_up: auto` has found no end of the warm-up."""
    if is_steady:
        return None
    if is_steady is None:
        text = "too few requests to tell whether the run had warmed up: nothing was cut (MSER-5 needs a hundred)"
        return Finding("warm_up_unknown", text)
    if decided_by == SATURATED:
        return Finding("no_steady_state", "no steady state: nothing was cut as warm-up, which would never end (MSER-5)")
    text = (
        f"no steady state: {decided_by} had not settled in the first half of the run, so that nothing was cut as "
        "warm-up (MSER-5); a longer run would tell the system from its beginning"
    )
    return Finding("no_steady_state", text)
