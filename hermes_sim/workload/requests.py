"""The one schema every source of traffic ends in: a table with one row per request, in order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import TraceError
from hermes_sim.workload.media import Pictures

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`concurrency` users; each sends its next request `think_time_s` after its last one has finished."""

    concurrency: int
    think_time_s: FloatArray
    """[num_requests], drawn per request: the pause before that request is sent. The first `concurrency` requests
    are the users' first ones: theirs counts from the start of the run."""
    not_before_s: FloatArray | None = None
    """[num_requests] ascending: no request is sent earlier, so that the users are a client's cap on requests in flight
    under planned arrivals. None: as soon as its user is free."""


@dataclass(frozen=True, slots=True)
class RequestTable:
    """Columns of equal length, sorted by arrival (ties keep the order of the source).

    Raises TraceError where the columns break a law stated below.
    """

    arrival_s: FloatArray
    """From the start of the run. NaN: sent when `previous` finishes (+ think_s), or by the closed loop."""
    num_prompt_tokens: IntArray
    """>= 0; what the user sends, retrieved documents not included, session history included."""
    num_output_tokens: IntArray
    """>= 0."""
    session: IntArray
    """Session id, -1 for none. Turns of one session share their history as a prefix."""
    previous: IntArray
    """Row of the turn that must finish first, -1 for none. Always smaller than the row itself."""
    think_s: FloatArray
    """Pause after `previous` finished."""
    prefix_group: IntArray
    """Requests with the same id >= 0 share their first prefix_tokens prompt tokens; -1 for none."""
    prefix_tokens: IntArray
    """<= num_prompt_tokens."""
    priority: IntArray
    """Smaller is more urgent."""
    hash_offsets: IntArray
    """[num_requests + 1] into hash_ids."""
    hash_ids: IntArray
    """Content ids of consecutive blocks of hash_block_tokens prompt tokens."""
    hash_block_tokens: int = 512
    closed_loop: ClosedLoop | None = None
    num_bad_rows: int = 0
    """Rows of a trace that were skipped because `on_bad_row: skip` was asked for."""
    notes: tuple[str, ...] = field(default=())
    """What a reader left out or changed, in words for the summary."""
    pipeline: IntArray | None = None
    """Index into pipeline_names, -1: drawn by the pipelines' weights. None: all are drawn."""
    pipeline_names: tuple[str, ...] = ()
    client: IntArray | None = None
    """Who sent the request (a user, a tenant), -1 for unknown; None: all unknown."""
    adapter: IntArray | None = None
    """Number of the low-rank adapter that the request names, -1 for none; None: none names one."""
    num_image_tokens: IntArray | None = None
    """Of the prompt tokens, those of pictures and sound; None: none."""
    pictures: Pictures | None = None
    """For stages that encode them; None: none, or none whose size is known."""
    sound_s: FloatArray | None = None
    """[num_requests] seconds of sound; None: none."""

    def __post_init__(self) -> None:
        _check_columns(self)
        _check_order(self)
        _check_hashes(self)

    @property
    def num_requests(self) -> int:
        return len(self.arrival_s)


