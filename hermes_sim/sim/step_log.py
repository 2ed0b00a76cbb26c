"""Every step of the token engines and every decision in it, for comparison with a real engine's scheduler.

Works with one event per step: the compiled scheduler notes its decisions, and they are read after each begin and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hermes_sim.batching.batch import (
    DECODE_CONTEXT_SUM,
    NUM_DECODE,
    NUM_DECODE_TOKENS,
    NUM_DRAFTED,
    NUM_PREFILL,
    NUM_TOKENS,
)
from hermes_sim.core.tables import DECISIONS, STEPS, Table
from hermes_sim.state.arrays import (
    ACCEPTED,
    ADMITTED,
    FINISHED_ROW,
    PREEMPTED,
    SCHEDULED,
    SWAPPED_IN,
    SWAPPED_OUT,
    TOKENS,
    WITHDRAWN,
)

if TYPE_CHECKING:
    from hermes_sim.sim.lower import Lowered

KIND_NAMES = {
    SCHEDULED: "scheduled",
    PREEMPTED: "preempted",
    ADMITTED: "admitted",
    SWAPPED_OUT: "swapped_out",
    SWAPPED_IN: "swapped_in",
    FINISHED_ROW: "finished",
    ACCEPTED: "accepted",
    WITHDRAWN: "withdrawn",
}
AT_END = frozenset({FINISHED_ROW, ACCEPTED, WITHDRAWN})
"""Kinds that are known when a step ends; the others when it begins."""


class Decision(NamedTuple):
    """One note of the scheduler."""

    kind: int
    row: int
    amount: int


@dataclass(slots=True)
class Step:
    """One step, from its begin on."""

    engine: int
    number: int
    columns: dict[str, Any]
    decisions: list[Decision]


class StepLog:
    """Steps and decisions of a run. Turns their recording on; `after_act` reads them, `tables` gives them out."""

    def __init__(self, lowered: Lowered) -> None:
        self._lowered = lowered
        self._state = lowered.state
        self._state.record_decisions[0] = 1
        number = len(lowered.replicas)
        self._steps: list[Step] = []
        self._open: dict[tuple[int, int], Step] = {}
        """(engine, lane) -> its step in flight."""
        self._num_steps = [0] * number
        self._begins: list[list[Decision]] = [[] for _ in range(number)]
        """By engine: decisions of a step that has not begun yet (one that preempted all it had)."""
        self._ends: list[list[Decision]] = [[] for _ in range(number)]

    def after_act(self, group: int, time_s: float) -> None:
        """Read what the begin or end of a step of this group, at time_s, has decided."""
        state = self._state
        self._drain()
        first = int(state.group_first[group])
        for e in state.group_members[first : first + int(state.group_size[group])].tolist():
            if state.engine_kind[e] != TOKENS:
                continue
            for lane in range(int(state.num_lanes[e])):
                in_flight = np.isfinite(state.lane_end_s[e, lane])
                if not in_flight and (e, lane) in self._open:
                    self._end(e, lane, time_s)
                elif in_flight and (e, lane) not in self._open:
                    self._begin(e, lane)

    def _drain(self) -> None:
        state = self._state
        number = int(state.decision_count[0])
        for e, kind, row, amount in zip(
            state.decision_engine[:number].tolist(),
            state.decision_kind[:number].tolist(),
            state.decision_row[:number].tolist(),
            state.decision_value[:number].tolist(),
            strict=True,
        ):
            (self._ends if kind in AT_END else self._begins)[e].append(Decision(kind, row, amount))
        state.decision_count[0] = 0

    def _begin(self, e: int, lane: int) -> None:
        state = self._state
        batch = state.lane_batch[e, lane]
        decisions, self._begins[e] = in_effect(self._begins[e]), []
        num_free, num_blocks = int(state.num_free_blocks[e]), int(state.num_blocks[e])
        columns = {
            "start_s": float(state.lane_start_s[e, lane]),
            "num_tokens": int(batch[NUM_TOKENS]),
            "num_decode": int(batch[NUM_DECODE]),
            "num_prefill": int(batch[NUM_PREFILL]),
            "num_prefill_tokens": int(batch[NUM_TOKENS] - batch[NUM_DECODE_TOKENS]),
            "decode_context_tokens": int(batch[DECODE_CONTEXT_SUM]),
            "num_running": int(state.num_running[e]),
            "num_waiting": int(state.queue_length[state.first_queue[e]]),
            "num_drafted_tokens": int(batch[NUM_DRAFTED]),
            "num_free_blocks": num_free,
            "kv_used_frac": 1.0 - num_free / num_blocks if num_blocks else 0.0,
        }
        step = Step(e, self._num_steps[e], columns, decisions)
        self._num_steps[e] += 1
        self._open[e, lane] = step
        self._steps.append(step)

    def _end(self, e: int, lane: int, time_s: float) -> None:
        step = self._open.pop((e, lane))
        seconds = self._state.lane_seconds[e, lane].tolist()
        step.columns["end_s"] = time_s
        step.columns |= zip(("compute_s", "memory_s", "network_s", "host_s"), seconds, strict=True)
        step.decisions += self._ends[e]
        self._ends[e] = []

    def tables(self) -> tuple[Table, Table]:
        """(steps, decisions), in the order in which the steps began."""
        assert not self._open, "every step that began has ended"
        names = [replica.name for replica in self._lowered.replicas]
        steps = [
            {"engine": names[step.engine], "step": step.number, **step.columns, **self._summed_up(step)}
            for step in self._steps
        ]
        decisions = [
            {
                "engine": names[step.engine],
                "step": step.number,
                "request": self._request(decision.row),
                "sample": self._sample(decision.row),
                "kind": KIND_NAMES[decision.kind],
                "amount": decision.amount,
            }
            for step in self._steps
            for decision in step.decisions
        ]
        return _table(steps, STEPS), _table(decisions, DECISIONS)

    def _summed_up(self, step: Step) -> dict[str, Any]:
        """The decisions of a step as columns of its row."""
        of_kind: dict[int, list[Decision]] = {kind: [] for kind in KIND_NAMES}
        for decision in step.decisions:
            of_kind[decision.kind].append(decision)
        preempted = [one for one in step.decisions if one.kind in (PREEMPTED, SWAPPED_OUT)]
        return {
            "num_preempted": len(preempted),
            "preempted": " ".join(str(self._request(one.row)) for one in preempted),
            "num_admitted": len(of_kind[ADMITTED]),
            "admitted": " ".join(f"{self._request(one.row)}:{one.amount}" for one in of_kind[ADMITTED]),
            "num_finished": len(of_kind[FINISHED_ROW]),
            "num_swapped_in_blocks": sum(one.amount for one in of_kind[SWAPPED_IN]),
            "num_swapped_out_blocks": sum(one.amount for one in of_kind[SWAPPED_OUT]),
            "num_accepted_tokens": sum(one.amount for one in of_kind[ACCEPTED]),
        }

    def _request(self, row: int) -> int:
        return int(self._state.row_request[row])

    def _sample(self, row: int) -> int:
        parent = int(self._state.row_parent[row])
        return 0 if parent < 0 else 1 + row - int(self._state.row_first_sample[parent])


def in_effect(decisions: list[Decision]) -> list[Decision]:
    """Without the tokens of sequences that were preempted later in the same step: those went back to the budget."""
    kept: list[Decision] = []
    lost: set[int] = set()
    for decision in reversed(decisions):
        if decision.kind in (PREEMPTED, SWAPPED_OUT):
            lost.add(decision.row)
        elif decision.kind == SCHEDULED and decision.row in lost:
            continue
        kept.append(decision)
    kept.reverse()
    return kept


def _table(rows: list[dict[str, Any]], schema: dict[str, str]) -> Table:
    return {
        name: np.array([row[name] for row in rows], object if dtype == "category" else dtype)
        for name, dtype in schema.items()
    }
