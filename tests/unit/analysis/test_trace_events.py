"""Lanes, and the reader that traces are held against: it must refuse what is wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.analysis.trace_events import TraceEvents, compressed, lanes_of
from tests.trace_event_format import read_trace

START = [
    {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "p"}},
    {"ph": "M", "name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "t"}},
]


def event(phase: str, ts: float, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "name": "a", "cat": "c", "pid": 1, "tid": 7, "ts": ts, **more}


@pytest.mark.parametrize(
    "events",
    [
        [event("X", 0, dur=10), event("X", 5, dur=10)],  # overlaps
        [event("X", 5, dur=1), event("X", 0, dur=1)],  # out of order
        [event("X", 0, dur=1, tid=8)],  # a thread without a name
        [event("X", 0, dur=1, pid=2)],
        [event("B", 0)],
        [event("B", 0), event("B", 1, name="b"), event("E", 2, name="a"), event("E", 3, name="b")],
        [event("b", 0, id="0x1")],
        [event("e", 0, id="0x1")],
        [event("X", 0, dur=1), event("s", 0, id="0x1")],  # leads nowhere
        [event("s", 0, id="0x1"), event("X", 1, dur=1), event("f", 1, id="0x1", bp="e")],  # begins in no slice
        [event("X", 0, dur=1), event("s", 0, id="0x1"), event("X", 5, dur=1), event("f", 9, id="0x1", bp="e")],
        [event("C", 0, args={})],
        [event("C", 0, args={"v": "many"})],
    ],
)  # fmt: skip
def test_the_reader_refuses_what_is_wrong(events: list[dict[str, Any]]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        read_trace(json.dumps({"traceEvents": START + events}))


def test_the_reader_reads_what_is_right() -> None:
    trace = read_trace(json.dumps({"traceEvents": [
        *START, event("B", 0), event("X", 1, dur=2, name="b"), event("E", 4), event("X", 4, dur=0),
        event("b", 4, id="0x1"), event("s", 4, id="0x1"), event("X", 6, dur=1), event("f", 6, id="0x1", bp="e"),
        event("e", 9, id="0x1"), event("C", 9, args={"v": 1}),
    ]}))  # fmt: skip
    assert [one.end for one in trace.track("t")] == [4, 3, 4, 7]
    assert len(trace.flows["c", "a", "0x1"]) == 2


def test_what_is_written_is_read() -> None:
    events = TraceEvents()
    process = events.process('the "first"')
    thread = events.thread(process, "llm[0] steps")
    events.slice(process, thread, "decode", "step", 1_000_500, 2_000_000, batch=3, share=float("nan"), limit="memory")
    events.span(process, "waiting", "queue", 17, 0, 0)
    events.counter(process, "KV", 5, percent=12.5)
    text = "".join(events.json_texts({"seed": 1}))
    trace = read_trace(text)
    (found,) = trace.track("llm[0] steps")
    assert (found.start, found.end) == (1000.5, 2000.0)
    assert found.args == {"batch": 3, "limit": "memory"}
    assert trace.counters[process, "KV percent"] == [(0.005, 12.5)]
    assert compressed(iter([text])) == compressed(iter([text]))


intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), st.integers(0, 5)), max_size=40)


@given(intervals)
def test_intervals_of_a_lane_do_not_overlap(found: list[tuple[int, int, int]]) -> None:
    found = sorted(found)
    start, end = [one[0] for one in found], [one[0] + one[1] for one in found]
    lanes = lanes_of(start, end, [one[2] for one in found])
    for lane in set(lanes):
        own = [place for place, other in enumerate(lanes) if other == lane]
        assert all(max(end[a], start[a] + 1) <= start[b] for a, b in pairwise(own))
    # no more lanes than intervals under way at once
    ends = np.maximum(end, np.array(start) + 1) if found else np.array([])
    most = max((int(((np.array(start) <= time) & (ends > time)).sum()) for time in start), default=0)
    assert len(set(lanes)) == most


def test_what_follows_without_a_gap_stays_on_its_lane() -> None:
    assert lanes_of([0, 0, 5, 5], [5, 5, 9, 9], [1, 2, 2, 1]) == [0, 1, 1, 0]