def request_table(
    arrival_s: npt.ArrayLike,
    num_prompt_tokens: npt.ArrayLike,
    num_output_tokens: npt.ArrayLike,
    *,
    session: npt.ArrayLike | None = None,
    previous: npt.ArrayLike | None = None,
    think_s: npt.ArrayLike | None = None,
    prefix_group: npt.ArrayLike | None = None,
    prefix_tokens: npt.ArrayLike | None = None,
    priority: npt.ArrayLike | None = None,
    hash_offsets: npt.ArrayLike | None = None,
    hash_ids: npt.ArrayLike | None = None,
    hash_block_tokens: int = 512,
    closed_loop: ClosedLoop | None = None,
    num_bad_rows: int = 0,
    notes: tuple[str, ...] = (),
    pipeline: npt.ArrayLike | None = None,
    pipeline_names: tuple[str, ...] = (),
    client: npt.ArrayLike | None = None,
    adapter: npt.ArrayLike | None = None,
    num_image_tokens: npt.ArrayLike | None = None,
) -> RequestTable:
    """Table from the columns a source has; the others say "none". Rows must be in order of arrival.

    A column that the source lacks is one number in memory, seen as often as there are requests; nobody can write to it.
    """
    num_requests = len(np.asarray(arrival_s))

    def integers(column: npt.ArrayLike | None, default: int, length: int = num_requests) -> IntArray:
        if column is None:
            return np.broadcast_to(np.int64(default), length)
        return np.ascontiguousarray(column, np.int64)

    return RequestTable(
        arrival_s=np.ascontiguousarray(arrival_s, np.float64),
        num_prompt_tokens=integers(num_prompt_tokens, 0),
        num_output_tokens=integers(num_output_tokens, 0),
        session=integers(session, -1),
        previous=integers(previous, -1),
        think_s=np.broadcast_to(0.0, num_requests) if think_s is None else np.ascontiguousarray(think_s, np.float64),
        prefix_group=integers(prefix_group, -1),
        prefix_tokens=integers(prefix_tokens, 0),
        priority=integers(priority, 0),
        hash_offsets=integers(hash_offsets, 0, num_requests + 1),
        hash_ids=integers(hash_ids, 0, 0),
        hash_block_tokens=hash_block_tokens,
        closed_loop=closed_loop,
        num_bad_rows=num_bad_rows,
        notes=notes,
        pipeline=None if pipeline is None else integers(pipeline, -1),
        pipeline_names=pipeline_names,
        client=None if client is None else integers(client, -1),
        adapter=None if adapter is None else integers(adapter, -1),
        num_image_tokens=None if num_image_tokens is None else integers(num_image_tokens, 0),
    )


def select_requests(table: RequestTable, rows: IntArray, arrival_s: FloatArray | None = None) -> RequestTable:
    """The given rows (each at most once), in the given order, at the given times or their own.

    A turn whose previous turn is not among the rows becomes the first of its session; if it had no arrival of its
    own it cannot be placed and raises TraceError.
    """
    new_row = np.full(table.num_requests + 1, -1, np.int64)  # the last entry answers for previous == -1
    new_row[rows] = np.arange(len(rows))
    num_blocks = np.diff(table.hash_offsets)[rows]
    hash_offsets = np.concatenate([[0], np.cumsum(num_blocks)]).astype(np.int64)
    # hash_ids of row i lie at old_start[i] + 0 .. num_blocks[i] - 1
    from_start = np.arange(hash_offsets[-1]) - np.repeat(hash_offsets[:-1], num_blocks)
    hash_ids = table.hash_ids[np.repeat(table.hash_offsets[rows], num_blocks) + from_start]
    closed_loop = table.closed_loop
    if closed_loop is not None:
        planned_s = closed_loop.not_before_s
        closed_loop = replace(
            closed_loop,
            think_time_s=closed_loop.think_time_s[rows],
            not_before_s=None if planned_s is None else planned_s[rows],
        )
    return replace(
        table,
        arrival_s=table.arrival_s[rows] if arrival_s is None else arrival_s,
        num_prompt_tokens=table.num_prompt_tokens[rows],
        num_output_tokens=table.num_output_tokens[rows],
        session=table.session[rows],
        previous=new_row[table.previous[rows]],
        think_s=table.think_s[rows],
        prefix_group=table.prefix_group[rows],
        prefix_tokens=table.prefix_tokens[rows],
        priority=table.priority[rows],
        hash_offsets=hash_offsets,
        hash_ids=hash_ids,
        closed_loop=closed_loop,
        pipeline=None if table.pipeline is None else table.pipeline[rows],
        client=None if table.client is None else table.client[rows],
        adapter=None if table.adapter is None else table.adapter[rows],
        num_image_tokens=None if table.num_image_tokens is None else table.num_image_tokens[rows],
        pictures=None if table.pictures is None else table.pictures.of(rows),
        sound_s=None if table.sound_s is None else table.sound_s[rows],
    )


