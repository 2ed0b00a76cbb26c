"""Engines whose steps are decided in Python: the view of an engine, the decisions checked and handed to the engine.

The compiled engine asks for a step by an outward event (state/arrays.py NEED_SCHEDULE) at the time at which it begins;
`PythonPolicies.schedule` answers it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.batching.python_batching import (
    BatchingView,
    Decisions,
    Line,
    PythonBatching,
    PythonOptions,
    SequenceView,
)
from hermes_sim.core.errors import SimulationError
from hermes_sim.sim.advance import apply_decisions
from hermes_sim.sim.lower import Lowered
from hermes_sim.state.arrays import HAS_KV, EngineArrays
from hermes_sim.state.blocks import count_hits, num_missing_blocks, num_pool_blocks
from hermes_sim.state.sequences import final_outputs

IntArray = npt.NDArray[np.int64]


class PythonPolicies:
    """The policies in Python of one run, one per replica."""

    def __init__(self, lowered: Lowered) -> None:
        self._state = lowered.state
        self._names = [replica.name for replica in lowered.replicas]
        self._policies: dict[int, PythonBatching] = {
            e: replica.engine.batching.make()
            for e, replica in enumerate(lowered.replicas)
            if isinstance(replica.engine.batching, PythonOptions)
        }

    def schedule(self, e: int, time_s: float) -> None:
        """Decide the step of an engine that begins now. Raises SimulationError for a decision that cannot be."""
        state = self._state
        if state.num_in_flight[e] == state.num_lanes[e]:
            return  # asked twice at the same moment
        state.next_start_s[e] = np.inf  # whatever arrived by now is in the view
        policy = self._policies[e]
        view = batching_view(state, e, self._names[e], time_s)
        if not view.running and not view.waiting:
            return
        decided = _decisions(policy, view, _answer(policy, view))
        problem = wrong_decision(view, decided)
        if problem is None and (decided.tokens or decided.preempt):
            problem = self._apply(e, view, decided)
        if problem is not None:
            raise SimulationError(_words(policy, view, problem))

    def _apply(self, e: int, view: BatchingView, decided: Decisions) -> str | None:
        """Begins the step; says what the engine cannot do, if anything."""
        rows = _int_array([row for row, _ in decided.tokens])
        num_tokens = _int_array([number for _, number in decided.tokens])
        preempt_rows = _int_array(decided.preempt)
        failed = int(apply_decisions(self._state.handle, e, rows, num_tokens, preempt_rows, view.time_s))
        if failed == 0:
            return None
        index = failed - 1 - len(decided.preempt)
        if index < 0:
            return f"row {decided.preempt[failed - 1]} cannot be preempted now"
        row, number = decided.tokens[index]
        free = int(self._state.num_free_blocks[e])
        return f"row {row} cannot have {number} tokens: {free} of {view.num_blocks} KV blocks are free then"


def batching_view(state: EngineArrays, e: int, name: str, time_s: float) -> BatchingView:
    """The engine as its policy sees it."""
    running = tuple(_in_slots(state, e, state.running[e, : int(state.num_running[e])]))
    queue = int(state.first_queue[e])
    return BatchingView(
        engine=name,
        time_s=time_s,
        budget=int(state.max_num_batched_tokens[e]),
        max_num_seqs=int(state.max_num_seqs[e]),
        block_tokens=int(state.block_tokens[e]),
        num_blocks=int(state.num_blocks[e]),
        num_free_blocks=int(state.num_free_blocks[e]),
        running=running,
        waiting=Line(_waiting(state, e, int(state.queue_head[queue])), int(state.queue_length[queue])),
    )


def wrong_decision(view: BatchingView, decided: Decisions) -> str | None:
    """What is wrong with decisions, whatever blocks are free: the first such thing, or None."""
    running = {sequence.row: sequence for sequence in view.running}
    for row in decided.preempt:
        if row not in running:
            return f"row {row} cannot be preempted: it is not running"
    gone = set(decided.preempt)
    if len(gone) < len(decided.preempt):
        return "a row is preempted twice"
    left = view.budget
    num_running = len(running) - len(gone)
    scheduled: set[int] = set()
    waiting = _waiting_rows(view, {row for row, _ in decided.tokens} - running.keys())
    for row, number in decided.tokens:
        sequence = running.get(row) or waiting.get(row)
        if sequence is None:
            return f"row {row} is neither running nor waiting here"
        if row in scheduled or row in gone:
            return f"row {row} is {'scheduled twice' if row in scheduled else 'preempted and scheduled'}"
        if not 1 <= number <= sequence.num_to_do:
            return f"row {row} cannot have {number} tokens: it has {sequence.num_to_do} to do"
        left -= number
        if left < 0:
            return f"row {row} goes over the budget of {view.budget} tokens by {-left}"
        num_running += row not in running
        if num_running > view.max_num_seqs:
            return f"row {row} would be the {num_running}th running sequence, max_num_seqs is {view.max_num_seqs}"
        scheduled.add(row)
    return None


def _waiting_rows(view: BatchingView, rows: set[int]) -> dict[int, SequenceView]:
    """Those of the rows that wait; the line is read only as far as they stand in it."""
    found: dict[int, SequenceView] = {}
    for sequence in view.waiting:
        if len(found) == len(rows):
            break
        if sequence.row in rows:
            found[sequence.row] = sequence
    return found


def _answer(policy: PythonBatching, view: BatchingView) -> Any:
    """What the policy decides. Raises SimulationError, with the line of its code, where it fails."""
    try:
        return policy.schedule(view)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
        raise SimulationError(_words(policy, view, wrong)) from error


def _decisions(policy: PythonBatching, view: BatchingView, answer: Any) -> Decisions:
    """The answer of a policy as whole numbers."""
    decided = answer if isinstance(answer, Decisions) else Decisions(answer)
    try:
        tokens = [(int(row), int(number)) for row, number in decided.tokens]
        return Decisions(tokens, [int(row) for row in decided.preempt])
    except (TypeError, ValueError):
        wrong = f"schedule must return [(row, number of tokens), ...] or Decisions, got {answer!r}"
        raise SimulationError(_words(policy, view, wrong)) from None


def _words(policy: PythonBatching, view: BatchingView, problem: str) -> str:
    return f"policy {type(policy).__name__} of engine {view.engine} at {view.time_s:.6f} s: {problem}"


@dataclass(frozen=True, slots=True)
class _RunningBlocks:
    """Blocks of a sequence in a slot: running, or waiting with its KV."""

    state: EngineArrays
    e: int
    slot: int

    def hits(self) -> int:
        return 0

    def new_blocks(self, num_tokens: int) -> int:
        state, e, slot = self.state, self.e, self.slot
        needed = _ceil_blocks(state, e, int(state.slot_computed[e, slot]) + num_tokens)
        if state.window_groups[e] == 0:  # as num_missing_blocks, without the way into compiled code
            return max(needed - int(state.slot_blocks[e, slot]), 0)
        return int(num_missing_blocks(state.handle, e, slot, needed))

    def sole_blocks(self) -> int:
        state, e, slot = self.state, self.e, self.slot
        table = state.block_table[e, slot, state.slot_first[e, slot] : state.slot_blocks[e, slot]]
        return int((state.block_owners[e, table] == 1).sum()) + int(state.slot_extras[e, slot])


@dataclass(frozen=True, slots=True)
class _WaitingBlocks:
    """Blocks of a sequence that has none on the device."""

    state: EngineArrays
    e: int
    row: int
    num_tokens: int
    """Prompt and generated."""
    num_swapped: int
    """Tokens whose KV lies on the host."""

    def hits(self) -> int:
        return self._hits()[0] * int(self.state.block_tokens[self.e])

    def new_blocks(self, num_tokens: int) -> int:
        state, e = self.state, self.e
        num_hits, num_unowned = self._hits()
        computed = num_hits * int(state.block_tokens[e])
        # one that was swapped out comes back with room for all its tokens
        needed = _ceil_blocks(state, e, self.num_tokens if self.num_swapped else computed + num_tokens)
        return int(num_pool_blocks(state.handle, e, needed)) - num_hits + num_unowned

    def sole_blocks(self) -> int:
        return 0

    def _hits(self) -> tuple[int, int]:
        if self.num_swapped:
            return 0, 0
        num_hits, num_unowned = count_hits(self.state.handle, self.e, self.row, self.num_tokens)
        return int(num_hits), int(num_unowned)


def _ceil_blocks(state: EngineArrays, e: int, num_tokens: int) -> int:
    return -(-num_tokens // int(state.block_tokens[e]))


def _in_slots(state: EngineArrays, e: int, slots: IntArray) -> Iterator[SequenceView]:
    """Sequences in slots: running, or waiting with their KV. None has tokens pending, as under async scheduling."""
    rows = state.slot_row[e, slots]
    columns = [
        slots, rows, state.row_prompt[rows], final_outputs(state, rows), state.row_generated[rows],
        state.slot_computed[e, slots], state.slot_blocks[e, slots], state.row_priority[rows], state.row_arrival_s[rows],
    ]  # fmt: skip
    for slot, row, prompt, output, generated, computed, num_blocks, priority, arrival_s in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        yield SequenceView(
            row=row,
            num_prompt=prompt,
            num_output=output,
            num_generated=generated,
            num_computed=computed,
            num_blocks=num_blocks,
            priority=priority,
            arrival_s=arrival_s,
            num_open=prompt + generated - computed,
            blocks=_RunningBlocks(state, e, slot),
        )


def _waiting(state: EngineArrays, e: int, row: int) -> Iterator[SequenceView]:
    """The line from `row` on."""
    while row >= 0:
        if state.row_flags[row] & HAS_KV:
            yield from _in_slots(state, e, state.row_slot[row : row + 1])
        else:
            yield _without_slot(state, e, row)
        row = int(state.row_next[row])


def _without_slot(state: EngineArrays, e: int, row: int) -> SequenceView:
    prompt, generated = int(state.row_prompt[row]), int(state.row_generated[row])
    swapped = int(state.row_swapped[row])
    return SequenceView(
        row=row,
        num_prompt=prompt,
        num_output=int(final_outputs(state, np.array([row]))[0]),
        num_generated=generated,
        num_computed=swapped,
        num_blocks=0,
        priority=int(state.row_priority[row]),
        arrival_s=float(state.row_arrival_s[row]),
        num_open=prompt + generated - swapped,
        blocks=_WaitingBlocks(state, e, row, prompt + generated, swapped),
    )


def _int_array(values: Sequence[int]) -> IntArray:
    return np.array(values, np.int64)
