"""The chain of visits that a request waited for: to its first token, cut into parts; to its end, visit by visit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats, is_finished

IntArray = npt.NDArray[np.int64]

HOLDS: Final = ("kv_wait", "batch_wait", "budget_wait")
"""What held the line of a token engine (glossary: held line)."""
SERVICE: Final = ("compute", "memory", "network", "host")
PARTS: Final = ("pause", "front_end", "transfer", *HOLDS, "queue", "preempted", "draft_wait", "stated", *SERVICE)
"""Of a visit on the path to a request's end, in the order in which they come. pause: nothing of its request went on
before it; queue: in no step for a reason that no other part names; stated: service of a time that the workload states
(tools), whatever it is spent on."""
TIMED: Final = "timed"
"""Kind of stages whose service time is stated."""

_TOLERANCE = 1e-9
"""Relative: `arrival_s - transfer_s` of a visit is its predecessor's finish_s up to rounding."""


def ttft_parts(requests: pd.DataFrame, visits: pd.DataFrame) -> pd.DataFrame:
    """Seconds of each request's TTFT by part; the columns add up to ttft_s. Rows: requests with a first token.

    The critical path is walked backwards: from the last visit that ended by the first token to the visit that ended
    when this one's input set out (`arrival_s - transfer_s - tokenize_s`), and so on to the request's arrival. On every
    visit of the path `queue` is its time in no step (preempted time included), `host` the host's share of its steps,
    `transfer` the moving of its input, or of the KV that brings the decode side the first token, and the rest of its
    steps goes to its stage kind (`retrieve`, `prefill` ...).
    `front_end` is tokenising, waiting for a tokeniser included, and sending the first token to the client. `other` is
    what no visit covers: pauses between stages.
    """
    with_token = requests[requests["ttft_s"].notna()]
    ids = with_token["request"].to_numpy(dtype=np.int64)
    path = _served(visits, ids)
    kinds = [str(kind) for kind in path["kind"].cat.categories]
    parts = {part: np.zeros(len(ids)) for part in ["queue", *kinds, "transfer", "host", "front_end", "other"]}
    left_engine_s = floats(with_token, "engine_first_token_s")
    parts["front_end"] += floats(with_token, "first_token_s") - left_engine_s
    with_kv_s = _came_with_kv_s(path, ids, left_engine_s)
    parts["transfer"] += with_kv_s
    chain = _walk(path, ids, floats(with_token, "arrival_s"), left_engine_s - with_kv_s)
    _add_up(path, chain, parts)
    left_out = set(kinds) - set(path["kind"].unique()) | ({"front_end"} if not parts["front_end"].any() else set())
    return pd.DataFrame({name: parts[name] for name in parts if name not in left_out}, index=ids)


def path_to_the_end(requests: pd.DataFrame, visits: pd.DataFrame, *, reserves_early: bool = False) -> pd.DataFrame:
    """The visits that each finished request's end waited for, in order, with the seconds of each by part (PARTS).

    Columns: request, stage, round, kind, engine, set_out_s (when its input set out), arrival_s, start_s, finish_s, and
    `PART_s`; the parts of a request's rows add up to its e2e_s. What comes after its last visit (detokenising, sending)
    is that row's front_end. Stages beside the path, which ended before others, are left out.
    reserves_early: prompts wait until the engine that will decode them has room; that wait is kv_wait, as is that of a
    computed prompt for room elsewhere.
    """
    finished = requests[is_finished(requests)]
    ids = finished["request"].to_numpy(dtype=np.int64)
    path = _served(visits, ids)
    chain = _walk(path, ids, floats(finished, "arrival_s"), floats(finished, "finish_s"))
    order = np.lexsort((-chain.depth, chain.request))
    place, at, after_s = chain.request[order], chain.visit[order], chain.after_s[order]
    rows = path.iloc[at].reset_index(drop=True)
    is_last = chain.depth[order] == 0
    before_s = np.where(is_last, 0.0, after_s)
    pause_s = np.roll(before_s, 1)  # what comes after a visit is the pause before the next of its request
    is_first = np.append(True, place[1:] != place[:-1]) if len(place) else np.zeros(0, np.bool_)
    pause_s[is_first] = chain.first_s[place[is_first]]
    table = rows[["request", "stage", "round", "kind", "engine", "arrival_s", "start_s", "finish_s"]].copy()
    table.insert(5, "set_out_s", floats(rows, "arrival_s") - floats(rows, "transfer_s") - floats(rows, "tokenize_s"))
    columns = _visit_parts(rows)
    columns["front_end"] = floats(rows, "tokenize_s") + np.where(is_last, after_s, 0.0)
    kind = rows["kind"].astype("str").to_numpy()
    for_room = (kind == "decode") & (floats(rows, "transfer_s") > 0.0)
    if reserves_early:
        for_room |= kind == "prefill"
    columns["pause"] = np.where(for_room, 0.0, pause_s)
    columns["kv_wait"] = columns["kv_wait"] + np.where(for_room, pause_s, 0.0)
    return table.assign(**{f"{part}_s": np.maximum(columns[part], 0.0) for part in PARTS})


