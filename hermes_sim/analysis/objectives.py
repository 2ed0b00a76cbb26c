"""Service-level objectives: which requests kept them, and whether each holds at its percentile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import BoolArray, FloatArray, floats, is_finished
from hermes_sim.analysis.metrics import itl_mean_s
from hermes_sim.analysis.quantiles import fraction_of, histogram_quantile, statistic
from hermes_sim.analysis.unloaded import reference_s
from hermes_sim.scenario.slo import LatencyLimit, LatencyName, Slo, Statistic


@dataclass(frozen=True, slots=True)
class Objective:
    """One line of an SLO: `ttft: {p99: 2 s}`, or as a multiple of the unloaded request: `ttft: {p99: 6 x}`."""

    latency: LatencyName
    statistic: Statistic
    limit: LatencyLimit
    service_class: str | None = None
    """Whose requests it is for; None: all."""

    def is_for(self, requests: pd.DataFrame) -> BoolArray:
        """[num_requests]"""
        if self.service_class is None:
            return np.ones(len(requests), bool)
        return (requests["service_class"] == self.service_class).to_numpy(dtype=np.bool_)

    @property
    def bound(self) -> float:
        """The limit as a number: seconds, or the multiple."""
        bound = self.limit.time_s if self.limit.time_s is not None else self.limit.unloaded_multiple
        assert bound is not None
        return bound

    @property
    def is_multiple(self) -> bool:
        return self.limit.time_s is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one objective fared over the measured requests."""

    objective: Objective
    observed: float
    """Seconds, or a multiple of the unloaded request; inf where failed requests reach into the percentile."""
    attained_frac: float
    """Share of the requests within the bound; NaN if none has this latency."""

    @property
    def met(self) -> bool | None:
        """None where no request has this latency."""
        return None if math.isnan(self.observed) else self.observed <= self.objective.bound

    @property
    def excess_frac(self) -> float:
        """Observed over the bound, minus one: 0.16 is 16% too late."""
        return self.observed / self.objective.bound - 1.0


def objectives_of(promises: Iterable[tuple[str | None, Slo]]) -> tuple[Objective, ...]:
    """All objectives of a workload's classes (None: it has none), in the order of its file."""
    return tuple(Objective(*limit, name) for name, slo in promises for limit in slo.limits())


def needs_unloaded(objectives: Sequence[Objective]) -> bool:
    """Some objective is a multiple of the unloaded request."""
    return any(objective.is_multiple for objective in objectives)


def meets_every_objective(
    requests: pd.DataFrame, objectives: Sequence[Objective], unloaded: pd.DataFrame | None
) -> BoolArray:
    """Per request: finished, and within the bound of every latency that it has.

    Where one latency has several percentiles, a request must keep the loosest of their bounds (the tighter ones bind
    only the share of requests they name). TPOT does not exist for fewer than two tokens, TTFT for none; ITL has no
    single value per request, so its objective is judged over all gaps only.
    """
    met = is_finished(requests)
    by_latency: dict[str, list[Objective]] = {}
    for objective in objectives:
        if objective.latency != "itl":
            by_latency.setdefault(objective.latency, []).append(objective)
    for latency, bounding in by_latency.items():
        loosest_s = np.full(len(requests), -np.inf)
        for objective in bounding:
            concerned = objective.is_for(requests)
            found_s = bounds_s(requests, objective, unloaded)
            loosest_s = np.where(concerned, np.maximum(loosest_s, found_s), loosest_s)
        met = met & ~((floats(requests, f"{latency}_s") > loosest_s) & (loosest_s > -np.inf))
    return met


def bounds_s(requests: pd.DataFrame, objective: Objective, unloaded: pd.DataFrame | None) -> FloatArray:
    """Bound of each request: the stated time, or the multiple of its own unloaded latency."""
    if not objective.is_multiple:
        return np.full(len(requests), objective.bound)
    return objective.bound * reference_s(requests, _required(unloaded), objective.latency)


def judge(objective: Objective, requests: pd.DataFrame, itl: pd.DataFrame, unloaded: pd.DataFrame | None) -> Verdict:
    """One objective over the measured requests; a request that never got there counts as infinitely late.

    A multiple is judged on each request's ratio to its own unloaded latency.
    """
    if objective.latency == "itl":
        return _judge_gaps(objective, requests, itl, unloaded)
    if objective.service_class is not None:
        requests = requests[objective.is_for(requests)]
    failed = ~is_finished(requests)
    values = floats(requests, f"{objective.latency}_s")
    if objective.is_multiple:
        values = values / reference_s(requests, _required(unloaded), objective.latency)
    values = np.where(failed, math.inf, values)
    values = values[~np.isnan(values)]
    attained = float((values <= objective.bound).mean()) if len(values) else math.nan
    return Verdict(objective, statistic(values, objective.statistic), attained)


def _judge_gaps(
    objective: Objective, requests: pd.DataFrame, itl: pd.DataFrame, unloaded: pd.DataFrame | None
) -> Verdict:
    """ITL over all gaps, those of other classes too; a multiple is one of the mean unloaded TPOT."""
    counts = itl["num_gaps"].to_numpy(dtype=np.int64)
    lower_s, upper_s = floats(itl, "from_s"), floats(itl, "to_s")
    total = int(counts.sum())
    if total == 0:
        return Verdict(objective, math.nan, math.nan)
    if objective.statistic == "mean":
        observed_s = itl_mean_s(requests)
    else:
        edges_s = np.append(lower_s, upper_s[-1:])
        observed_s, _ = histogram_quantile(edges_s, counts, fraction_of(objective.statistic))
    unit_s = float(np.nanmean(floats(_required(unloaded), "tpot_s"))) if objective.is_multiple else 1.0
    within = np.clip((objective.bound * unit_s - lower_s) / (upper_s - lower_s), 0.0, 1.0)
    return Verdict(objective, observed_s / unit_s, float((counts * within).sum() / total))


def _required(unloaded: pd.DataFrame | None) -> pd.DataFrame:
    if unloaded is None:
        raise ValueError("an SLO in multiples of the unloaded request needs the unloaded latencies")
    return unloaded
