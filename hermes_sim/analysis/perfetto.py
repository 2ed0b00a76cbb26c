"""A run as a trace for ui.perfetto.dev: engines, their steps and batches, requests, queues, links over time.

A process of the trace is an engine with all its replicas. Of each replica, tracks of slices: its steps where they were
recorded, else the intervals of its timeline by what limited them; below them its batch, a slot for each visit that is
served at a time. Arrows lead a request from slot to slot. Spans beside them: visits that wait for their first step, and
input on its way. Counters: visits waiting and running, batch, KV used, utilization. `links` has the links, `requests` a
span from arrival to end for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.metrics import RESOURCES
from hermes_sim.analysis.trace_events import TraceEvents, Value, compressed, lanes_of, nanoseconds
from hermes_sim.analysis.trust import engine_name

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

STEP_COLUMNS = (
    "step", "num_tokens", "num_decode", "num_prefill", "num_prefill_tokens", "num_running", "num_waiting",
    "num_preempted", "num_finished",
)  # fmt: skip
INTERVAL_COLUMNS = ("num_steps", "num_tokens", "mean_batch", "utilization_frac", "mfu_frac", "mbu_frac")
REQUEST_COLUMNS = (
    "request", "status", "num_prompt_tokens", "num_output_tokens", "num_cached_tokens", "num_preemptions", "ttft_s",
    "tpot_s", "e2e_s",
)  # fmt: skip
SHORTEST_SPAN_S = 1e-9
"""A shorter wait is a rounding error."""

Way = tuple[int, int, int, int]
"""Request, when a visit of it began, process and thread of its slot."""


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a run that a trace shows: what is under way between the two moments."""

    from_s: float
    to_s: float

    def inside(self, frame: pd.DataFrame, start: str = "start_s", end: str = "end_s") -> pd.DataFrame:
        """Rows that overlap it."""
        return frame[(frame[start] <= self.to_s) & (frame[end] >= self.from_s)]


def trace_json(results: Results, from_s: float | None = None, to_s: float | None = None) -> Iterator[str]:
    """The trace as JSON, in pieces. from_s, to_s: only what is under way between these moments of simulated time."""
    window = Window(
        0.0 if from_s is None else max(from_s, 0.0),
        results.duration_s if to_s is None else min(to_s, results.duration_s),
    )
    scenario = results.scenario
    about: dict[str, Value] = {
        "program": f"hermes-sim {results.version}",
        "cluster": scenario.cluster.name,
        "workload": scenario.workload.name,
        "seed": results.seed,
        "steps": "all" if results.steps is not None else "not recorded: intervals of the run",
    }
    return _events(results, window).json_texts(about)


def trace_gz(results: Results, from_s: float | None = None, to_s: float | None = None) -> bytes:
    """The same as a gzip file, which both viewers open."""
    return compressed(trace_json(results, from_s, to_s))


def _events(results: Results, window: Window) -> TraceEvents:
    events = TraceEvents()
    visits = _visits(results, window)
    ways: list[Way] = []
    for name, replicas in _engines(results, visits).items():
        process = events.process(name)
        for replica in replicas:
            own = visits[visits["engine"] == replica]
            _steps(events, process, replica, results, window)
            ways += _slots(events, process, replica, own)
            _waiting(events, process, replica, own)
            _counters(events, process, replica, results, own, window)
    _arrows(events, ways)
    _links(events, results, window)
    _requests(events, results, window)
    return events


def _visits(results: Results, window: Window) -> pd.DataFrame:
    """Visits inside the window; what has not ended goes on to the end of the run."""
    visits = results.visits
    visits = visits[(visits["engine"] != "") & visits["arrival_s"].notna()]
    end_s = np.nan_to_num(floats(visits, "finish_s"), nan=results.duration_s)
    start_s = np.where(np.isnan(floats(visits, "start_s")), end_s, floats(visits, "start_s"))
    visits = visits.assign(
        served=visits["start_s"].notna(),
        begin_s=start_s,
        end_s=end_s,
        set_out_s=visits["arrival_s"] - visits["transfer_s"],
    )
    return window.inside(visits, "set_out_s", "end_s")


def _engines(results: Results, visits: pd.DataFrame) -> dict[str, list[str]]:
    """Replicas by their engine; stores, tools and whatever else is visited behind them."""
    found: dict[str, list[str]] = {}
    for replica in dict.fromkeys([*map(str, results.engines["engine"]), *map(str, visits["engine"].unique())]):
        found.setdefault(engine_name(replica), []).append(replica)
    return found


