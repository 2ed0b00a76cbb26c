"""Runs of one configuration at one load after another, each judged; as long as it takes to be steady."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim import __version__
from hermes_sim.analysis import metrics
from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.objectives import needs_unloaded
from hermes_sim.analysis.quantiles import fraction_of, num_values_needed
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.unloaded import reference_s
from hermes_sim.core.tables import RunTables
from hermes_sim.explore.capacity.bracket import Tried
from hermes_sim.explore.capacity.criterion import Criterion, Judgement, judge_load
from hermes_sim.explore.capacity.grid import LoadLadder
from hermes_sim.explore.capacity.load_run import load_run, requests_of
from hermes_sim.explore.capacity.row import limit_metrics
from hermes_sim.explore.capacity.stop import StopRule
from hermes_sim.explore.run_key import run_key
from hermes_sim.run import unloaded_latencies
from hermes_sim.scenario.measure import Margin, Measure
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.sim.so_far import RunStopped
from hermes_sim.workload.arrivals.renewal import Renewal
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.load import OfferedLoad, all_at_once, at_load, offered_load

WARM_UP: Final = Margin(requests_frac=0.1)
"""Left out of the measurement where the workload does not say what is."""
MOST_DOUBLINGS: Final = 4
"""Of the number of requests, for runs that pass and are too short to be trusted."""
LONG_FACTOR: Final = 8
"""Times the number of requests, of a run whose load is doubtful."""
LEAST_BACKLOG: Final = 2000
"""Requests that come all at once to see what the machine works off; twice those of a run, if that is more."""

PASSED, FAILED, STOPPED, BACKLOG = "passed", "failed", "stopped early", "backlog"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same for all loads of one configuration and seed."""

    scenario: Scenario
    criterion: Criterion
    num_requests: int | None = None
    """Of a run at first; None: the workload's, and as many as its percentiles want."""
    early_stop: bool = True
    known: Mapping[str, Row] = field(default_factory=dict)
    """Rows of former probes, by their key."""


