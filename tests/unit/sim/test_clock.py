"""The order of events: by time, rank, kind, engine and row, never by insertion; SimPy's own events are timers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.sim import ranks
from hermes_sim.sim.clock import Clock

IN_ORDER = [
    ranks.FAILURE, ranks.TRANSFER, ranks.STEP_DONE, ranks.HAND_OFF, ranks.TIMER, ranks.ARRIVAL, ranks.CONTROL,
    ranks.SCHEDULING,
]  # fmt: skip


def test_ranks_ascend() -> None:
    assert sorted(set(IN_ORDER)) == IN_ORDER


@given(st.randoms(use_true_random=False))
def test_equal_times_go_by_rank_kind_engine_row(random: Random) -> None:
    keys = [(1.0, rank, 0, 0, 0) for rank in IN_ORDER]
    keys += [(1.0, ranks.HAND_OFF, kind, engine, row) for kind in (0, 1) for engine in (0, 1) for row in (1, 2)]
    keys += [(0.5, ranks.SCHEDULING, 9, 9, 9), (2.0, ranks.FAILURE, 0, 0, 0)]
    expected = sorted(keys)
    random.shuffle(keys)
    clock = Clock()
    seen: list[tuple[float, int, int, int, int]] = []
    for time_s, rank, kind, engine, row in keys:

        def note(event: Any, key: tuple[float, int, int, int, int] = (time_s, rank, kind, engine, row)) -> None:
            assert (clock.now, event.subject) == (key[0], key[4])
            seen.append(key)

        clock.at(time_s, rank, note, kind=kind, engine=engine, row=row)
    clock.run()
    assert seen == expected
    assert clock.num_events == len(keys)


def test_absolute_times_are_kept_to_the_bit() -> None:
    """now + delay would round: 0.1 + 0.2 is not 0.3."""
    clock = Clock()
    seen: list[float] = []

    def later(event: Any) -> None:
        clock.at(0.3, ranks.TIMER, lambda event: seen.append(clock.now))

    clock.at(0.1, ranks.TIMER, later)
    clock.run()
    assert seen == [0.3]


def test_processes_and_timeouts_are_timers() -> None:
    """After the hand-offs of their time, before its arrivals, however late they were made."""
    clock = Clock()
    seen: list[str] = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda event: seen.append(name)

    def process() -> Generator[simpy.Event, None, None]:
        yield clock.timeout(1.0)
        seen.append("timeout")
        yield clock.timeout(0.0)
        seen.append("timeout of nothing")

    clock.at(1.0, ranks.ARRIVAL, note("arrival"))
    clock.at(1.0, ranks.SCHEDULING, note("scheduling"))
    clock.process(process())
    clock.at(1.0, ranks.HAND_OFF, note("hand-off"))
    clock.run()
    assert seen == ["hand-off", "timeout", "timeout of nothing", "arrival", "scheduling"]


def test_run_until_a_time_stops_among_the_timers() -> None:
    clock = Clock()
    seen: list[int] = []
    others = [rank for rank in IN_ORDER if rank != ranks.TIMER]
    for rank in others:
        clock.at(1.0, rank, lambda event, rank=rank: seen.append(rank))
    clock.run(until=1.0)
    assert seen == [ranks.FAILURE, ranks.TRANSFER, ranks.STEP_DONE, ranks.HAND_OFF]
    clock.run()
    assert seen == others


def test_head_is_the_next_event() -> None:
    clock = Clock()
    assert clock.head is None
    clock.at(2.0, ranks.ARRIVAL, lambda event: None)
    clock.at(2.0, ranks.TRANSFER, lambda event: None)
    assert clock.head == (2.0, ranks.TRANSFER)


def test_engines_are_brought_up_before_each_event_and_may_come_first() -> None:
    """What the engines put out before the head of the queue happens before it; an empty queue is no reason to stop."""
    clock = Clock()
    seen: list[str] = []
    outputs = [(0.5, "out 0.5"), (3.0, "out 3.0")]

    def bring_up() -> None:
        horizon_s = clock.head[0] if clock.head is not None else float("inf")
        if outputs and outputs[0][0] <= horizon_s:
            time_s, name = outputs.pop(0)
            clock.at(time_s, ranks.HAND_OFF, lambda event: seen.append(name))

    clock.before_step = bring_up
    clock.at(1.0, ranks.ARRIVAL, lambda event: seen.append("arrival"))
    clock.run()
    assert seen == ["out 0.5", "arrival", "out 3.0"]


def test_an_error_in_an_event_is_raised() -> None:
    clock = Clock()

    def fail(event: Any) -> None:
        raise ValueError("broken")

    clock.at(1.0, ranks.TIMER, fail)
    with pytest.raises(ValueError, match="broken"):
        clock.run()
