"""The metrics of a run, one function each; its docstring is the definition.

All of them are pure functions of the result tables. NaN stands for what has no value (no such request, no token).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import BoolArray, FloatArray, floats, is_finished
from hermes_sim.analysis.quantiles import PERCENTILES, histogram_quantile, ordered_quantile, statistic
from hermes_sim.scenario.window import MeasuredWindow

J_PER_KWH = 3.6e6
RESOURCES = ("compute", "memory", "network", "host")
VISIT_PARTS = (
    "tokenize_s", "transfer_s", "queue_s", "service_s", "compute_s", "memory_s", "network_s", "host_s", "preempted_s",
    "draft_wait_s",
)  # fmt: skip


SHORTEST_GAP_S = 1e-6
"""Less is no gap: accepted drafts come together with the token behind them, in the lowest bin of the histogram."""


def latency_percentiles(values_s: FloatArray) -> dict[str, float]:
    """Mean, percentiles and maximum of the values that exist, and how many those are.

    Percentiles interpolate linearly between order statistics. Requests that never finished are not among the values:
    their number is reported beside, and an SLO counts them as too late.
    """
    ordered_s = np.sort(values_s[~np.isnan(values_s)])
    result: dict[str, float] = {"num": len(ordered_s), "mean_s": statistic(ordered_s, "mean")}
    result |= {f"{name}_s": ordered_quantile(ordered_s, fraction) for name, fraction in PERCENTILES.items()}
    result["max_s"] = ordered_quantile(ordered_s, 1.0)
    return result


def itl_percentiles(itl: pd.DataFrame, requests: pd.DataFrame) -> dict[str, float]:
    """Gaps between consecutive output tokens of one request.

    requests: the measured ones, over whose gaps the mean is exact (time from first to last token over the number of
    gaps). Percentiles come from the histogram of the gaps inside the measured window (of the whole run where arrivals
    depend on it): `bin_width_frac` is the largest relative width of the bins that hold one, which bounds their error.
    """
    counts = itl["num_gaps"].to_numpy(dtype=np.int64)
    edges_s = np.append(floats(itl, "from_s"), floats(itl, "to_s")[-1:])
    result: dict[str, float] = {"num": int(counts.sum()), "mean_s": itl_mean_s(requests)}
    widths: list[float] = []
    for name, fraction in PERCENTILES.items():
        value_s, width_s = histogram_quantile(edges_s, counts, fraction)
        if value_s < SHORTEST_GAP_S:
            value_s = 0.0
        result[f"{name}_s"] = value_s
        widths.append(width_s / value_s if value_s else math.nan)
    result["bin_width_frac"] = max(widths)
    return result


def itl_mean_s(requests: pd.DataFrame) -> float:
    """Mean gap between output tokens over all gaps: time from first to last token, over the number of gaps.

    Of a request's samples the longest counts.
    """
    tpot_s = floats(requests, "tpot_s")
    has_gap = ~np.isnan(tpot_s)
    num_gaps = (floats(requests, "num_longest_sample_tokens") - floats(requests, "num_passes"))[has_gap]
    return _per(float((tpot_s[has_gap] * num_gaps).sum()), float(num_gaps.sum()))


def drawn_images_per_s(requests: pd.DataFrame, window: MeasuredWindow) -> float:
    """Images of requests that finished inside the measured window, per second of it."""
    return _rate(float(floats(requests, "num_drawn_images")[_finished_inside(requests, window)].sum()), window)


def requests_per_s(requests: pd.DataFrame, window: MeasuredWindow) -> float:
    """Throughput: requests that finished inside the measured window, per second of it."""
    return _rate(float(_finished_inside(requests, window).sum()), window)


def goodput_per_s(requests: pd.DataFrame, window: MeasuredWindow) -> float:
    """Requests that finished inside the measured window and met every SLO threshold, per second of it (DistServe)."""
    good = requests["slo_met"].to_numpy(dtype=np.bool_)
    return _rate(float((_finished_inside(requests, window) & good).sum()), window)


def output_tokens_per_s(requests: pd.DataFrame, window: MeasuredWindow) -> float:
    """Output tokens of finished requests inside the measured window, per second of it.

    The tokens of a request are taken as evenly spread from its first to its last; exact if nothing is cut off.
    """
    first_s, last_s = floats(requests, "first_token_s"), floats(requests, "finish_s")
    num_tokens = floats(requests, "num_output_tokens")
    has_tokens = is_finished(requests) & (num_tokens >= 1)
    inside_s = np.minimum(last_s, window.end_s) - np.maximum(first_s, window.start_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(
            last_s > first_s,
            np.clip(inside_s / (last_s - first_s), 0.0, 1.0),
            (first_s >= window.start_s) & (first_s <= window.end_s),
        )
    return _rate(float((share * num_tokens)[has_tokens].sum()), window)


def prompt_tokens_per_s(requests: pd.DataFrame, window: MeasuredWindow) -> float:
    """Prompt tokens (prefix hits included) of the requests that got their first token inside the window, per second."""
    first_s = floats(requests, "first_token_s")
    inside = (first_s >= window.start_s) & (first_s <= window.end_s)
    return _rate(float(floats(requests, "num_prompt_tokens")[inside].sum()), window)


def _finished_inside(requests: pd.DataFrame, window: MeasuredWindow) -> BoolArray:
    finish_s = floats(requests, "finish_s")
    return is_finished(requests) & (finish_s >= window.start_s) & (finish_s <= window.end_s)


def _rate(amount: float, window: MeasuredWindow) -> float:
    return amount / window.length_s if window.length_s > 0 else math.nan


def stage_times(visits: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds per visit and stage: moving the input, queueing, and the service by limiting resource.

    visits: those of the measured requests. A visit that was skipped or never placed is not counted.
    """
    grouped = _by_stage(visits)
    means: pd.DataFrame = grouped[list(VISIT_PARTS)].mean()
    means.insert(0, "num_visits", grouped.size())
    means.insert(0, "kind", grouped["kind"].first().astype("str"))
    return means


