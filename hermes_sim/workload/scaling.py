"""What a workload file does to a recorded trace: cut a window, multiply the rate, stretch time, count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import TraceError
from hermes_sim.workload.requests import (
    FloatArray,
    IntArray,
    RequestTable,
    first_of_session,
    request_table,
    select_requests,
)


def cut_window(table: RequestTable, from_s: float, to_s: float) -> RequestTable:
    """Requests that arrive in [from_s, to_s), and the turns that follow them; the window's start becomes time 0."""
    first_arrival_s = table.arrival_s[first_turns(table)]
    rows = np.flatnonzero((first_arrival_s >= from_s) & (first_arrival_s < to_s))
    return select_requests(table, rows, table.arrival_s[rows] - from_s)


def scale_time(table: RequestTable, factor: float) -> RequestTable:
    """Time stretched by a factor, pauses between turns included: the same requests, rate / factor."""
    return replace(table, arrival_s=table.arrival_s * factor, think_s=table.think_s * factor)


def first_requests(table: RequestTable, num_requests: int) -> RequestTable:
    """The first rows."""
    return select_requests(table, np.arange(min(num_requests, table.num_requests)))


def scale_rate(table: RequestTable, factor: float, rng: np.random.Generator) -> RequestTable:
    """The rate multiplied over the same span of time: whole sessions (or lone requests) are left out or copied.

    Each is taken floor(factor) times, and once more with the remaining probability. A copy arrives at random between
    its original and the next arrival, and its content (hash ids, history) is its own: copies never hit each other's
    prefixes. Shared system prompts (prefix_group) stay shared, and a copy is its original's client's.
    """
    if factor == 1.0:
        return table
    if table.closed_loop is not None:
        raise TraceError("rate_scale has no meaning for a closed loop, whose rate the engines set")
    groups = _groups(table)
    extra = rng.random(table.num_requests)[groups] < factor % 1.0
    num_copies = int(factor) + extra.astype(np.int64)
    most = int(num_copies.max(initial=0))
    copies = [_copy(table, np.flatnonzero(num_copies > number), number, rng) for number in range(most)]
    return _merge(copies) if copies else select_requests(table, np.zeros(0, np.int64))


def first_turns(table: RequestTable) -> IntArray:
    """[num_requests] row of the turn each request's chain of previous turns starts with, often itself."""
    rows = np.arange(table.num_requests)
    first = np.where(table.previous < 0, rows, table.previous)
    while True:  # pointer jumping: the way to the first turn halves with each pass
        further = first[first]
        if np.array_equal(further, first):
            return first
        first = further


def _groups(table: RequestTable) -> IntArray:
    """[num_requests] row that stands for all requests to be kept or dropped together."""
    return np.where(table.session >= 0, first_of_session(table), first_turns(table))


def _copy(table: RequestTable, rows: IntArray, number: int, rng: np.random.Generator) -> RequestTable:
    if number == 0:
        return select_requests(table, rows)
    own_sessions = number * (int(table.session.max(initial=-1)) + 1)
    own_hash_ids = number * (int(table.hash_ids.max(initial=-1)) + 1)
    copied = select_requests(table, rows, (table.arrival_s + rng.random(table.num_requests) * _gaps(table))[rows])
    return replace(
        copied,
        session=np.where(copied.session >= 0, copied.session + own_sessions, -1),
        hash_ids=copied.hash_ids + own_hash_ids,
    )


def _gaps(table: RequestTable) -> FloatArray:
    """[num_requests] time to the next arrival; zero for the last one and for turns that wait for another."""
    gaps = np.zeros(table.num_requests)
    arriving = np.flatnonzero(~np.isnan(table.arrival_s))
    gaps[arriving[:-1]] = np.diff(table.arrival_s[arriving])
    return gaps


def _merge(tables: Sequence[RequestTable]) -> RequestTable:
    """Rows of all tables in order of arrival; a turn without an arrival of its own goes with its first one."""

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(table, name) for table in tables])

    num_rows = [table.num_requests for table in tables]
    shift = np.repeat(np.cumsum([0, *num_rows[:-1]]), num_rows)
    order = np.argsort(np.concatenate([table.arrival_s[first_turns(table)] for table in tables]), kind="stable")
    new_row = np.empty(len(order), np.int64)
    new_row[order] = np.arange(len(order))
    previous = np.where(joined("previous") < 0, -1, new_row[joined("previous") + shift])[order]
    unordered = request_table(
        np.zeros(len(order)),
        joined("num_prompt_tokens"),
        joined("num_output_tokens"),
        session=joined("session"),
        think_s=joined("think_s"),
        prefix_group=joined("prefix_group"),
        prefix_tokens=joined("prefix_tokens"),
        priority=joined("priority"),
        hash_offsets=np.cumsum([0, *np.concatenate([np.diff(table.hash_offsets) for table in tables])]),
        hash_ids=joined("hash_ids"),
        hash_block_tokens=tables[0].hash_block_tokens,
        num_bad_rows=tables[0].num_bad_rows,
        notes=tables[0].notes,
        pipeline=None if tables[0].pipeline is None else joined("pipeline"),
        pipeline_names=tables[0].pipeline_names,
        client=None if tables[0].client is None else joined("client"),
        adapter=None if tables[0].adapter is None else joined("adapter"),
        num_image_tokens=None if tables[0].num_image_tokens is None else joined("num_image_tokens"),
    )
    return replace(select_requests(unordered, order), arrival_s=joined("arrival_s")[order], previous=previous)
