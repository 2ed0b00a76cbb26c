"""One row of a study's table: the metrics of a run, and how it fares against each tier of objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from hermes_sim.analysis import metrics
from hermes_sim.analysis.frames import run_frames
from hermes_sim.analysis.metrics import VISIT_PARTS, mean_parts
from hermes_sim.analysis.objectives import judge, meets_every_objective, needs_unloaded, objectives_of
from hermes_sim.analysis.replications import headline_metrics
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.summary import row_summary
from hermes_sim.run import unloaded_latencies
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.study_metrics import STAGE_TIME, TTFT_PART, UTILIZATION
from hermes_sim.scenario.sweep import Tier
from hermes_sim.sim import simulate_scenario

SECONDS_PER_HOUR = 3600.0


def run_metrics(results: Results) -> dict[str, float]:
    """Every metric of scenario/study_metrics.py that the run has; NaN where it has no value."""
    summary = row_summary(results)
    return {
        **headline_metrics(summary),
        **_rates_per_usd(summary),
        **_numbers(summary),
        **{f"{TTFT_PART}{_word(name)}_s": float(part["mean_s"] or 0.0) for name, part in summary["ttft_parts"].items()},
        **_stage_times(results),
        **_utilizations(results.engines),
    }


def tier_metrics(results: Results, tiers: Sequence[Tier], reference: Scenario | None) -> dict[str, float]:
    """`slo_met_frac@TIER`, `goodput_per_s@TIER` and `meets@TIER` (1, 0, or NaN where nothing could be judged).

    reference: on which requests of the same lengths run alone, for limits that are multiples of that.
    """
    row: dict[str, float] = {}
    unloaded = None
    if any(needs_unloaded(objectives_of([(None, tier.slo)])) for tier in tiers):
        unloaded = _unloaded(results.scenario if reference is None else reference)
    for tier in tiers:
        objectives = objectives_of([(None, tier.slo)])
        good = meets_every_objective(results.requests, objectives, unloaded)
        verdicts = [judge(one, results.measured_requests, results.itl, unloaded).met for one in objectives]
        known = [met for met in verdicts if met is not None]
        row[f"slo_met_frac@{tier.name}"] = float(good[results.window.measured].mean())
        row[f"goodput_per_s@{tier.name}"] = metrics.goodput_per_s(results.requests.assign(slo_met=good), results.window)
        row[f"meets@{tier.name}"] = float(all(known)) if known else math.nan
    return row


def _unloaded(scenario: Scenario) -> pd.DataFrame:
    return _unloaded_of(scenario.model_dump_json(by_alias=True))


@lru_cache(maxsize=8)
def _unloaded_of(dumped: str) -> pd.DataFrame:
    """By the scenario's text, so that a process that runs several points with one reference computes it once."""
    scenario = Scenario.model_validate_json(dumped)
    return unloaded_latencies(scenario, run_frames(simulate_scenario(scenario))["requests"])


def _rates_per_usd(summary: Mapping[str, Any]) -> dict[str, float]:
    duration_s, cost_usd = summary["run"]["duration_s"], summary["energy_and_cost"]["cost_usd"]
    rent_usd_per_s = cost_usd / duration_s if duration_s else math.nan
    throughput = summary["throughput"]

    def per_usd(rate: float | None) -> float:
        return math.nan if rate is None or not rent_usd_per_s else rate / rent_usd_per_s

    return {
        "rent_usd_per_h": rent_usd_per_s * SECONDS_PER_HOUR,
        "output_tokens_per_usd": per_usd(throughput["output_tokens_per_s"]),
        "requests_per_usd": per_usd(throughput["requests_per_s"]),
    }


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    requests = summary["requests"]
    values = {
        "carbon_per_request_g": summary["energy_and_cost"]["carbon_per_request_g"],
        "prefix_hit_frac": requests["prefix_hit_frac"],
        "mean_quality": requests["mean_quality"],
        "num_preemptions": requests["num_preemptions"],
        "finished_frac": requests["num_finished"] / requests["num"] if requests["num"] else None,
    }
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _stage_times(results: Results) -> dict[str, float]:
    columns = [name for name in VISIT_PARTS if name != "service_s"]  # which is the sum of its resources
    times = mean_parts(results.measured_visits, columns)
    totals = np.cumsum(np.nan_to_num(times.to_numpy()), axis=1)[:, -1]  # one after the other, as they are listed
    return {f"{STAGE_TIME}{_word(str(name))}_s": float(s) for name, s in zip(times.index, totals, strict=True)}


def _utilizations(engines: pd.DataFrame) -> dict[str, float]:
    """Mean over the replicas of each engine: llm[0], llm[1] -> llm."""
    names = np.array([str(name).partition("[")[0] for name in engines["engine"]], dtype=object)
    means = engines["utilization_frac"].groupby(names).mean()
    return {f"{UTILIZATION}{_word(str(name))}_frac": float(value) for name, value in means.items()}


def _word(name: str) -> str:
    """A name as part of a column's."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)