def _visit_parts(rows: pd.DataFrame) -> dict[str, FloatArray]:
    """Seconds of visits from arriving to leaving, by part; what is not known by name is queue."""
    none = np.zeros(len(rows))
    named = {
        part: np.nan_to_num(floats(rows, f"{part}_s")) if f"{part}_s" in rows else none
        for part in (*HOLDS, "preempted", "draft_wait", *SERVICE, "transfer")
    }
    in_engine_s = floats(rows, "finish_s") - floats(rows, "arrival_s")
    known_s = sum((seconds for part, seconds in named.items() if part != "transfer"), none)
    is_stated = (rows["kind"] == TIMED).to_numpy()
    stated_s = np.where(is_stated, sum((named[part] for part in SERVICE), none), 0.0)
    service = {part: np.where(is_stated, 0.0, named[part]) for part in SERVICE}
    return {**named, **service, "stated": stated_s, "queue": in_engine_s - known_s}


@dataclass(frozen=True, slots=True)
class _Chain:
    """Visits on the paths of several requests, one entry each; those of a request from its last to its first."""

    request: IntArray
    """Place of the request among those asked for."""
    visit: IntArray
    """Row of the visits."""
    depth: IntArray
    """0: the last of its request."""
    after_s: FloatArray
    """From its end to the setting out of the next one, or to the end of the path."""
    first_s: FloatArray
    """[num_requests] from the arrival to the setting out of the first visit."""


def _served(visits: pd.DataFrame, ids: IntArray) -> pd.DataFrame:
    """Visits of these requests that have ended, request by request, in the order of their ends."""
    path = visits[visits["request"].isin(ids) & visits["finish_s"].notna()]
    return path.sort_values(["request", "finish_s", "arrival_s"], kind="stable", ignore_index=True)


def _came_with_kv_s(path: pd.DataFrame, ids: IntArray, first_token_s: FloatArray) -> FloatArray:
    """[num_requests] the transfer of a prompt's KV at whose end the first token was sent; 0 where none was."""
    arrival_s, transfer_s = floats(path, "arrival_s"), floats(path, "transfer_s")
    place = np.searchsorted(ids, path["request"].to_numpy(dtype=np.int64))
    token_s = first_token_s[place]
    came = (transfer_s > 0.0) & (np.abs(arrival_s - token_s) <= _TOLERANCE * np.maximum(1.0, np.abs(token_s)))
    found = np.zeros(len(ids))
    found[place[came]] = transfer_s[came]
    return found


def _walk(path: pd.DataFrame, ids: IntArray, arrival_s: FloatArray, end_s: FloatArray) -> _Chain:
    """From the end of each path backwards, all requests at once, one visit of each per round."""
    request_of = path["request"].to_numpy(dtype=np.int64)
    begin = np.searchsorted(request_of, ids, side="left")
    visit = np.searchsorted(request_of, ids, side="right") - 1
    finish_s = floats(path, "finish_s")
    set_out_s = floats(path, "arrival_s") - floats(path, "transfer_s") - floats(path, "tokenize_s")
    wanted_s = end_s.copy()
    visit = _last_before(visit, begin, finish_s, wanted_s)
    active = np.flatnonzero(visit >= begin)
    rounds: list[tuple[IntArray, IntArray, FloatArray]] = []
    while len(active):
        at = visit[active]
        rounds.append((active, at, wanted_s[active] - finish_s[at]))
        wanted_s[active] = set_out_s[at]
        visit[active] = _last_before(at - 1, begin[active], finish_s, wanted_s[active])
        active = active[visit[active] >= begin[active]]
    depths = [np.full(len(one[0]), number) for number, one in enumerate(rounds)]
    return _Chain(
        request=np.concatenate([np.zeros(0, np.int64), *(one[0] for one in rounds)]),
        visit=np.concatenate([np.zeros(0, np.int64), *(one[1] for one in rounds)]),
        depth=np.concatenate([np.zeros(0, np.int64), *depths]),
        after_s=np.concatenate([np.zeros(0), *(one[2] for one in rounds)]),
        first_s=wanted_s - arrival_s,
    )


def _add_up(path: pd.DataFrame, chain: _Chain, parts: dict[str, FloatArray]) -> None:
    """Fills `parts` [num_requests] of all requests."""
    at, request = chain.visit, chain.request
    arrival_s, finish_s, transfer_s, tokenize_s, service_s, host_s = (
        floats(path, column)[at]
        for column in ("arrival_s", "finish_s", "transfer_s", "tokenize_s", "service_s", "host_s")
    )
    np.add.at(parts["other"], request, chain.after_s)
    np.add.at(parts["queue"], request, finish_s - arrival_s - service_s)
    np.add.at(parts["host"], request, host_s)
    np.add.at(parts["transfer"], request, transfer_s)
    np.add.at(parts["front_end"], request, tokenize_s)
    kind_of = path["kind"].cat.codes.to_numpy()[at]
    for code, kind in enumerate(path["kind"].cat.categories):
        chosen = kind_of == code
        np.add.at(parts[str(kind)], request[chosen], (service_s - host_s)[chosen])
    parts["other"] += chain.first_s


def _last_before(visit: IntArray, begin: IntArray, finish_s: FloatArray, wanted_s: FloatArray) -> IntArray:
    """Goes back from `visit` until one that ended by `wanted_s`; a place before `begin` means there is none."""
    visit = visit.copy()
    limit_s = wanted_s + _TOLERANCE * np.maximum(1.0, np.abs(wanted_s))
    while True:
        late = np.flatnonzero((visit >= begin) & (finish_s[np.maximum(visit, 0)] > limit_s))
        if len(late) == 0:
            return visit
        visit[late] -= 1
