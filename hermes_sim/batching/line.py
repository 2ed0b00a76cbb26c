"""Why visits wait in the line of a token engine: for KV blocks, for a place in the batch, for tokens of the budget.

An engine has a clock for each of the three, which runs while it keeps the head of the line from joining. A visit notes
the clocks when it comes and takes the difference when it first runs: two looks a visit, none a step, however long the
line is. What is left of its wait it waited for the step in flight.

The clocks start anew with an empty line. A run of decode-only steps changes nothing here: its line is empty, or stays
behind a full batch.
"""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import HELD_BY_BATCH, HELD_BY_KV, NOT_HELD, NUM_HOLDS


@compiled
def line_clock_s(state: Any, e: int, cause: int, time_s: float) -> float:
    """How long this cause has held the line by now, since it was last empty."""
    clock_s: float = state.line_held_s[e, cause]
    if state.line_held_by[e] == cause:
        clock_s += time_s - state.line_since_s[e]
    return clock_s


@compiled
def stand_in_line(state: Any, e: int, row: int, time_s: float) -> None:
    """A visit comes, and is not in the line yet. It waits for the step in flight, or behind a full batch."""
    if state.queue_head[state.first_queue[e]] < 0:
        is_full = state.num_running[e] >= state.max_num_seqs[e] and state.python_policy[e] == 0
        state.line_held_by[e] = HELD_BY_BATCH if is_full else NOT_HELD
        state.line_since_s[e] = time_s
        for cause in range(NUM_HOLDS):
            state.line_held_s[e, cause] = 0.0
    for cause in range(NUM_HOLDS):
        state.row_held_s[row, cause] = line_clock_s(state, e, cause, time_s)


@compiled
def leave_line(state: Any, e: int, row: int, time_s: float) -> None:
    """A visit runs for the first time."""
    for cause in range(NUM_HOLDS):
        state.row_held_s[row, cause] = line_clock_s(state, e, cause, time_s) - state.row_held_s[row, cause]


@compiled
def note_departure(state: Any, e: int) -> None:
    """Somebody has been taken out of the line: nothing holds an empty one."""
    if state.queue_head[state.first_queue[e]] < 0:
        state.line_held_by[e] = NOT_HELD


@compiled
def note_line(state: Any, e: int, preempted: bool, time_s: float) -> None:
    """A step has been decided: what holds the line from now on."""
    if state.queue_head[state.first_queue[e]] < 0:
        state.line_held_by[e] = NOT_HELD
        return
    cause = HELD_BY_KV if preempted else state.line_stopped_by[e]
    held_by = state.line_held_by[e]
    if cause == held_by:
        return
    if held_by != NOT_HELD:
        state.line_held_s[e, held_by] += time_s - state.line_since_s[e]
    state.line_held_by[e] = cause
    state.line_since_s[e] = time_s
