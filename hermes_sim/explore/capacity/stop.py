"""When a run can no longer pass: more requests are late already than an objective allows, or the queue only grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.analysis.human import count
from hermes_sim.analysis.objectives import Objective
from hermes_sim.analysis.quantiles import fraction_of, quantile
from hermes_sim.explore.capacity.criterion import ATTAINMENT, SATURATION, objective_name
from hermes_sim.scenario.measure import Measure
from hermes_sim.sim.so_far import SoFar

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SEEN_EARLY: Final = ("ttft", "tpot", "e2e")
"""Latencies that sim/so_far.py knows a least value of."""
ROUNDING: Final = 1.0 + 1e-9
WAITING_FRAC: Final = 0.25
"""Of all requests of the run, waiting at once."""
WAITING_CHANCE: Final = 10.0
"""Times the square root of their number: a queue in balance never gets there."""


@dataclass(slots=True)
class StopRule:
    """Asked of a run at moments (StopWhen). What it says never contradicts the run's end: percentiles are judged by the
    number of measured requests beyond the bound, means by the sum so far.

    references_s: latency -> [num_requests] what each request takes alone, for limits that are multiples of it; such
    objectives are not looked at while it is missing.
    """

    objectives: tuple[Objective, ...]
    attainment_frac: float | None
    measure: Measure
    classes: tuple[str, ...]
    num_requests: int
    is_steady: bool
    """Arrivals of a constant rate: a long queue is there to stay."""
    references_s: Mapping[str, FloatArray] = field(default_factory=dict)
    binding: str = ""
    """What the reason is about, once there is one."""
    excess: float = math.nan
    """As of capacity_criterion.Judgement, of the requests that had arrived: how hopeless it looked."""

    def __call__(self, so_far: SoFar) -> str | None:
        if self.is_steady and (num_waiting := int(so_far.waits.sum())) > max(
            WAITING_FRAC * self.num_requests, WAITING_CHANCE * math.sqrt(self.num_requests)
        ):
            self.binding = SATURATION
            return f"{count(num_waiting)} of {count(self.num_requests)} requests wait at once"
        if self.measure.cool_down.time_s:
            return None
        measured, number = self._measured(so_far)
        if self.attainment_frac is not None:
            return self._attained(so_far, measured, number)
        return next((text for one in self.objectives if (text := self._missed(one, so_far, measured, number))), None)

    def _measured(self, so_far: SoFar) -> tuple[BoolArray, int]:
        """Arrived requests that will be measured, and how many there will be at most."""
        arrival_s = np.where(so_far.arrival_s <= so_far.time_s, so_far.arrival_s, np.inf)
        if self.measure.warm_up.time_s:
            late = arrival_s >= self.measure.warm_up.time_s
            return late & np.isfinite(arrival_s) & self._before_the_end(arrival_s), self.num_requests
        first = int((self.measure.warm_up.requests_frac or 0.0) * self.num_requests)
        place = _places(arrival_s)
        measured = np.isfinite(arrival_s) & (place >= first) & self._before_the_end(arrival_s)
        return measured, self._last - first

    def _before_the_end(self, arrival_s: FloatArray) -> BoolArray:
        return np.asarray(_places(arrival_s) < self._last)

    @property
    def _last(self) -> int:
        return self.num_requests - int((self.measure.cool_down.requests_frac or 0.0) * self.num_requests)

    def _least(self, objective: Objective, so_far: SoFar) -> FloatArray | None:
        """[num_requests] in the unit of the bound: seconds, or multiples."""
        if objective.latency not in SEEN_EARLY:
            return None
        least_s: FloatArray = getattr(so_far, f"{objective.latency}_s")
        if not objective.is_multiple:
            return least_s
        reference_s = self.references_s.get(objective.latency)
        if reference_s is None or len(reference_s) != len(least_s):
            return None
        return np.asarray(np.nan_to_num(least_s / reference_s, nan=0.0))

    def _concerned(self, objective: Objective, so_far: SoFar) -> BoolArray:
        if objective.service_class is None:
            return np.ones(len(so_far.service_class), np.bool_)
        return np.asarray(so_far.service_class == self.classes.index(objective.service_class))

    def _missed(self, objective: Objective, so_far: SoFar, measured: BoolArray, number: int) -> str | None:
        least = self._least(objective, so_far)
        if least is None:
            return None
        concerned = self._concerned(objective, so_far)
        number = min(number, int(concerned.sum()))
        least = least[concerned & measured]
        name = objective_name(objective)
        if objective.statistic == "mean":
            if float(least.sum()) <= objective.bound * number * ROUNDING:
                return None
            self.binding, self.excess = name, _log(float(least.mean()) / objective.bound)
            return f"{name}: the sum so far is beyond that of {count(number)} requests at the bound"
        num_beyond = int((least > objective.bound * ROUNDING).sum())
        if num_beyond < num_allowed_beyond(number, fraction_of(objective.statistic)) + 1:
            return None
        fraction = fraction_of(objective.statistic)
        self.binding, self.excess = name, _log(quantile(least, fraction) / objective.bound)
        return f"{name}: {count(num_beyond)} of {count(number)} requests are beyond the bound"

    def _attained(self, so_far: SoFar, measured: BoolArray, number: int) -> str | None:
        """Where one latency has several bounds the loosest counts, as in analysis/objectives.py."""
        assert self.attainment_frac is not None
        missed = np.zeros(len(measured), np.bool_)
        for latency in SEEN_EARLY:
            own = [one for one in self.objectives if one.latency == latency]
            found = [(self._least(one, so_far), self._concerned(one, so_far), one.bound) for one in own]
            if not own or any(least is None for least, _, _ in found):
                continue
            kept = np.zeros(len(measured), np.bool_)
            any_bound = np.zeros(len(measured), np.bool_)
            for least, concerned, bound in found:
                assert least is not None
                kept |= concerned & (least <= bound * ROUNDING)
                any_bound |= concerned
            missed |= any_bound & ~kept
        num_missed = int((missed & measured).sum())
        allowed = math.floor(number * (1.0 - self.attainment_frac) + 1e-9)
        if num_missed <= allowed:
            return None
        expected = num_missed * number / max(int(measured.sum()), 1)
        self.binding, self.excess = ATTAINMENT, math.log((expected + 1.0) / (allowed + 1.0))
        return f"{count(num_missed)} of {count(number)} requests are not good, {count(allowed)} may be"


def num_allowed_beyond(number: int, fraction: float) -> int:
    """Of so many values, how many may lie beyond a bound that their percentile (interpolated linearly between order
    statistics) keeps."""
    return number - 1 - int((number - 1) * fraction)


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0.0 and math.isfinite(ratio) else math.nan


def _places(arrival_s: FloatArray) -> npt.NDArray[np.int64]:
    """[num_requests] place of each in the order of arrival."""
    order = np.argsort(arrival_s, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place
