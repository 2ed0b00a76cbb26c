"""What would help, measured: the same requests again on a cluster that has a little more of one thing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.analysis.batch_means import batch_means
from hermes_sim.analysis.explanation import RunExplanation, explain_run
from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.statistics import difference_from, t_estimate
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.explain.knobs import Knob, LeftOut, knobs_of
from hermes_sim.explore.workers.workers import Workers, workers_of
from hermes_sim.run import run_scenario
from hermes_sim.scenario.scenario import Scenario

FloatArray = npt.NDArray[np.float64]

LATENCIES = ("e2e", "ttft", "tpot")
THROUGHPUT = "throughput"
REPLICAS = "replicas"
OnDone = Callable[[int, int], None]
"""(runs done, runs in all)."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """What is kept of a run: of its measured requests, by number, NaN where one has none."""

    requests: npt.NDArray[np.int64]
    seconds: dict[str, FloatArray]
    """e2e, ttft, tpot -> [num_requests]"""
    requests_per_s: float
    slo_met_frac: float


@dataclass(frozen=True, slots=True)
class Effect:
    """A metric with the change, beside the metric without."""

    before: float
    change: float
    """Seconds, or requests/s; of latencies the mean over the requests that have one in both runs."""
    half_width_95: float
    """Of the change, by batch means of the requests' own differences; NaN where the run is too short for it."""
    significant: bool | None

    @property
    def frac(self) -> float:
        """Of what it was: -0.059 is 5.9% less."""
        return self.change / self.before if self.before else math.nan

    @property
    def half_width_frac(self) -> float:
        return self.half_width_95 / abs(self.before) if self.before else math.nan


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What more of one thing did."""

    name: str
    resource: str
    amount: float
    effects: dict[str, Effect]
    """e2e, ttft, tpot, throughput."""
    slo_met_frac: float

    def elasticity(self, metric: str) -> float:
        """Percent of the metric per percent of the resource: -1, a time that goes with 1 / resource."""
        effect = self.effects.get(metric)
        if effect is None or not effect.before or effect.before + effect.change <= 0.0:
            return math.nan
        return math.log1p(effect.frac) / math.log(self.amount)


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """All that was tried: single resources, what helps most first, then replicas."""

    target: str
    """The metric that they are ranked by: that of a missed objective, else e2e."""
    tried: tuple[Sensitivity, ...]
    left_out: tuple[LeftOut, ...]
    """Neither tried nor expected to matter, and why."""
    failed: tuple[LeftOut, ...] = ()
    """Runs that could not go on, and why."""
    slo_met_frac: float = math.nan
    """Without a change."""

    @property
    def top(self) -> Sensitivity | None:
        """The resource that helps most; None where none does. A replica is more of all of them, and not among them."""
        single = (one for one in self.tried if one.resource != REPLICAS)
        helping = (one for one in single if self.gain(one) > 0.0 and one.effects[self.target].significant is not False)
        return next(helping, None)

    def gain(self, one: Sensitivity) -> float:
        """Elasticity of the target, positive where it gets better."""
        value = one.elasticity(self.target)
        if math.isnan(value):
            return -math.inf
        return value if self.target == THROUGHPUT else -value


def measure_sensitivities(
    results: Results,
    *,
    found: RunExplanation | None = None,
    workers: Workers | None = None,
    jobs: int | None = None,
    on_done: OnDone | None = None,
    only: Callable[[Knob], bool] | None = None,
) -> Sensitivities:
    """Runs the scenario again, and once for each knob that may matter, with the same requests and lengths.

    found: what explain_run says of the results. workers: else `jobs` processes of this machine. only: which of the
    knobs. Raises HermesError if the scenario itself can no longer be run.
    """
    knobs, left_out = knobs_of(results, explain_run(results) if found is None else found)
    knobs = [knob for knob in knobs if only is None or only(knob)]
    scenarios = [results.scenario, *(knob.turn(results.scenario) for knob in knobs)]
    if workers is not None:
        outcomes = _run(workers, scenarios, on_done)
    else:
        with workers_of(jobs) as own:
            outcomes = _run(own, scenarios, on_done)
    base = outcomes[0]
    if isinstance(base, str):
        raise HermesError(f"the scenario cannot be run again: {base}")
    tried, failed = [], []
    for knob, outcome in zip(knobs, outcomes[1:], strict=True):
        if isinstance(outcome, str):
            failed.append(LeftOut(knob.name, outcome))
        else:
            tried.append(_sensitivity(knob, base, outcome))
    target = target_of(results)
    whole = Sensitivities(target, tuple(tried), tuple(left_out), tuple(failed), base.slo_met_frac)
    ranked = tuple(sorted(tried, key=lambda one: (one.resource == REPLICAS, -whole.gain(one))))
    return Sensitivities(target, ranked, tuple(left_out), tuple(failed), base.slo_met_frac)


def target_of(results: Results) -> str:
    """The latency of the objective that is missed most, else E2E."""
    missed = [one for one in results.summary["slo"]["objectives"] if one["met"] is False]
    missed = [one for one in missed if one["latency"] in LATENCIES]
    if not missed:
        return "e2e"
    return str(max(missed, key=lambda one: one["excess_frac"] or 0.0)["latency"])


def _run(workers: Workers, scenarios: Sequence[Scenario], on_done: OnDone | None) -> list[Latencies | str]:
    """In the order of the scenarios; in words why a run could not be."""
    workers.prepare(scenarios[0])
    outcomes: dict[int, Latencies | str] = {}
    for number, outcome in workers.outcomes(latencies_of, scenarios, lost=_lost):
        outcomes[number] = outcome
        if on_done is not None:
            on_done(len(outcomes), len(scenarios))
    return [outcomes[number] for number in range(len(scenarios))]


def _lost(scenario: Scenario, why: str) -> Latencies | str:
    return why


def latencies_of(scenario: Scenario) -> Latencies | str:
    """Runs the scenario, in whichever process this is."""
    try:
        results = run_scenario(scenario)
    except HermesError as error:
        return str(error)
    measured = results.measured_requests
    finished = is_finished(measured)
    numbers = measured["request"].to_numpy(dtype=np.int64)
    seconds = {name: np.where(finished, floats(measured, f"{name}_s"), np.nan) for name in LATENCIES}
    throughput = results.summary["throughput"]["requests_per_s"]
    met = results.summary["slo"]["met_frac"]
    return Latencies(numbers, seconds, math.nan if throughput is None else throughput, math.nan if met is None else met)


def _sensitivity(knob: Knob, base: Latencies, changed: Latencies) -> Sensitivity:
    _, first, second = np.intersect1d(base.requests, changed.requests, assume_unique=True, return_indices=True)
    effects = {}
    for name in LATENCIES:
        before_s, after_s = base.seconds[name][first], changed.seconds[name][second]
        both = ~np.isnan(before_s) & ~np.isnan(after_s)
        if both.any():
            effects[name] = effect_on(before_s[both], after_s[both])
    rate = changed.requests_per_s - base.requests_per_s
    effects[THROUGHPUT] = Effect(base.requests_per_s, rate, math.nan, None)
    return Sensitivity(knob.name, knob.resource, knob.amount, effects, changed.slo_met_frac)


def effect_on(before_s: FloatArray, after_s: FloatArray) -> Effect:
    """Of the mean, request by request: what is alike in both runs cancels.

    The interval is that of a ratio of means, R = after / before, by batch means of `after - R before`: a long request
    gains more seconds than a short one, and one behind a longer line too, which is no doubt about the gain.
    Source: Cochran, Sampling Techniques, 3rd ed., 6.3 and 6.4.
    """
    before, change = float(before_s.mean()), float((after_s - before_s).mean())
    if before <= 0.0 or np.array_equal(before_s, after_s):
        return Effect(before, change, 0.0, change != 0.0)
    rest = batch_means(after_s - (1.0 + change / before) * before_s)
    interval = t_estimate(change, rest.standard_error, rest.degrees, rest.num, is_correlated=rest.is_correlated)
    difference = difference_from(interval)
    return Effect(before, change, difference.half_width_95, difference.significant)