def mean_parts(visits: pd.DataFrame, parts: Sequence[str]) -> pd.DataFrame:
    """Some columns of `stage_times`."""
    means: pd.DataFrame = _by_stage(visits)[list(parts)].mean()
    return means


def _by_stage(visits: pd.DataFrame) -> Any:
    placed = visits[visits["engine"] != ""]
    return placed.groupby("stage", observed=True, sort=False)


def energy_per_output_token_j(requests: pd.DataFrame, energy_j: float) -> float:
    """Energy of the facility, idle time included, per output token."""
    return _per(energy_j, _num_output_tokens(requests))


def facility_energy_j(engines: pd.DataFrame, links: pd.DataFrame, pue: float) -> float:
    """Energy of the engines' devices over the run, idle time included, and of transfers between them, times the
    facility's PUE. The requests' energy_j, idle_energy_j and link_energy_j add up to it."""
    return float(engines["energy_j"].sum() + links["energy_j"].sum()) * pue


def carbon_per_request_g(requests: pd.DataFrame, carbon_g: float) -> float:
    """Grams of CO2 equivalent per finished request: facility energy times the carbon intensity while it was used.

    Operation only; making the hardware is not counted.
    """
    return _per(carbon_g, float(is_finished(requests).sum()))


def cost_per_million_output_tokens_usd(requests: pd.DataFrame, engines: pd.DataFrame) -> float:
    """What all engines' devices cost for the time they were on, per million output tokens of finished requests."""
    return _per(float(engines["cost_usd"].sum()) * 1e6, _num_output_tokens(requests))


def cost_per_request_usd(requests: pd.DataFrame, engines: pd.DataFrame) -> float:
    """What all engines' devices cost for the time they were on, per finished request."""
    return _per(float(engines["cost_usd"].sum()), float(is_finished(requests).sum()))


def prefix_hit_frac(requests: pd.DataFrame) -> float:
    """Share of all prompt tokens that were found in a prefix cache instead of computed."""
    return _per(float(requests["num_cached_tokens"].sum()), float(requests["num_prompt_tokens"].sum()))


def _num_output_tokens(requests: pd.DataFrame) -> float:
    return float(floats(requests, "num_output_tokens")[is_finished(requests)].sum())


def _per(amount: float, number: float) -> float:
    return amount / number if number else math.nan


def limiting_resource(row: pd.Series) -> tuple[str, float]:
    """The resource that limits an engine for the longest time, and its share of the busy time: ('memory', 0.64)."""
    times_s = {resource: float(row[f"{resource}_s"]) for resource in RESOURCES}
    resource = max(times_s, key=lambda name: times_s[name])
    return resource, _per(times_s[resource], sum(times_s.values()))