def _steps(events: TraceEvents, process: int, replica: str, results: Results, window: Window) -> None:
    steps = results.steps
    recorded = None if steps is None else steps[steps["engine"] == replica]
    if recorded is None or recorded.empty:
        _intervals(events, process, replica, results, window)
        return
    inside = window.inside(recorded)
    start_ns, end_ns = nanoseconds(inside["start_s"]), nanoseconds(inside["end_s"])
    lanes = lanes_of(start_ns, end_ns, [0] * len(inside))
    threads = [
        events.thread(process, f"{replica} steps" + (f" {lane + 1}" if lane else ""))
        for lane in range(max(lanes, default=-1) + 1)
    ]
    limits = _limits(inside)
    columns = {name: inside[name].tolist() for name in STEP_COLUMNS}
    for place, (start, end, lane) in enumerate(zip(start_ns, end_ns, lanes, strict=True)):
        args: dict[str, Value] = {name: values[place] for name, values in columns.items()}
        kind = "decode" if not args["num_prefill"] else "mixed" if args["num_decode"] else "prefill"
        events.slice(process, threads[lane], kind, "step", start, end, limited_by=limits[place], **args)


def _intervals(events: TraceEvents, process: int, replica: str, results: Results, window: Window) -> None:
    """Slices of equal length, called by what limited the steps in them; none where the replica was idle."""
    timeline = results.timeline
    busy = window.inside(timeline[(timeline["engine"] == replica) & (timeline["busy_s"] > 0.0)])
    if busy.empty:
        return
    thread = events.thread(process, f"{replica} busy, by limit")
    columns = {name: busy[name].tolist() for name in INTERVAL_COLUMNS}
    names = _limits(busy)
    for place, (start, end) in enumerate(zip(nanoseconds(busy["start_s"]), nanoseconds(busy["end_s"]), strict=True)):
        args = {name: values[place] for name, values in columns.items()}
        events.slice(process, thread, names[place], "interval", start, end, **args)


def _limits(frame: pd.DataFrame) -> list[str]:
    """The resource that took most of the time of each row."""
    seconds = np.stack([floats(frame, f"{resource}_s") for resource in RESOURCES], axis=1)
    return [RESOURCES[place] for place in (seconds.argmax(axis=1) if len(frame) else [])]


def _slots(events: TraceEvents, process: int, replica: str, visits: pd.DataFrame) -> Iterator[Way]:
    """What is served side by side, a request's visits in one slot where they follow each other."""
    served = visits[visits["served"]].sort_values(["begin_s", "arrival_s"], kind="stable")
    start_ns, end_ns = nanoseconds(served["begin_s"]), nanoseconds(served["end_s"])
    requests = [int(number) for number in served["request"]]
    lanes = lanes_of(start_ns, end_ns, requests)
    threads = [events.thread(process, f"{replica} slot {lane}") for lane in range(max(lanes, default=-1) + 1)]
    stages, rounds = served["stage"].astype(str).tolist(), served["round"].tolist()
    waited, queued, preempted = (served[name].tolist() for name in ("transfer_s", "queue_s", "preempted_s"))
    limits = _limits(served)
    for place, (start, end, lane) in enumerate(zip(start_ns, end_ns, lanes, strict=True)):
        args: dict[str, Value] = {"request": requests[place], "limited_by": limits[place], "queue_s": queued[place]}
        args |= {"transfer_s": waited[place]} if waited[place] else {}
        args |= {"preempted_s": preempted[place]} if preempted[place] else {}
        args |= {"round": rounds[place]} if rounds[place] else {}
        events.slice(process, threads[lane], f"{stages[place]} {requests[place]}", "visit", start, end, **args)
        yield requests[place], start, process, threads[lane]


def _arrows(events: TraceEvents, ways: list[Way]) -> None:
    """From each visit of a request to the next, by when they began."""
    for request, visits in groupby(sorted(ways), key=itemgetter(0)):
        *before, last = visits
        for place, (_, start, process, thread) in enumerate(before):
            events.flow("t" if place else "s", process, thread, "request", "request", request, start)
        if before:
            _, start, process, thread = last
            events.flow("f", process, thread, "request", "request", request, start)


def _waiting(events: TraceEvents, process: int, replica: str, visits: pd.DataFrame) -> None:
    """Spans of visits that wait for their first step, and of input on its way to the replica."""
    for name, category, begin, end in (
        ("waiting", "queue", "arrival_s", "begin_s"),
        ("input on its way", "transfer", "set_out_s", "arrival_s"),
    ):
        own = visits[visits[end] - visits[begin] >= SHORTEST_SPAN_S]
        columns = (own.index.tolist(), own["request"].tolist(), own["stage"].astype(str).tolist())
        start_ns, end_ns = nanoseconds(own[begin]), nanoseconds(own[end])
        for row, request, stage, start, finish in zip(*columns, start_ns, end_ns, strict=True):
            events.span(process, f"{replica} {name}", category, row, start, finish, request=request, stage=stage)


