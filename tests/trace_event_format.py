"""A reader of the Trace Event Format that refuses what a viewer would drop or misread.

Written from the format's description, not from the program's writer: complete (X), duration (B, E), nestable async
(b, n, e), flow (s, t, f), counter (C), instant (i) and metadata (M) events of the JSON object form.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Track = tuple[int, int]

METADATA = {"process_name": "name", "thread_name": "name", "process_sort_index": "sort_index",
            "thread_sort_index": "sort_index", "process_labels": "labels"}  # fmt: skip
PHASES = frozenset("XBEbnestfCiM")


@dataclass
class Slice:
    name: str
    start: float
    end: float
    args: dict[str, Any]


@dataclass
class Trace:
    """What a viewer makes of a file."""

    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[Track, str] = field(default_factory=dict)
    slices: dict[Track, list[Slice]] = field(default_factory=lambda: defaultdict(list))
    spans: dict[tuple[int, str, str], list[Slice]] = field(default_factory=lambda: defaultdict(list))
    """(process, category, id)"""
    flows: dict[tuple[str, str, str], list[Slice]] = field(default_factory=lambda: defaultdict(list))
    """(category, name, id) -> the slices it leads through"""
    counters: dict[tuple[int, str], list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def process(self, name: str) -> int:
        (number,) = [number for number, found in self.processes.items() if found == name]
        return number

    def track(self, name: str) -> list[Slice]:
        (track,) = [track for track, found in self.threads.items() if found == name]
        return self.slices[track]


def read_trace(text: str) -> Trace:
    """Raises AssertionError where the format is broken."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    document = json.loads(text, parse_constant=refuse)
    assert isinstance(document, dict)
    assert document.get("displayTimeUnit", "ms") in ("ms", "ns")
    events = document["traceEvents"]
    for event in events:
        assert event["ph"] in PHASES, event
        assert isinstance(event["pid"], int), event
        assert isinstance(event["tid"], int), event
        if event["ph"] != "M":
            assert isinstance(event["ts"], int | float), event
            assert math.isfinite(event["ts"]), event
            assert event["ts"] >= 0, event
            assert isinstance(event["name"], str), event
            assert event["name"], event
        assert isinstance(event.get("args", {}), dict), event
    trace = Trace()
    _metadata(events, trace)
    _in_order(events)
    _slices(events, trace)
    _spans(events, trace)
    _flows(events, trace)
    _counters(events, trace)
    return trace


def _metadata(events: list[Event], trace: Trace) -> None:
    for event in events:
        if event["ph"] != "M":
            continue
        key = METADATA[event["name"]]
        assert set(event["args"]) == {key}, event
        if event["name"] == "process_name":
            assert event["pid"] not in trace.processes, event
            trace.processes[event["pid"]] = event["args"]["name"]
        if event["name"] == "thread_name":
            assert (event["pid"], event["tid"]) not in trace.threads, event
            trace.threads[event["pid"], event["tid"]] = event["args"]["name"]
    # A viewer names a thread by its number alone, and takes the thread with its process's number for the main one.
    numbers = [thread for _, thread in trace.threads]
    assert len(set(numbers)) == len(numbers)
    assert not set(numbers) & set(trace.processes)
    assert 0 not in trace.processes, "number 0 is the idle process"
    for event in events:
        assert event["pid"] in trace.processes, event
        if event["ph"] in "XBEstf":
            assert (event["pid"], event["tid"]) in trace.threads, event


def _in_order(events: list[Event]) -> None:
    """Flows bind to what was last begun: events of a track must come in order of time."""
    last: dict[Track, float] = {}
    for event in events:
        if event["ph"] != "M":
            track = (event["pid"], event["tid"])
            assert event["ts"] >= last.get(track, 0.0), event
            last[track] = event["ts"]


def _slices(events: list[Event], trace: Trace) -> None:
    """Slices of a thread nest: the inner one ends no later. B and E pair last in, first out."""
    open_slices: dict[Track, list[Slice]] = defaultdict(list)
    for event in events:
        track, stack = (event["pid"], event["tid"]), open_slices[event["pid"], event["tid"]]
        if event["ph"] in "XB":
            end = event["ts"] + event["dur"] if event["ph"] == "X" else math.inf
            assert end >= event["ts"], event
            while stack and stack[-1].end <= event["ts"] + 1e-6:
                stack.pop()
            assert not stack or end <= stack[-1].end + 1e-6, f"{event} overlaps {stack[-1]}"
            stack.append(Slice(event["name"], event["ts"], end, event.get("args", {})))
            trace.slices[track].append(stack[-1])
        elif event["ph"] == "E":
            while stack and stack[-1].end <= event["ts"] + 1e-6:  # complete ones inside it
                stack.pop()
            assert stack, f"{event} ends nothing"
            assert event.get("name", stack[-1].name) == stack[-1].name, event
            stack.pop().end = event["ts"]
    for found in trace.slices.values():
        assert all(math.isfinite(one.end) for one in found), "a slice that never ends"


def _spans(events: list[Event], trace: Trace) -> None:
    open_spans: dict[tuple[int, str, str], list[Slice]] = defaultdict(list)
    for event in events:
        if event["ph"] not in "bne":
            continue
        assert event["cat"], event
        number = event["id2"]["local"] if "id2" in event else event["id"]
        assert isinstance(number, str), event
        key = (event["pid"] if "id2" in event else 0, event["cat"], number)
        stack = open_spans[key]
        if event["ph"] == "b":
            stack.append(Slice(event["name"], event["ts"], math.inf, event.get("args", {})))
            trace.spans[key].append(stack[-1])
        elif event["ph"] == "e":
            assert stack, f"{event} ends nothing"
            assert stack[-1].name == event["name"], event
            assert stack[-1].start <= event["ts"], event
            stack.pop().end = event["ts"]
    assert not any(open_spans.values()), "a span that never ends"


def _flows(events: list[Event], trace: Trace) -> None:
    """s, then any number of t, then f; each inside the slice that its thread began last (of f: `bp` is e)."""
    phases: dict[tuple[str, str, str], str] = defaultdict(str)
    times: dict[tuple[str, str, str], float] = {}
    current: dict[Track, Slice] = {}
    for event in events:
        track = (event["pid"], event["tid"])
        if event["ph"] == "X":
            current[track] = Slice(event["name"], event["ts"], event["ts"] + event["dur"], event.get("args", {}))
        if event["ph"] not in "stf":
            continue
        key = (event["cat"], event["name"], str(event["id"]))
        int(str(event["id"]), 16)
        assert event["ts"] >= times.get(key, 0.0), event
        assert track in current, f"{event} is in no slice"
        assert current[track].start <= event["ts"] <= current[track].end + 1e-6, f"{event} is in no slice"
        assert event["ph"] != "f" or event["bp"] == "e", event
        phases[key] += event["ph"]
        times[key] = event["ts"]
        trace.flows[key].append(current[track])
    for key, found in phases.items():
        assert found[0] == "s", (key, found)
        assert found[-1] == "f", (key, found)
        assert set(found[1:-1]) <= {"t"}, (key, found)


def _counters(events: list[Event], trace: Trace) -> None:
    for event in events:
        if event["ph"] == "C":
            assert event["args"], event
            for name, value in event["args"].items():
                assert isinstance(value, int | float), event
                trace.counters[event["pid"], f"{event['name']} {name}"].append((event["ts"], value))
