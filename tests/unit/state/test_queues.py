"""Waiting lists threaded through the rows, against plain lists."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.state.arrays import EngineArrays
from hermes_sim.state.queues import goes_before, pop, push_back, push_by_priority, push_front
from tests.one_engine import Options, make_arrays

NUM_ROWS = 40


def rows() -> EngineArrays:
    """Two queues (one per engine) and rows for them."""
    return make_arrays(Options(4, 4, 4, 16), NUM_ROWS, num_engines=2)


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
    assert goes_before(handle, 1, 0)
    assert not goes_before(handle, 0, 1)
    assert goes_before(handle, 0, 2)
    assert not goes_before(handle, 2, 0)
    assert not goes_before(handle, 0, 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-2, 2)), max_size=NUM_ROWS), st.randoms(use_true_random=False))
def test_by_priority(priorities: list[int | None], random: Random) -> None:
    """Sorted by (priority, order) after every push; None pops the head, which is the least."""
    arrays = rows()
    order = list(range(NUM_ROWS))
    random.shuffle(order)
    model: list[tuple[int, int, int]] = []
    for row, priority in enumerate(priorities):
        if priority is None:
            if model:
                assert pop(arrays.handle, 0) == model.pop(0)[2]
            continue
        arrays.row_priority[row], arrays.row_order[row] = priority, order[row]
        push_by_priority(arrays.handle, 0, row)
        model = sorted([*model, (priority, order[row], row)])
        assert contents(arrays, 0) == [row for _, _, row in model]