def _counters(
    events: TraceEvents, process: int, replica: str, results: Results, visits: pd.DataFrame, window: Window
) -> None:
    for time, waiting, running in _numbers_of_visits(visits):
        events.counter(process, f"{replica} visits", time, waiting=waiting, running=running)
    timeline = window.inside(results.timeline[results.timeline["engine"] == replica])
    steps = results.steps
    recorded = None if steps is None else window.inside(steps[steps["engine"] == replica])
    exact = recorded is not None and not recorded.empty
    shown = [("utilization", timeline, 100.0 * floats(timeline, "utilization_frac"), "percent")]
    if exact:
        assert recorded is not None
        batch = floats(recorded, "num_decode") + floats(recorded, "num_prefill")
        shown.append(("batch", recorded, batch, "sequences"))
        shown.append(("KV used", recorded, 100.0 * floats(recorded, "kv_used_frac"), "percent"))
    else:
        shown.append(("batch", timeline, floats(timeline, "mean_batch"), "mean"))
        shown.append(("KV used", timeline, 100.0 * floats(timeline, "mean_kv_used_frac"), "percent"))
    for name, frame, values, unit in shown:
        if values.any():
            _curve(events, process, f"{replica} {name}", frame, values, unit)


def _curve(events: TraceEvents, process: int, name: str, frame: pd.DataFrame, values: FloatArray, unit: str) -> None:
    """A counter that stands at each row's value from the row's start on, and at 0 behind the last."""
    changes = np.flatnonzero(np.diff(values, prepend=np.nan) != 0.0)
    times = nanoseconds(frame["start_s"])
    for place in changes.tolist():
        events.counter(process, name, times[place], **{unit: float(values[place])})
    if len(frame):
        events.counter(process, name, nanoseconds(frame["end_s"].iloc[-1:])[0], **{unit: 0.0})


def _numbers_of_visits(visits: pd.DataFrame) -> Iterator[tuple[int, int, int]]:
    """(time, waiting, running) at each change: exact, whatever was recorded."""
    served = visits[visits["served"]]
    moments = [
        (nanoseconds(visits["arrival_s"]), 1, 0), (nanoseconds(visits["begin_s"]), -1, 0),
        (nanoseconds(served["begin_s"]), 0, 1), (nanoseconds(served["end_s"]), 0, -1),
    ]  # fmt: skip
    times = np.concatenate([np.array(found, dtype=np.int64) for found, _, _ in moments])
    changes = np.concatenate([np.tile([by, of], (len(found), 1)) for found, by, of in moments])
    at, place = np.unique(times, return_inverse=True)
    sums = np.zeros((len(at), 2), dtype=np.int64)
    np.add.at(sums, place, changes)
    moved = sums.any(axis=1)
    for time, (waiting, running) in zip(at[moved].tolist(), np.cumsum(sums, axis=0)[moved].tolist(), strict=True):
        yield time, waiting, running


def _links(events: TraceEvents, results: Results, window: Window) -> None:
    if results.link_timeline is None:
        return
    process = events.process("links")
    for link, rows in window.inside(results.link_timeline).groupby("link", observed=True, sort=False):
        _curve(events, process, str(link), rows, 100.0 * floats(rows, "utilization_frac"), "percent")


def _requests(events: TraceEvents, results: Results, window: Window) -> None:
    """A span for each, from arrival to end; one that never ends goes on to the end of the run."""
    requests = results.requests[results.requests["arrival_s"].notna()]
    requests = requests.assign(end_s=requests["finish_s"].fillna(results.duration_s))
    rejected = (requests["status"] == "rejected").to_numpy(dtype=np.bool_)
    requests.loc[rejected, "end_s"] = requests.loc[rejected, "arrival_s"]
    requests = window.inside(requests, "arrival_s", "end_s")
    process = events.process("requests")
    pipelines = requests["pipeline"].astype(str).tolist()
    columns = {name: requests[name].tolist() for name in REQUEST_COLUMNS}
    start_ns, end_ns = nanoseconds(requests["arrival_s"]), nanoseconds(requests["end_s"])
    for place, (start, end) in enumerate(zip(start_ns, end_ns, strict=True)):
        args: dict[str, Value] = {name: values[place] for name, values in columns.items()}
        events.span(process, pipelines[place], "request", int(args["request"]), start, end, **args)
