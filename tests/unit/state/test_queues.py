"""Waiting lists threaded through the rows, against plain lists."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.state.arrays import EngineArrays
from hermes_sim.state.queues import (
    FAIR_SHARE,
    FCFS,
    LEAST_SLACK,
    LONGEST_PREFIX,
    PRIORITY,
    SJF,
    bring_forward,
    goes_before,
    is_sorted,
    pop,
    push_again,
    push_back,
    push_front,
    push_in_place,
    push_new,
)
from tests.one_engine import Options, make_arrays

NUM_ROWS = 40


def rows() -> EngineArrays:
    """Two queues (one per engine) and rows for them."""
    return make_arrays(
        Options(num_blocks=4, block_tokens=4, max_num_seqs=4, max_num_batched_tokens=16), NUM_ROWS, num_engines=2
    )


def contents(arrays: EngineArrays, queue: int) -> list[int]:
    """From head to tail; head, tail and length must agree."""
    found, row = [], int(arrays.queue_head[queue])
    while row >= 0:
        found.append(row)
        row = int(arrays.row_next[row])
    assert arrays.queue_length[queue] == len(found)
    assert arrays.queue_tail[queue] == (found[-1] if found else -1)
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["back", "front", "pop"]), st.integers(0, 1)), max_size=NUM_ROWS))
def test_back_front_and_pop(operations: list[tuple[str, int]]) -> None:
    """Two queues over the same rows do not disturb each other."""
    arrays = rows()
    model: list[list[int]] = [[], []]
    for row, (operation, queue) in enumerate(operations):
        if operation == "back":
            push_back(arrays.handle, queue, row)
            model[queue].append(row)
        elif operation == "front":
            push_front(arrays.handle, queue, row)
            model[queue].insert(0, row)
        elif model[queue]:
            assert pop(arrays.handle, queue) == model[queue].pop(0)
        assert [contents(arrays, 0), contents(arrays, 1)] == model


def test_a_row_can_join_again() -> None:
    """Whatever it was linked to before."""
    arrays = rows()
    for row in range(3):
        push_back(arrays.handle, 0, row)
    assert pop(arrays.handle, 0) == 0
    push_back(arrays.handle, 0, 0)
    assert contents(arrays, 0) == [1, 2, 0]
    assert pop(arrays.handle, 0) == 1
    push_front(arrays.handle, 0, 1)
    assert contents(arrays, 0) == [1, 2, 0]


def test_priority_then_order_of_arrival() -> None:
    arrays = rows()
    arrays.row_priority[:3] = [1, 0, 1]
    arrays.row_order[:3] = [7, 9, 8]
    handle = arrays.handle
    assert goes_before(handle, PRIORITY, 1, 0)
    assert not goes_before(handle, PRIORITY, 0, 1)
    assert goes_before(handle, PRIORITY, 0, 2)
    assert not goes_before(handle, PRIORITY, 2, 0)
    assert not goes_before(handle, PRIORITY, 0, 0)


@pytest.mark.parametrize("order", [SJF, LEAST_SLACK])
def test_key_then_order_of_arrival(order: int) -> None:
    """Whatever the priority."""
    arrays = rows()
    arrays.row_priority[:3] = [0, 5, 9]
    arrays.row_key[:3] = [2.5, 2.25, 2.5]
    arrays.row_order[:3] = [7, 9, 8]
    assert goes_before(arrays.handle, order, 1, 0)
    assert goes_before(arrays.handle, order, 0, 2)
    assert not goes_before(arrays.handle, order, 2, 0)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([PRIORITY, SJF]),
    st.lists(st.one_of(st.none(), st.integers(-2, 2)), max_size=NUM_ROWS),
    st.randoms(use_true_random=False),
)
def test_sorted(order: int, keys: list[int | None], random: Random) -> None:
    """By (key, order of arrival) after every push; None pops the head, which is the least."""
    arrays = rows()
    arrays.queue_order[0] = order
    arrivals = list(range(NUM_ROWS))
    random.shuffle(arrivals)
    model: list[tuple[int, int, int]] = []
    for row, key in enumerate(keys):
        if key is None:
            if model:
                assert pop(arrays.handle, 0) == model.pop(0)[2]
            continue
        arrays.row_priority[row] = arrays.row_key[row] = key
        arrays.row_order[row] = arrivals[row]
        push_in_place(arrays.handle, 0, 0, row)
        model = sorted([*model, (key, arrivals[row], row)])
        assert contents(arrays, 0) == [row for _, _, row in model]


@pytest.mark.parametrize(
    ("order", "new", "again"),
    [
        (FCFS, [0, 1, 2, 3], [3, 0, 1, 2]),
        (PRIORITY, [1, 3, 0, 2], [1, 3, 0, 2]),
        (SJF, [2, 0, 1, 3], [2, 0, 1, 3]),
        (LEAST_SLACK, [2, 0, 1, 3], [2, 0, 1, 3]),
        (FAIR_SHARE, [0, 1, 2, 3], [3, 0, 1, 2]),
        (LONGEST_PREFIX, [0, 1, 2, 3], [3, 0, 1, 2]),
    ],
)
def test_where_a_visit_joins(order: int, new: list[int], again: list[int]) -> None:
    """Arrivals last or in their place; row 3 coming back from a preemption first or in its place."""
    arrays = rows()
    arrays.queue_order[0] = order
    arrays.row_priority[:4] = [1, 0, 2, 0]
    arrays.row_key[:4] = [5.0, 7.0, 3.0, 7.0]
    arrays.row_order[:4] = range(4)
    for row in range(4):
        push_new(arrays.handle, 0, 0, row)
    assert contents(arrays, 0) == new
    arrays.queue_head[0] = arrays.queue_tail[0] = -1
    arrays.queue_length[0] = 0
    for row in range(3):
        push_new(arrays.handle, 0, 0, row)
    push_again(arrays.handle, 0, 0, 3)
    assert contents(arrays, 0) == again
    assert is_sorted(order) == (again != [3, 0, 1, 2])


@pytest.mark.parametrize(("before", "expected"), [(0, [1, 0, 2, 3]), (1, [2, 0, 1, 3]), (2, [3, 0, 1, 2])])
def test_one_is_brought_forward(before: int, expected: list[int]) -> None:
    arrays = rows()
    for row in range(4):
        push_back(arrays.handle, 0, row)
    bring_forward(arrays.handle, 0, before)
    assert contents(arrays, 0) == expected
    push_back(arrays.handle, 0, 4)
    assert contents(arrays, 0) == [*expected, 4]
