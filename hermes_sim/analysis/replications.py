"""Replications: the same scenario with other seeds, and what may be said about the mean of each metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hermes_sim.analysis.statistics import mean_of_replications

HEADLINES: dict[str, tuple[str, ...]] = {
    **{
        f"{latency}_{name}_s": ("latency", latency, f"{name}_s")
        for latency in ("ttft", "ttfat", "tpot", "itl", "e2e")
        for name in ("mean", "p50", "p90", "p99")
    },
    "requests_per_s": ("throughput", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "goodput_per_s": ("throughput", "goodput_per_s"),
    "slo_met_frac": ("slo", "met_frac"),
    "energy_per_output_token_j": ("energy_and_cost", "energy_per_output_token_j"),
    "cost_per_million_output_tokens_usd": ("energy_and_cost", "cost_per_million_output_tokens_usd"),
}
"""Metric -> its place in the summary."""


def headline_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that replications are compared by, NaN where the run has none."""
    values: dict[str, float] = {}
    for name, path in HEADLINES.items():
        value: Any = summary
        for key in path:
            value = None if value is None else value.get(key)
        values[name] = math.nan if value is None else float(value)
    return values


def confidence_intervals(replications: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Per metric: mean over the seeds and the half-width of its 95% confidence interval.

    replications: one row per seed. Student's t with n - 1 degrees of freedom, seeds independent; the half-width of
    one run, or of a metric that some run does not have, is NaN.
    """
    found = {name: mean_of_replications(replications[name].to_numpy(dtype="float64")) for name in HEADLINES}
    return {name: {"mean": one.value, "half_width_95": one.half_width_95} for name, one in found.items()}
