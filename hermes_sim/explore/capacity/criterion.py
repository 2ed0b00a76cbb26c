"""When a load is borne: every objective holds, or enough requests are good; and the queues do not grow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.findings import CHANCE_FACTOR, MIN_GROWTH_FRAC, queue_growth
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.human import as_written, count, digits, duration, percent
from hermes_sim.analysis.objectives import Objective, Verdict, judge, objectives_of
from hermes_sim.explore.capacity.load_run import LoadRun
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.workload.load import LoadUnit

SATURATION: Final = "saturation"
ATTAINMENT: Final = "attainment"
FILLING_FRAC: Final = 0.1
"""Of the time in which requests arrive: a longer mean E2E means that the machine was filling for most of the run."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a load is judged by."""

    attainment_frac: float | None = None
    """Share of the requests that must keep all limits, in place of each limit at its own percentile."""
    tolerance: float = 0.02
    """Overload that is not looked for: a queue that grows by so large a share of the arrivals may be chance."""

    def objectives(self, scenario: Scenario) -> tuple[Objective, ...]:
        return objectives_of(scenario.workload.promises())


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a run of full length has fared."""

    passed: bool
    binding: str
    """Objective that is nearest to its bound or furthest beyond it, as in 'ttft p99'; saturation; attainment."""
    observed: float
    """Seconds, a multiple, or a share; of saturation requests by which the queues grew."""
    bound: float
    excess: float
    """Logarithm of observed over bound, of attainment that of the shares missed; NaN of saturation."""
    text: str
    """In words."""
    is_short: bool = False
    """It passed, but a longer run could tell otherwise: the machine was filling, or the queues grew a little."""
    growth_frac: float = 0.0
    """Growth of the queues over the arrivals."""


def judge_load(
    run: LoadRun, criterion: Criterion, unit: LoadUnit, unloaded: pd.DataFrame | None, *, is_doubtful: bool = False
) -> Judgement:
    """A queue that grows to the last arrival fails whatever the latencies: those of a longer run would be worse.

    is_doubtful: under a backlog less than this load is served, so that a smaller growth is enough.
    """
    requests = run.requests
    num_arrived = int(np.isfinite(floats(requests, "arrival_s")).sum())
    growth = 0.0 if unit == "clients" else queue_growth(run.visits, requests)
    growth_frac = growth / num_arrived if num_arrived else 0.0
    share, chance = (criterion.tolerance / 2.0, 1.0) if is_doubtful else (MIN_GROWTH_FRAC, CHANCE_FACTOR)
    allowed = max(share * num_arrived, chance * math.sqrt(num_arrived))
    if growth > allowed:
        text = f"the queues grew by {count(growth)} of {count(num_arrived)} requests"
        return Judgement(False, SATURATION, growth, allowed, math.nan, text, growth_frac=growth_frac)
    is_short = growth_frac > criterion.tolerance or _was_filling(requests)
    worst = _worst(run, criterion, unloaded)
    if worst is None:
        return Judgement(True, SATURATION, growth, allowed, math.nan, "no objective", is_short, growth_frac)
    binding, observed, bound, excess, text = worst
    return Judgement(excess <= 0.0, binding, observed, bound, excess, text, is_short and excess <= 0.0, growth_frac)


def _was_filling(requests: pd.DataFrame) -> bool:
    arrival_s, e2e_s = floats(requests, "arrival_s"), floats(requests, "e2e_s")
    if not np.isfinite(e2e_s).any():
        return False
    return bool(np.nanmean(e2e_s) > FILLING_FRAC * (np.nanmax(arrival_s) - np.nanmin(arrival_s)))


def _worst(
    run: LoadRun, criterion: Criterion, unloaded: pd.DataFrame | None
) -> tuple[str, float, float, float, str] | None:
    """(binding, observed, bound, excess, words); None where nothing is promised."""
    objectives = criterion.objectives(run.scenario)
    if not objectives:
        return None
    measured = run.measured_requests
    found = []
    if criterion.attainment_frac is not None:
        found.append(_attained(measured, criterion.attainment_frac))
        objectives = tuple(one for one in objectives if one.latency == "itl")
    verdicts = [judge(one, measured, run.itl, unloaded) for one in objectives]
    found += [
        (objective_name(one.objective), one.observed, one.objective.bound, _log_ratio(one), verdict_words(one))
        for one in verdicts
        if one.met is not None
    ]
    return max(found, key=lambda one: one[3]) if found else None


def _log_ratio(verdict: Verdict) -> float:
    if verdict.observed <= 0.0:
        return -math.inf
    return math.log(verdict.observed / verdict.objective.bound) if math.isfinite(verdict.observed) else math.inf


def _attained(measured: pd.DataFrame, asked_frac: float) -> tuple[str, float, float, float, str]:
    """The excess is that of the requests missed over those that may be, one more of each so that none is zero."""
    good = measured["slo_met"].to_numpy(dtype=np.bool_)
    share = float(good.mean()) if len(good) else math.nan
    missed, allowed = len(good) - int(good.sum()), math.floor(len(good) * (1.0 - asked_frac) + 1e-9)
    excess = math.log((missed + 1) / (allowed + 1))
    return (
        ATTAINMENT,
        share,
        asked_frac,
        excess,
        f"{percent(share)} of the requests are good, {percent(asked_frac)} asked",
    )


def objective_name(objective: Objective) -> str:
    """'ttft p99', of a class 'ttft p99 of chat'."""
    name = f"{objective.latency} {objective.statistic}"
    return name if objective.service_class is None else f"{name} of {objective.service_class}"


def verdict_words(verdict: Verdict) -> str:
    """'TTFT p99 1.97 s of 2 s'."""
    objective = verdict.objective
    of_class = "" if objective.service_class is None else f" of {objective.service_class}"
    name = f"{objective.latency.upper()} {objective.statistic}{of_class}"
    if objective.is_multiple:
        return f"{name} {digits(verdict.observed)} x of {objective.bound:g} x"
    observed = "of lost requests" if math.isinf(verdict.observed) else duration(verdict.observed)
    return f"{name} {observed} of {as_written(objective.bound)}"
