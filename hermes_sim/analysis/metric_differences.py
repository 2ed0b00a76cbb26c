"""Two runs, metric by metric: how much they differ, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd

from hermes_sim.analysis.confidence import finish_rates, run_estimates, token_rates
from hermes_sim.analysis.frames import FloatArray, floats, is_finished
from hermes_sim.analysis.paired_series import quantile_difference, series_difference
from hermes_sim.analysis.quantiles import fraction_of
from hermes_sim.analysis.replications import HEADLINES, headline_metrics
from hermes_sim.analysis.statistics import (
    Difference,
    Estimate,
    mean_of_replications,
    paired_difference,
    unknown,
    welch_difference,
)

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

Pairing = Literal["requests", "seeds", "unpaired seeds", "unpaired"]
LATENCIES: Final = ("ttft", "ttfat", "tpot", "e2e")


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """One metric of two runs."""

    name: str
    first: float
    second: float
    base: float
    """What the difference is a share of: the first run's value over what was compared."""
    difference: Difference

    @property
    def change_frac(self) -> float:
        return self.difference.mean / abs(self.base) if self.base else math.nan


def pairing_of(first: Results, second: Results) -> Pairing:
    """What of two runs may be held against each other one by one.

    Replications on both sides go before the requests of one run: they need no steady state. The same seeds, or the
    same requests, pair only if both runs draw them from the same traffic (its arrivals may be of another rate, which
    stretches the gaps and leaves the requests as they are).
    """
    same = _same_traffic(first, second)
    seeds = [one.replications for one in (first, second) if one.replications is not None]
    if len(seeds) == 2:
        common = set(seeds[0]["seed"]) & set(seeds[1]["seed"])
        return "seeds" if same and len(common) > 1 else "unpaired seeds"
    if same and first.seed == second.seed and len(first.requests) == len(second.requests):
        return "requests"
    return "unpaired"


def _same_traffic(first: Results, second: Results) -> bool:
    one, other = (
        results.scenario.workload.traffic.model_dump(mode="json", by_alias=True) for results in (first, second)
    )
    rates = [traffic.pop("arrivals") or {} for traffic in (one, other)]
    return bool(one == other) and rates[0].get("kind") == rates[1].get("kind")


def metric_differences(first: Results, second: Results, pairing: Pairing) -> list[MetricDifference]:
    """All headline metrics that both runs have; where chance cannot be told, a difference without an interval."""
    olds, news = (headline_metrics(one.summary) for one in (first, second))
    names = [name for name in HEADLINES if not (math.isnan(olds[name]) or math.isnan(news[name]))]
    if pairing in ("seeds", "unpaired seeds"):
        over_seeds = (_over_seeds(name, first, second, pairing) for name in names)
        return [one for one in over_seeds if one is not None]
    pairs = _by_request(first, second) if pairing == "requests" else {}
    estimates = run_estimates(first), run_estimates(second)
    found: list[MetricDifference] = []
    for name in names:
        old, new = olds[name], news[name]
        if name in pairs:
            base, difference = pairs[name]
        elif old == new and pairing == "requests":
            base, difference = old, Difference(0.0, 0.0, 1.0, 0)
        else:
            base, difference = old, _unpaired(name, old, new, estimates)
        found.append(MetricDifference(name, old, new, base, difference))
    return found


def _unpaired(
    name: str, old: float, new: float, estimates: tuple[Mapping[str, Estimate], Mapping[str, Estimate]]
) -> Difference:
    """As if the runs had nothing in common; of the same requests, in windows of their own, the interval is too wide."""
    one, other = (known.get(name, unknown(value)) for known, value in zip(estimates, (old, new), strict=True))
    return welch_difference(one, other)


def _over_seeds(name: str, first: Results, second: Results, pairing: Pairing) -> MetricDifference | None:
    """Means over the seeds: over those that both have, or over all of each."""
    one, other = (_by_seed(results, name) for results in (first, second))
    if pairing == "seeds":
        seeds = one.index.intersection(other.index)
        one, other = one[seeds], other[seeds]
        difference = paired_difference(_values(one), _values(other))
    else:
        difference = welch_difference(mean_of_replications(_values(one)), mean_of_replications(_values(other)))
    old, new = float(one.mean()), float(other.mean())
    if one.isna().any() or other.isna().any():
        return None
    return MetricDifference(name, old, new, old, difference)


def _by_seed(results: Results, name: str) -> pd.Series:
    assert results.replications is not None
    return results.replications.drop_duplicates("seed").set_index("seed")[name].sort_index()


def _values(series: pd.Series) -> FloatArray:
    return series.to_numpy(dtype=np.float64)


def _by_request(first: Results, second: Results) -> dict[str, tuple[float, Difference]]:
    """Metric -> (value of the first run, difference) over the requests that both have measured and finished."""
    one, other = (results.requests.set_index("request").sort_index() for results in (first, second))
    order = one["arrival_s"].argsort(kind="stable").to_numpy()
    one, other = one.iloc[order], other.iloc[order]
    both = floats(one, "measured").astype(bool) & floats(other, "measured").astype(bool)
    done = both & is_finished(one) & is_finished(other)
    found: dict[str, tuple[float, Difference]] = {}
    for latency in LATENCIES:
        old_s, new_s = floats(one, f"{latency}_s"), floats(other, f"{latency}_s")
        known = done & ~np.isnan(old_s) & ~np.isnan(new_s)
        old_s, new_s = old_s[known], new_s[known]
        if len(old_s) == 0:
            continue
        found[f"{latency}_mean_s"] = float(old_s.mean()), series_difference(old_s, new_s)
        for name in ("p50", "p90", "p99"):
            fraction = fraction_of(name)
            found[f"{latency}_{name}_s"] = (
                float(np.quantile(old_s, fraction)),
                quantile_difference(old_s, new_s, fraction),
            )
    if _same_window(first, second):
        others = _rates_of(second)
        for name, rates in _rates_of(first).items():
            found[name] = float(rates.mean()), series_difference(rates, others[name])
    met = [floats(requests, "slo_met")[both] for requests in (one, other)]
    if len(met[0]) and first.objectives:
        found["slo_met_frac"] = float(met[0].mean()), series_difference(*met)
    return found


def _same_window(first: Results, second: Results) -> bool:
    one, other = first.window, second.window
    return one.length_s > 0.0 and (one.start_s, one.end_s) == (other.start_s, other.end_s)


def _rates_of(results: Results) -> dict[str, FloatArray]:
    """Series of the rates over equal parts of the measured window."""
    requests, window, finished = results.requests, results.window, is_finished(results.requests)
    rates = {
        "requests_per_s": finish_rates(requests, window, finished),
        "output_tokens_per_s": token_rates(requests, window, finished),
    }
    if results.objectives:
        rates["goodput_per_s"] = finish_rates(requests, window, finished & floats(requests, "slo_met").astype(bool))
    return rates


def num_pairs(first: Results, second: Results) -> tuple[int, int]:
    """(requests that both have measured and finished, the most that it could have been)."""
    one, other = (results.requests.set_index("request").sort_index() for results in (first, second))
    measured = [floats(requests, "measured").astype(bool) for requests in (one, other)]
    both = measured[0] & measured[1] & is_finished(one) & is_finished(other)
    return int(both.sum()), int((measured[0] | measured[1]).sum())
