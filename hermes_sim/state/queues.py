"""Waiting lists threaded through the rows: push at the back, at the front or in order of priority; pop the head."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled


@compiled
def push_back(state: Any, queue: int, row: int) -> None:
    """Last in line."""
    state.row_next[row] = -1
    if state.queue_head[queue] < 0:
        state.queue_head[queue] = row
    else:
        state.row_next[state.queue_tail[queue]] = row
    state.queue_tail[queue] = row
    state.queue_length[queue] += 1


@compiled
def push_front(state: Any, queue: int, row: int) -> None:
    """First in line."""
    state.row_next[row] = state.queue_head[queue]
    if state.queue_head[queue] < 0:
        state.queue_tail[queue] = row
    state.queue_head[queue] = row
    state.queue_length[queue] += 1


@compiled
def goes_before(state: Any, row: int, other: int) -> bool:
    """Order of a priority queue: smaller priority value, then earlier arrival here."""
    if state.row_priority[row] != state.row_priority[other]:
        return state.row_priority[row] < state.row_priority[other]
    return state.row_order[row] < state.row_order[other]


@compiled
def push_by_priority(state: Any, queue: int, row: int) -> None:
    """Into its place by (priority, arrival)."""
    head = state.queue_head[queue]
    if head < 0 or goes_before(state, row, head):
        push_front(state, queue, row)
        return
    before = head
    while state.row_next[before] >= 0 and not goes_before(state, row, state.row_next[before]):
        before = state.row_next[before]
    if state.row_next[before] < 0:
        push_back(state, queue, row)
        return
    state.row_next[row] = state.row_next[before]
    state.row_next[before] = row
    state.queue_length[queue] += 1


@compiled
def pop(state: Any, queue: int) -> int:
    """Take the head, which must exist."""
    row = state.queue_head[queue]
    state.queue_head[queue] = state.row_next[row]
    if state.queue_head[queue] < 0:
        state.queue_tail[queue] = -1
    state.row_next[row] = -1
    state.queue_length[queue] -= 1
    return row
