"""Events of the Trace Event Format, which ui.perfetto.dev and chrome://tracing open.

Times are written in microseconds with three decimals, events in order of time. The slices of one thread nest: whoever
adds them sees to that (`lanes_of` finds lanes on which they do not overlap at all).
Source: Trace Event Format (Google, catapult): complete, nestable async, flow, counter and metadata events; how the
events become tracks: google/perfetto, src/trace_processor/importers/json.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Value = str | int | float

NANOSECONDS: Final = 1e9
COMPRESSION_LEVEL: Final = 6
FIRST_THREAD: Final = 1001
"""Numbers of threads are no process's: a thread of its process's number would be shown as its main thread."""


class TraceEvents:
    """Events as JSON texts. A process is a group of tracks; threads are tracks, numbered through all processes."""

    def __init__(self) -> None:
        self._about: list[str] = []
        self._events: list[tuple[int, str]] = []
        self._num_processes = 0
        self._num_threads = 0

    def process(self, name: str) -> int:
        """A group of tracks, below those before it."""
        self._num_processes += 1
        number = self._num_processes
        self._about.append(_about("process_name", number, 0, "name", _text(name)))
        self._about.append(_about("process_sort_index", number, 0, "sort_index", str(number)))
        return number

    def thread(self, process: int, name: str) -> int:
        """A track of slices in a group."""
        number = FIRST_THREAD + self._num_threads
        self._num_threads += 1
        self._about.append(_about("thread_name", process, number, "name", _text(name)))
        self._about.append(_about("thread_sort_index", process, number, "sort_index", str(number)))
        return number

    def slice(
        self, process: int, thread: int, name: str, category: str, start_ns: int, end_ns: int, **args: Value
    ) -> None:
        """Something that took time on a thread."""
        head = f'{{"ph":"X","name":{_text(name)},"cat":{_text(category)},"pid":{process},"tid":{thread}'
        self._add(start_ns, f'{head},"ts":{_us(start_ns)},"dur":{_us(end_ns - start_ns)}{_args(args)}}}')

    def flow(self, phase: str, process: int, thread: int, name: str, category: str, number: int, time_ns: int) -> None:
        """An end (s, f) or a way point (t) of an arrow: the slice of the thread that was added for this moment.

        Arrows are told apart by category, name and number."""
        enclosing = ',"bp":"e"' if phase == "f" else ""
        head = f'{{"ph":"{phase}","name":{_text(name)},"cat":{_text(category)},"id":"{number:#x}"{enclosing}'
        self._add(time_ns, f'{head},"pid":{process},"tid":{thread},"ts":{_us(time_ns)}}}')

    def span(
        self, process: int, name: str, category: str, number: int, start_ns: int, end_ns: int, **args: Value
    ) -> None:
        """Something that took time on no thread: spans of one name share a track, side by side where they overlap.

        Spans are told apart by process, category and number."""
        head = f'"name":{_text(name)},"cat":{_text(category)},"id2":{{"local":"{number:#x}"}}'
        head += f',"pid":{process},"tid":{process}'
        self._add(start_ns, f'{{"ph":"b",{head},"ts":{_us(start_ns)}{_args(args)}}}')
        self._add(end_ns, f'{{"ph":"e",{head},"ts":{_us(end_ns)}}}')

    def counter(self, process: int, name: str, time_ns: int, **values: float) -> None:
        """Values from a moment on, a track for each."""
        self._add(
            time_ns,
            f'{{"ph":"C","name":{_text(name)},"pid":{process},"tid":{process},"ts":{_us(time_ns)}{_args(values)}}}',
        )

    def json_texts(self, about: Mapping[str, Value]) -> Iterator[str]:
        """The file in pieces. about: what the trace says of itself."""
        self._events.sort(key=lambda event: event[0])  # stable: what was added first stays first at equal times
        yield '{"displayTimeUnit":"ms","otherData":' + json.dumps(dict(about), ensure_ascii=False)
        yield ',"traceEvents":[\n'
        last = len(self._about) + len(self._events) - 1
        for place, text in enumerate((*self._about, *(text for _, text in self._events))):
            yield text if place == last else text + ",\n"
        yield "\n]}\n"

    def _add(self, time_ns: int, text: str) -> None:
        self._events.append((time_ns, text))


def compressed(texts: Iterator[str]) -> bytes:
    """Gzip without name and date: equal traces give equal bytes."""
    buffer = BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=COMPRESSION_LEVEL, filename="", mtime=0) as file:
        for text in texts:
            file.write(text.encode())
    return buffer.getvalue()


def nanoseconds(times_s: npt.ArrayLike) -> list[int]:
    """Times as whole nanoseconds, as finely as a trace tells them apart. None may be NaN."""
    found: list[int] = np.rint(np.asarray(times_s, dtype=np.float64) * NANOSECONDS).astype(np.int64).tolist()
    return found


def lanes_of(start: Sequence[int], end: Sequence[int], keys: Sequence[int]) -> list[int]:
    """The lane of each interval, the lowest that is free, so that those of a lane do not overlap.

    start: ascending. An interval that begins when one of the same key ends stays on that one's lane. One that takes no
    time is alone on its lane at that moment.
    """
    busy: list[tuple[int, int]] = []
    """(end, lane)"""
    free: list[int] = []
    """May hold lanes that are taken again: `is_free` knows."""
    is_free: list[bool] = []
    last: dict[int, tuple[int, int]] = {}
    lanes: list[int] = []
    for begin, finish, key in zip(start, end, keys, strict=True):
        while busy and busy[0][0] <= begin:
            lane = heappop(busy)[1]
            is_free[lane] = True
            heappush(free, lane)
        ended, lane = last.get(key, (-1, -1))
        if ended != begin or not is_free[lane]:
            while free and not is_free[free[0]]:
                heappop(free)
            lane = heappop(free) if free else len(is_free)
            if lane == len(is_free):
                is_free.append(False)
        is_free[lane] = False
        heappush(busy, (max(finish, begin + 1), lane))
        last[key] = (finish, lane)
        lanes.append(lane)
    return lanes


def _about(name: str, process: int, thread: int, key: str, value: str) -> str:
    return f'{{"ph":"M","name":"{name}","pid":{process},"tid":{thread},"args":{{"{key}":{value}}}}}'


@lru_cache(maxsize=4096)
def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _us(time_ns: int) -> str:
    whole, rest = divmod(time_ns, 1000)
    return f"{whole}.{rest:03d}"


def _args(values: Mapping[str, Value]) -> str:
    known = [
        f'"{name}":{_text(value) if isinstance(value, str) else value if isinstance(value, int) else f"{value:.6g}"}'
        for name, value in values.items()
        if isinstance(value, str) or math.isfinite(value)
    ]
    return f',"args":{{{",".join(known)}}}' if known else ""
