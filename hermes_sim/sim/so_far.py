"""How late the requests of a run under way are already, for whoever wants to stop a run that can only disappoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.advance import HAND_ON, NO_ENGINES, enter
from hermes_sim.sim.first_token import seen_prefills
from hermes_sim.sim.ranks import ARRIVAL
from hermes_sim.sim.status import FINISHED, UNFINISHED

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NUM_LOOKS: Final = 24
"""During the arrivals of a run."""
LEAST_BETWEEN: Final = 8
"""Arrivals between two looks."""


@dataclass(frozen=True, eq=False, slots=True)
class SoFar:
    """A run at a moment. Latencies are those that the requests have at least, whatever comes: 0 of requests that have
    not arrived, inf of those that are lost. All arrays: [num_requests]."""

    time_s: float
    arrival_s: FloatArray
    """NaN of requests that have not arrived, where the run decides when they do."""
    ttft_s: FloatArray
    tpot_s: FloatArray
    e2e_s: FloatArray
    waits: BoolArray
    """Arrived, without a first token (where there is no language model: not at its end)."""
    service_class: IntArray
    """Index into the workload's classes."""

    @property
    def num_arrived(self) -> int:
        return int((self.arrival_s <= self.time_s).sum())


StopWhen = Callable[[SoFar], str | None]
"""Why a run need not go on; None: it goes on. Called some NUM_LOOKS times, at arrivals."""


class RunStopped(Exception):
    """A run was stopped before its end, as was asked for. No error: whoever passes `stop_when` catches it."""

    def __init__(self, reason: str, time_s: float, num_arrived: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.time_s = time_s
        self.num_arrived = num_arrived


class Lookout:
    """Looks at a run every so many arrivals. Looking changes nothing: engines are brought to the present, as a router
    that reads their loads does. Raises RunStopped."""

    def __init__(self, coordinator: Coordinator, stop_when: StopWhen) -> None:
        lowered = coordinator.lowered
        self._coordinator = coordinator
        self._stop_when = stop_when
        self._number = lowered.requests.num_requests
        self.every = max(LEAST_BETWEEN, -(-self._number // NUM_LOOKS))
        """Arrivals between two looks."""
        self._num_arrived = 0
        self._engines = np.arange(len(lowered.replicas))
        self._first_token_rows = first_token_rows(coordinator)
        self._alone = lone_passes(coordinator)

    def arrived(self) -> None:
        """A request has arrived now."""
        self._num_arrived += 1
        if self._num_arrived % self.every == 0 or self._num_arrived == self._number:
            coordinator = self._coordinator
            time_s, rank = float(coordinator.clock.now), coordinator.clock.rank
            coordinator.dispatch.bring_up(self._engines, time_s, rank)
            self._look(time_s)

    def laid_out(self, time_s: float) -> None:
        """Arrivals that were laid out have been pushed up to that time."""
        coordinator = self._coordinator
        if coordinator.lowered.num_chain_rows > 0:
            enter(coordinator.handle, HAND_ON, NO_ENGINES, 0, 0, 0, time_s, ARRIVAL)
        coordinator.dispatch.bring_up(self._engines, time_s, ARRIVAL)
        self._look(time_s)

    def _look(self, time_s: float) -> None:
        found = self._so_far(time_s)
        reason = self._stop_when(found)
        if reason is not None:
            raise RunStopped(reason, time_s, found.num_arrived)

    def _so_far(self, time_s: float) -> SoFar:
        coordinator = self._coordinator
        lowered, state = coordinator.lowered, coordinator.state
        arrival_s = coordinator.arrival_s
        arrived = arrival_s <= time_s
        lost = (coordinator.status != FINISHED) & (coordinator.status != UNFINISHED)
        waited_s = np.where(arrived, time_s - arrival_s, 0.0)
        finish_s = np.append(state.row_finish_s[: lowered.num_visits], np.nan)
        ended = ~np.isnan(finish_s[:-1]) | lowered.skipped
        is_over = np.logical_and.reduceat(ended, lowered.first_row[:-1])
        last_s = np.fmax.reduceat(finish_s[:-1], lowered.first_row[:-1])
        e2e_s = np.where(is_over & ~np.isnan(last_s), last_s - arrival_s, np.where(is_over, 0.0, waited_s))
        rows = self._first_token_rows
        first_s = np.fmin.reduce(finish_s[rows], axis=1, initial=np.nan)
        passes = (~np.append(lowered.skipped, True)[rows]).any(axis=1)
        ttft_s = np.where(np.isnan(first_s), np.where(passes, waited_s, 0.0), first_s - arrival_s)
        waits = arrived & ~lost & np.where(passes, np.isnan(first_s), ~is_over)
        return SoFar(
            time_s,
            arrival_s,
            np.where(lost, np.inf, ttft_s),
            np.where(lost, np.inf, self._tpot_s(finish_s)),
            np.where(lost, np.inf, e2e_s),
            waits,
            lowered.request_class,
        )

    def _tpot_s(self, finish_s: FloatArray) -> FloatArray:
        """Of requests that are over and of one pass in one engine; 0 of others."""
        state = self._coordinator.state
        tpot_s = np.zeros(self._number)
        requests, prefill, decode = self._alone
        num_gaps = state.row_generated[decode] - 1
        same = (state.row_engine[prefill] == state.row_engine[decode]) & (num_gaps > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found_s = (finish_s[decode] - finish_s[prefill]) / num_gaps
        tpot_s[requests] = np.where(same & ~np.isnan(found_s), found_s, 0.0)
        return tpot_s


def first_token_rows(coordinator: Coordinator) -> IntArray:
    """[num_requests, most prefills] visits that may bring the client's first token; num_visits where there is none."""
    lowered = coordinator.lowered
    places = [seen_prefills(plan) for plan in lowered.pipelines]
    rows = np.full((lowered.requests.num_requests, max(1, *map(len, places))), lowered.num_visits)
    for number, own in enumerate(places):
        members = np.flatnonzero(lowered.request_pipeline == number)
        for column, place in enumerate(own):
            rows[members, column] = lowered.first_row[members] + place
    return rows


def lone_passes(coordinator: Coordinator) -> tuple[IntArray, IntArray, IntArray]:
    """Requests whose pipeline has one pass of a language model, one decode in it; the visits of both."""
    lowered = coordinator.lowered
    found = [np.zeros((3, 0), np.int64)]
    for number, plan in enumerate(lowered.pipelines):
        passes = [place for place, stage in enumerate(plan.stages) if stage.stage.runs_on == "tokens"]
        seen = seen_prefills(plan)
        if len(passes) == 2 and len(seen) == 1 and (decode := plan.stages[seen[0]].decode) is not None:
            members = np.flatnonzero(lowered.request_pipeline == number)
            first = lowered.first_row[members]
            found.append(np.stack([members, first + seen[0], first + decode]))
    requests, prefill, decodes = np.concatenate(found, axis=1)
    return requests, prefill, decodes