def first_of_session(table: RequestTable) -> IntArray:
    """[num_requests] row of the first request of each one's session; without a session its own."""
    rows = np.arange(table.num_requests)
    in_session = np.flatnonzero(table.session >= 0)
    _, first, inverse = np.unique(table.session[in_session], return_index=True, return_inverse=True)
    rows[in_session] = in_session[first[inverse]]
    return rows


_NON_NEGATIVE = (
    "arrival_s", "num_prompt_tokens", "num_output_tokens", "think_s", "prefix_tokens", "hash_ids", "num_image_tokens",
    "sound_s",
)  # fmt: skip
_NOT_PER_REQUEST = ("hash_offsets", "hash_ids")


def _check_columns(table: RequestTable) -> None:
    for column_field in fields(table):
        column = getattr(table, column_field.name)
        if not isinstance(column, np.ndarray):
            continue
        if column_field.name not in _NOT_PER_REQUEST and len(column) != table.num_requests:
            _broken(f"{column_field.name} has {len(column)} rows, arrival_s {table.num_requests}")
        if column_field.name in _NON_NEGATIVE:
            _refuse(column < 0, f"{column_field.name} is negative")
    _refuse(table.prefix_tokens > table.num_prompt_tokens, "prefix_tokens exceeds num_prompt_tokens")
    _refuse((table.prefix_tokens > 0) & (table.prefix_group < 0), "prefix_tokens without a prefix_group")
    if table.num_image_tokens is not None:
        _refuse(table.num_image_tokens > table.num_prompt_tokens, "num_image_tokens exceeds num_prompt_tokens")
    _refuse(np.isinf(table.arrival_s), "arrival_s is infinite")
    _refuse(~np.isfinite(table.think_s), "think_s is not finite")
    if table.pipeline is not None:
        _refuse(table.pipeline >= len(table.pipeline_names), "pipeline is not an index into pipeline_names")


def _check_order(table: RequestTable) -> None:
    waits = np.isnan(table.arrival_s)
    _refuse(np.diff(table.arrival_s[~waits]) < 0, "arrival_s is not sorted")
    _refuse(table.previous >= np.arange(table.num_requests), "previous is not an earlier row")
    if table.closed_loop is None:
        _refuse(waits & (table.previous < 0), "arrival_s is missing and there is no previous turn to wait for")
    elif len(table.closed_loop.think_time_s) != table.num_requests:
        _broken(f"closed_loop has {len(table.closed_loop.think_time_s)} think times for {table.num_requests} requests")
    elif (planned_s := table.closed_loop.not_before_s) is not None:
        if len(planned_s) != table.num_requests:
            _broken(f"closed_loop has {len(planned_s)} planned times for {table.num_requests} requests")
        _refuse(np.diff(planned_s) < 0, "closed_loop.not_before_s is not sorted")


def _check_hashes(table: RequestTable) -> None:
    offsets = table.hash_offsets
    if len(offsets) != table.num_requests + 1 or offsets[0] != 0 or offsets[-1] != len(table.hash_ids):
        _broken("hash_offsets does not span hash_ids")
    num_blocks = np.diff(offsets)
    _refuse(num_blocks < 0, "hash_offsets is not ascending")
    most_blocks = -(-table.num_prompt_tokens // table.hash_block_tokens)
    _refuse(num_blocks > most_blocks, f"more hash_ids than blocks of {table.hash_block_tokens} prompt tokens")


def _refuse(wrong: BoolArray, law: str) -> None:
    if wrong.any():
        _broken(f"row {int(np.argmax(wrong))}: {law}")


def _broken(law: str) -> None:
    raise TraceError(f"requests: {law}")


def concatenate_hashes(ids_per_request: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Lists of block ids -> (hash_offsets, hash_ids)."""
    offsets = np.zeros(len(ids_per_request) + 1, np.int64)
    np.cumsum([len(ids) for ids in ids_per_request], out=offsets[1:])
    flat = np.fromiter((block for ids in ids_per_request for block in ids), np.int64, int(offsets[-1]))
    return offsets, flat
