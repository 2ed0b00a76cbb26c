"""Waiting lists threaded through the rows: push at the back, at the front or in the engine's order; pop the head."""

from __future__ import annotations

from typing import Any

from hermes_sim.core.compiled import compiled

# Orders of a waiting list (engines[].batching.queue_order).
FCFS = 0
PRIORITY = 1
SJF = 2
LEAST_SLACK = 3
FAIR_SHARE = 4
LONGEST_PREFIX = 5


@compiled
def is_sorted(order: int) -> bool:
    """Whether the list is kept in order of a key that a row has from the start; others choose when they admit."""
    return order in (PRIORITY, SJF, LEAST_SLACK)


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
def goes_before(state: Any, order: int, row: int, other: int) -> bool:
    """Smaller priority value or smaller key; then earlier arrival here."""
    if order == PRIORITY:
        if state.row_priority[row] != state.row_priority[other]:
            return state.row_priority[row] < state.row_priority[other]
    elif state.row_key[row] != state.row_key[other]:
        return state.row_key[row] < state.row_key[other]
    return state.row_order[row] < state.row_order[other]


@compiled
def comes_before(state: Any, order: int, row: int, other: int) -> bool:
    """Whether a row stands before another: by the key of a sorted list, else by when it came to this engine."""
    if is_sorted(order):
        return goes_before(state, order, row, other)
    return state.row_order[row] < state.row_order[other]


@compiled
def push_in_place(state: Any, e: int, queue: int, row: int) -> None:
    """Into its place in a sorted line; in any other where a visit that came before, and whose KV was waited for, would
    stand by now."""
    order = state.queue_order[e]
    head = state.queue_head[queue]
    if head < 0 or comes_before(state, order, row, head):
        push_front(state, queue, row)
        return
    before = head
    while state.row_next[before] >= 0 and not comes_before(state, order, row, state.row_next[before]):
        before = state.row_next[before]
    if state.row_next[before] < 0:
        push_back(state, queue, row)
        return
    state.row_next[row] = state.row_next[before]
    state.row_next[before] = row
    state.queue_length[queue] += 1


@compiled
def push_new(state: Any, e: int, queue: int, row: int) -> None:
    """A visit arrives."""
    if is_sorted(state.queue_order[e]):
        push_in_place(state, e, queue, row)
    else:
        push_back(state, queue, row)


@compiled
def push_again(state: Any, e: int, queue: int, row: int) -> None:
    """A preempted visit comes back, or a fork joins: next in line, or where the order puts it."""
    if is_sorted(state.queue_order[e]):
        push_in_place(state, e, queue, row)
    else:
        push_front(state, queue, row)


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


@compiled
def take_out(state: Any, queue: int, row: int) -> bool:
    """Take a row out of the line, wherever it stands; False: it is not there."""
    before = -1
    other = state.queue_head[queue]
    while other >= 0 and other != row:
        before = other
        other = state.row_next[other]
    if other < 0:
        return False
    if before < 0:
        pop(state, queue)
        return True
    state.row_next[before] = state.row_next[row]
    if state.row_next[before] < 0:
        state.queue_tail[queue] = before
    state.row_next[row] = -1
    state.queue_length[queue] -= 1
    return True


@compiled
def bring_forward(state: Any, queue: int, before: int) -> None:
    """The row after `before` becomes the head of the line."""
    row = state.row_next[before]
    state.row_next[before] = state.row_next[row]
    if state.row_next[before] < 0:
        state.queue_tail[queue] = before
    state.queue_length[queue] -= 1
    push_front(state, queue, row)
