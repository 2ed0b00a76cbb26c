"""How well one run knows its headline metrics: 95% intervals from its own requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hermes_sim.analysis.batch_means import batch_means, quantile_of_series
from hermes_sim.analysis.frames import BoolArray, FloatArray, floats, is_finished
from hermes_sim.analysis.quantiles import fraction_of
from hermes_sim.analysis.statistics import Estimate, unknown
from hermes_sim.scenario.window import MeasuredWindow

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

LATENCIES = ("ttft", "ttfat", "tpot", "e2e")
PERCENTILES = ("p50", "p90", "p99")
NUM_INTERVALS = 600
"""Of the measured window, whose counts are batched: twenty in each of thirty batches."""


def run_estimates(results: Results, latencies: Iterable[str] = LATENCIES) -> dict[str, Estimate]:
    """By the names of replications.HEADLINES, those that one run can tell: latencies, rates, share within the SLO.

    Latencies: batch means over the measured requests in order of arrival. Rates: over equal parts of the measured
    window. ITL has no single value per request; energy and cost are one number a run: their intervals need
    replications.
    """
    measured = results.measured_requests.sort_values("arrival_s", kind="stable")
    finished = measured[is_finished(measured)]
    estimates: dict[str, Estimate] = {}
    for latency in latencies:
        values_s = floats(finished, f"{latency}_s")
        values_s = values_s[~np.isnan(values_s)]
        ordered_s = np.sort(values_s)
        estimates[f"{latency}_mean_s"] = batch_means(values_s)
        for name in PERCENTILES:
            estimates[f"{latency}_{name}_s"] = quantile_of_series(values_s, fraction_of(name), ordered_s)
    estimates |= _rates(results.requests, results.window, has_objectives=bool(results.objectives))
    if results.objectives:
        estimates["slo_met_frac"] = _unless_certain(batch_means(floats(measured, "slo_met")))
    return estimates


def _unless_certain(estimate: Estimate) -> Estimate:
    """All or none of those that were seen: how rare the others are cannot be told from their spread."""
    return unknown(estimate.value, estimate.num) if estimate.standard_error == 0.0 else estimate


def _rates(requests: pd.DataFrame, window: MeasuredWindow, *, has_objectives: bool) -> dict[str, Estimate]:
    finished = is_finished(requests)
    found = {
        "requests_per_s": batch_means(finish_rates(requests, window, finished)),
        "output_tokens_per_s": batch_means(token_rates(requests, window, finished)),
    }
    if has_objectives:
        good = finished & requests["slo_met"].to_numpy(dtype=np.bool_)
        found["goodput_per_s"] = _unless_certain(batch_means(finish_rates(requests, window, good)))
    return found


def _edges_s(window: MeasuredWindow) -> FloatArray:
    return np.linspace(window.start_s, window.end_s, NUM_INTERVALS + 1)


def finish_rates(requests: pd.DataFrame, window: MeasuredWindow, which: BoolArray) -> FloatArray:
    """[NUM_INTERVALS] requests that finished in each part of the window, per second; nothing of an empty window."""
    if window.length_s <= 0.0:
        return np.empty(0)
    counts, _ = np.histogram(floats(requests, "finish_s")[which], bins=_edges_s(window))
    return counts * (NUM_INTERVALS / window.length_s)


def token_rates(requests: pd.DataFrame, window: MeasuredWindow, which: BoolArray) -> FloatArray:
    """[NUM_INTERVALS] output tokens per second, those of a request evenly spread from its first to its last."""
    if window.length_s <= 0.0:
        return np.empty(0)
    first_s, last_s = floats(requests, "first_token_s"), floats(requests, "finish_s")
    num_tokens = floats(requests, "num_output_tokens")
    written = which & (num_tokens >= 1)
    spread = written & (last_s > first_s)
    per_s = num_tokens[spread] / (last_s[spread] - first_s[spread])
    edges_s = _edges_s(window)
    so_far = _ramps(first_s[spread], per_s, edges_s) - _ramps(last_s[spread], per_s, edges_s)
    at_once = written & ~spread
    steps, _ = np.histogram(first_s[at_once], bins=edges_s, weights=num_tokens[at_once])
    rates: FloatArray = (np.diff(so_far) + steps) * (NUM_INTERVALS / window.length_s)
    return rates


def _ramps(start_s: FloatArray, per_s: FloatArray, times_s: FloatArray) -> FloatArray:
    """[num_times] sum of lines that rise from their start on."""
    order = np.argsort(start_s)
    begun = np.searchsorted(start_s[order], times_s, "right")
    slopes = np.concatenate([[0.0], np.cumsum(per_s[order])])
    offsets = np.concatenate([[0.0], np.cumsum((per_s * start_s)[order])])
    ramps: FloatArray = slopes[begun] * times_s - offsets[begun]
    return ramps


def interval_record(estimate: Estimate) -> dict[str, Any]:
    """For the summary."""
    return {
        "low": estimate.low,
        "high": estimate.high,
        "half_width_95": estimate.half_width_95,
        "num_batches": estimate.num if estimate.is_known else 0,
        "is_correlated": estimate.is_correlated,
    }