class Prober:
    """Tries loads and keeps a row of each run."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        scenario = setting.scenario
        workload = scenario.workload
        if workload.measure == Measure():
            workload = workload.model_copy(update={"measure": Measure(warm_up=WARM_UP)})
        self.scenario = scenario.model_copy(update={"workload": workload})
        self.base: OfferedLoad = offered_load(workload.traffic, scenario.seed)
        self.ladder = LoadLadder(self.base.unit, setting.criterion.tolerance)
        self.objectives = setting.criterion.objectives(scenario)
        self.num_requests = self._first_number()
        self.rows: list[Row] = []
        self.num_reused = 0
        self._unloaded: pd.DataFrame | None = None
        self._references_s: dict[int, dict[str, Any]] = {}
        self._last_passed: tuple[Scenario, RunTables] | None = None
        self._served_per_s: float | None = None
        self._any_turns = False
        self._longest_s = 1.0

    def _first_number(self) -> int:
        number = self.num_needed if self._setting.num_requests is None else self._setting.num_requests
        if self._setting.num_requests is None:
            number = max(number, self.base.num_requests)
        return number if self.base.most_requests is None else min(number, self.base.most_requests)

    @property
    def num_needed(self) -> int:
        """Requests of a run from which its highest percentile is known, what is cut off included."""
        asked: list[str] = [one.statistic for one in self.objectives if one.statistic != "mean"]
        if self._setting.criterion.attainment_frac is not None:
            asked = [f"p{100 * self._setting.criterion.attainment_frac:g}"]
        wanted = max((num_values_needed(fraction_of(name)) for name in asked if fraction_of(name) < 1.0), default=0)
        measure = self.scenario.workload.measure
        cut = (measure.warm_up.requests_frac or 0.0) + (measure.cool_down.requests_frac or 0.0)
        return math.ceil(wanted / max(1.0 - cut, 0.01))

    @property
    def most_rung(self) -> int | None:
        """Clients: no more than a tenth of the requests; rates: no end."""
        if self.base.unit != "clients":
            return None
        most = self.num_requests * 2**MOST_DOUBLINGS / 10
        return self.ladder.below(most if self.base.most_requests is None else self.base.most_requests / 10)

    # ----- what the machine can do

    def served_per_s(self) -> float:
        """Load that the machine works off under a lasting backlog, in the load's unit: requests come all at once, and
        those in the middle of their ends are counted. What is offered beyond it is doubtful: most machines never catch
        up with it."""
        if self._served_per_s is None:
            self._served_per_s = self._run_backlog()
        return self._served_per_s

    def is_doubtful(self, value: float) -> bool:
        """Whether a load is beyond that; never where pauses between turns set the pace of a backlog."""
        return self.base.unit == "requests/s" and value > self.served_per_s() and not self._any_turns

    def _run_backlog(self) -> float:
        started_s = perf_counter()
        number = max(LEAST_BACKLOG, 2 * self.num_requests)
        traffic = at_load(self.scenario.workload.traffic, self.base, self.base.value, number)
        requests = all_at_once(generate_requests(traffic, self.scenario.seed), number)
        self._any_turns = bool((requests.previous >= 0).any())
        frame = requests_of(simulate_scenario(self.scenario, requests=requests))
        self._longest_s = max(float(np.nan_to_num(floats(frame, "e2e_s")).max(initial=0.0)), self._longest_s)
        sessions_frac = float(np.mean(requests.previous < 0)) if self.base.unit == "sessions/s" else 1.0
        per_s = sessions_frac * middle_rate_per_s(floats(frame, "finish_s"))
        head = {"rung": None, "load": per_s, "num_requests": len(frame), "key": "", "reused": False}
        self.rows.append({**head, "outcome": BACKLOG, "wall_time_s": perf_counter() - started_s})
        return per_s if per_s > 0.0 else self.base.value

    # ----- one load

    def attempt(self, rung: int) -> Tried:
        """Judged on a run that is as long as it takes: one that passes while the machine was filling, or while the
        queues grew a little, is run again with twice as many requests."""
        value = self.ladder.value(rung)
        number = max(self.num_requests, 10 * round(value) if self.base.unit == "clients" else 0)
        if self.is_doubtful(value):
            number = min(LONG_FACTOR * number, self.base.most_requests or LONG_FACTOR * number)
        for doubling in range(MOST_DOUBLINGS + 1):
            row = self._row(rung, number)
            longer = 2 * number if self.base.most_requests is None else min(2 * number, self.base.most_requests)
            if row["outcome"] != PASSED or not row["is_short"] or longer <= number or doubling == MOST_DOUBLINGS:
                break
            number = longer
        passed = row["outcome"] == PASSED
        if passed and self.base.unit == "clients" and rung > 0 and not self._gains(rung, row):
            row |= {"outcome": FAILED, "binding": "saturation", "excess": math.nan}
            row["text"] = "half as many clients get as much done"
            passed = False
        return Tried(passed, float(row["excess"]))

    def _gains(self, rung: int, row: Row) -> bool:
        """Whether so many clients get more done than half of them."""
        half = self.ladder.below(self.ladder.value(rung) / 2)
        fewer = self._row(half, row["num_requests"])
        if fewer["outcome"] != PASSED or half == rung:
            return True
        return bool(row["requests_per_s"] > fewer["requests_per_s"] * (1.0 + self._setting.criterion.tolerance))

    def limit_row(self, rung: int) -> Row:
        """The longest run at a load that passed, with what the machine did in it."""
        rows = [row for row in self.rows if row["rung"] == rung and row["outcome"] == PASSED]
        row = max(rows, key=lambda row: int(row["num_requests"]))
        if not row.get("engine"):
            scenario = self._scenario_at(rung, int(row["num_requests"]))
            if self._last_passed is None or self._last_passed[0] != scenario:
                self._last_passed = (scenario, simulate_scenario(scenario))
            unloaded = self._lone() if needs_unloaded(self.objectives) else None
            results = Results.from_tables(self._last_passed[1], scenario, version=__version__, unloaded=unloaded)
            row |= limit_metrics(results)
        return row

    def last_row(self, rung: int) -> Row:
        """The run that decided about a load."""
        return max((row for row in self.rows if row["rung"] == rung), key=lambda row: int(row["num_requests"]))

    def whole_row(self, rung: int) -> Row:
        """The run that decided about a load, to its end."""
        number = int(self.last_row(rung)["num_requests"])
        return self._row(rung, number, whole=True)

    def _row(self, rung: int, number: int, *, whole: bool = False) -> Row:
        early_stop = self._setting.early_stop and not whole
        for row in self.rows:
            if row["rung"] == rung and row["num_requests"] == number and (early_stop or row["outcome"] != STOPPED):
                return row
        scenario = self._scenario_at(rung, number)
        key = probe_key(scenario, self._setting.criterion)
        head = {"rung": rung, "load": self.ladder.value(rung), "num_requests": number, "key": key}
        known = self._setting.known.get(key)
        if known is not None and (early_stop or known["outcome"] != STOPPED):
            self.num_reused += 1
            row = {**known, **head, "reused": True}
        else:
            row = {**head, **self._run(scenario, rung, number, early_stop), "reused": False}
        self.rows.append(row)
        return row

    def _scenario_at(self, rung: int, number: int) -> Scenario:
        workload = self.scenario.workload
        traffic = at_load(workload.traffic, self.base, self.ladder.value(rung), number)
        return self.scenario.model_copy(update={"workload": workload.model_copy(update={"traffic": traffic})})

    def _run(self, scenario: Scenario, rung: int, number: int, early_stop: bool) -> Row:
        started_s = perf_counter()
        rule = self._stop_rule(scenario, number) if early_stop else None
        try:
            tables = simulate_scenario(scenario, stop_when=rule)
        except RunStopped as stopped:
            assert rule is not None
            return {
                "outcome": STOPPED,
                "binding": rule.binding,
                "text": stopped.reason,
                "num_arrived": stopped.num_arrived,
                "is_short": False,
                "excess": rule.excess,
                "wall_time_s": perf_counter() - started_s,
            }
        unloaded = self._lone() if needs_unloaded(self.objectives) else None
        run = load_run(tables, scenario, unloaded)
        if unloaded is not None and number not in self._references_s:
            self._references_s[number] = {
                latency: reference_s(run.requests, unloaded, latency)
                for latency in {one.latency for one in self.objectives if one.is_multiple and one.latency != "itl"}
            }
        doubtful = self.is_doubtful(self.ladder.value(rung))
        judgement = judge_load(run, self._setting.criterion, self.base.unit, unloaded, is_doubtful=doubtful)
        if judgement.passed:
            self._last_passed = (scenario, tables)
        return {
            **_judged(judgement),
            "num_arrived": number,
            "requests_per_s": metrics.requests_per_s(run.requests, run.window),
            "wall_time_s": perf_counter() - started_s,
        }

    def _stop_rule(self, scenario: Scenario, number: int) -> StopRule:
        workload = scenario.workload
        steady = isinstance(workload.traffic.arrivals, Renewal) and workload.traffic.sessions is None
        return StopRule(
            self.objectives,
            self._setting.criterion.attainment_frac,
            workload.measure,
            tuple(one.name for one in workload.classes),
            number,
            is_steady=steady,
            references_s=self._references_s.get(number, {}),
        )

    def _lone(self) -> pd.DataFrame:
        """Latencies of the requests alone, for limits that are multiples of them."""
        if self._unloaded is None:
            self._unloaded = self.unloaded()
        return self._unloaded

    def unloaded(self) -> pd.DataFrame:
        """Latencies of the first requests alone on the cluster, one after the other."""
        traffic = at_load(self.scenario.workload.traffic, self.base, self.base.value, self.num_requests)
        workload = self.scenario.workload.model_copy(update={"traffic": traffic})
        scenario = self.scenario.model_copy(update={"workload": workload})
        return unloaded_latencies(scenario, pd.DataFrame({"e2e_s": [self._longest_s]}))

    @property
    def short_words(self) -> str | None:
        """Why the percentiles asked for rest on too few requests; None where they do not."""
        if self.num_requests >= self.num_needed:
            return None
        return f"{self.num_requests:,} requests a run, the percentiles asked for want {self.num_needed:,}"


def _judged(judgement: Judgement) -> Row:
    return {
        "outcome": PASSED if judgement.passed else FAILED,
        "binding": judgement.binding,
        "text": judgement.text,
        "observed": judgement.observed,
        "bound": judgement.bound,
        "excess": judgement.excess,
        "is_short": judgement.is_short,
        "growth_frac": judgement.growth_frac,
    }


def probe_key(scenario: Scenario, criterion: Criterion) -> str:
    """Hash of all that decides what becomes of a run."""
    return hashlib.sha256(f"{run_key(scenario, None, [])} {criterion}".encode()).hexdigest()[:16]


def middle_rate_per_s(finish_s: FloatArray) -> float:
    """Ends a second, of the middle half of them, so that filling and draining do not count; of few the whole."""
    ends_s = np.sort(finish_s[np.isfinite(finish_s)])
    if len(ends_s) == 0 or ends_s[-1] <= 0.0:
        return 0.0
    first, last = len(ends_s) // 4, max(3 * len(ends_s) // 4, 1) - 1
    middle_s = float(ends_s[last] - ends_s[first])
    whole_per_s = len(ends_s) / float(ends_s[-1])
    return max(whole_per_s, (last - first) / middle_s) if middle_s > 0.0 else whole_per_s
