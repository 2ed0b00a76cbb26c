"""Passes that begin with all that an earlier pass of the same request, or the turn before, has left in the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hermes_sim.scenario.visited import Visited, ancestors
from hermes_sim.sim.lengths import Lengths
from hermes_sim.sim.plans import PipelinePlan
from hermes_sim.sim.replicas import Replica, most_tokens
from hermes_sim.sim.sequences import heads, sequence_from
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.timed import Timed
from hermes_sim.state.arrays import WAIT_LRU, EngineArrays
from hermes_sim.state.sequences import final_outputs
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
NONE = -1


def fill_returns(
    state: EngineArrays,
    walks: Mapping[str, Sequence[Visited]],
    plans: Sequence[PipelinePlan],
    lengths: Lengths,
    requests: RequestTable,
    replicas: Sequence[Replica],
) -> None:
    """Who goes on from whom, and the wait that can be expected in between: the mean times of tools that state theirs,
    the mean pause of users. Nothing where all engines leave such KV to their prefix caches (`while_waiting: lru`).

    A pass is one whose request is certain to send it: no route by load decides on it, and every engine that may take a
    pass of the request can hold it.
    """
    if (state.while_waiting == WAIT_LRU).all():
        return
    capacity = np.array([most_tokens(replica) for replica in replicas], np.int64)
    turns = _Turns(requests.num_requests)
    for number, (plan, stages) in enumerate(zip(plans, walks.values(), strict=True)):
        members = np.flatnonzero(lengths.request_pipeline == number)
        rows = lengths.first_row[members]
        fits = _fits(state, plan, stages, rows, lengths, capacity)
        of_all = ancestors(stages)
        ended: dict[tuple[int, ...], IntArray] = {}
        """Engines -> [num_members] place of the pass that was the last one there; -1: none that can be gone on from."""
        for head in heads(stages):
            sequence = sequence_from(stages, head)
            # a note, or a pass beside others, is a text of its own: the one before it still waits
            goes_on = fits & ~lengths.skipped[rows + head] & (state.row_text[rows + head] != rows + head)
            engines = tuple(plan.stages[head].candidates.tolist())
            if (state.while_waiting[plan.stages[head].candidates] == WAIT_LRU).any():
                continue
            if engines not in ended:
                ended[engines] = np.full(len(members), NONE, np.int64)
                if not ended.keys() - {engines} and _is_certain(stages, head):
                    turns.begin(members[goes_on], rows[goes_on] + head, engines)
            last = ended[engines]
            for place in np.unique(last[goes_on & (last >= 0)]).tolist():
                if place in of_all[head] and _is_certain(stages, head):
                    who = goes_on & (last == place)
                    _connect(state, rows[who] + place, rows[who] + head, _wait_s(stages, of_all, place, head))
            several = any(_num_sequences(stages[place]) > 1 for place in sequence)
            last[goes_on] = NONE if several else sequence[-1]
        for engines, last in ended.items():
            here = last >= 0
            turns.end(members[here], rows[here] + last[here], engines)
    turns.connect(state, requests)


@dataclass(slots=True)
class _Turns:
    """Where sessions can go on from one request to the next."""

    num_requests: int
    groups: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Engines -> their number."""
    first: IntArray = field(init=False)
    """[num_requests] row of the first pass of each request; -1: none that can go on from the turn before."""
    first_group: IntArray = field(init=False)
    last: dict[int, IntArray] = field(default_factory=dict)
    """Number of engines -> [num_requests] row of the last pass there; -1: none."""

    def __post_init__(self) -> None:
        self.first = np.full(self.num_requests, NONE, np.int64)
        self.first_group = np.full(self.num_requests, NONE, np.int64)

    def _number(self, engines: tuple[int, ...]) -> int:
        return self.groups.setdefault(engines, len(self.groups))

    def begin(self, requests: IntArray, rows: IntArray, engines: tuple[int, ...]) -> None:
        """The first passes of some requests."""
        self.first[requests] = rows
        self.first_group[requests] = self._number(engines)

    def end(self, requests: IntArray, rows: IntArray, engines: tuple[int, ...]) -> None:
        """The last passes of some requests on some engines."""
        nothing = np.full(self.num_requests, NONE, np.int64)
        self.last.setdefault(self._number(engines), nothing)[requests] = rows

    def connect(self, state: EngineArrays, requests: RequestTable) -> None:
        """The first pass of a turn goes on from the last of the turn before, if both are their session's history."""
        turns = np.flatnonzero((requests.previous >= 0) & (self.first >= 0))
        turns = turns[(state.content_session[turns] >= 0) & (np.diff(requests.hash_offsets)[turns] == 0)]
        if len(turns) == 0:
            return
        before = requests.previous[turns]
        pause_s = float(requests.think_s[turns].mean())
        same = (state.content_session[turns] == state.content_session[before]) & (
            np.diff(requests.hash_offsets)[before] == 0
        )
        for number, last in self.last.items():
            known = same & (self.first_group[turns] == number) & (last[before] >= 0)
            _connect(state, last[before[known]], self.first[turns[known]], pause_s)


def _connect(state: EngineArrays, before: IntArray, after: IntArray, wait_s: float) -> None:
    """Visits that go on from others in one text which has grown."""
    whole = state.row_prompt[before] + final_outputs(state, before)
    grown = (state.row_text[before] == state.row_text[after]) & (state.row_prompt[after] >= whole)
    state.row_returns_as[before[grown]] = after[grown]
    state.row_came_from[after[grown]] = before[grown]
    state.row_wait_s[before[grown]] = wait_s


def _fits(
    state: EngineArrays,
    plan: PipelinePlan,
    stages: Sequence[Visited],
    rows: IntArray,
    lengths: Lengths,
    capacity: IntArray,
) -> Flags:
    """[num_members] whether no engine can refuse a pass of the request."""
    found = np.ones(len(rows), bool)
    for head in heads(stages):
        longest = state.row_prompt[rows + head] + final_outputs(state, rows + sequence_from(stages, head)[-1])
        found &= lengths.skipped[rows + head] | (longest <= capacity[plan.stages[head].candidates].min())
    return found


def _is_certain(stages: Sequence[Visited], place: int) -> bool:
    """Whether it is known before the run who passes a stage."""
    routes = (route for group in stages[place].when for route, _ in group)
    return not any(getattr(stages[route].stage, "by", "") == "load" for route in routes)


def _num_sequences(visited: Visited) -> int:
    return visited.stage.num_samples if isinstance(visited.stage, Decode) else 1


def _wait_s(stages: Sequence[Visited], of_all: Sequence[frozenset[int]], place: int, head: int) -> float:
    """What the stages between two passes say that they take."""
    between = of_all[head] - of_all[place] - {place}
    timed = (stages[one].stage for one in between)
    return sum(stage.service_time.typical_s for stage in timed if isinstance(stage, Timed))
