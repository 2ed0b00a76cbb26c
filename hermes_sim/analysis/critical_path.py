"""Where TTFT goes: the chain of visits that a request's first token waited for, cut into its parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats

IntArray = npt.NDArray[np.int64]

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
    path = visits[visits["request"].isin(ids) & visits["finish_s"].notna()]
    path = path.sort_values(["request", "finish_s", "arrival_s"], kind="stable", ignore_index=True)
    kinds = [str(kind) for kind in path["kind"].cat.categories]
    parts = {part: np.zeros(len(ids)) for part in ["queue", *kinds, "transfer", "host", "front_end", "other"]}
    left_engine_s = floats(with_token, "engine_first_token_s")
    parts["front_end"] += floats(with_token, "first_token_s") - left_engine_s
    with_kv_s = _came_with_kv_s(path, ids, left_engine_s)
    parts["transfer"] += with_kv_s
    _walk(path, ids, floats(with_token, "arrival_s"), left_engine_s - with_kv_s, parts)
    left_out = set(kinds) - set(path["kind"].unique()) | ({"front_end"} if not parts["front_end"].any() else set())
    return pd.DataFrame({name: parts[name] for name in parts if name not in left_out}, index=ids)


def _came_with_kv_s(path: pd.DataFrame, ids: IntArray, first_token_s: FloatArray) -> FloatArray:
    """[num_requests] the transfer of a prompt's KV at whose end the first token was sent; 0 where none was."""
    arrival_s, transfer_s = floats(path, "arrival_s"), floats(path, "transfer_s")
    place = np.searchsorted(ids, path["request"].to_numpy(dtype=np.int64))
    token_s = first_token_s[place]
    came = (transfer_s > 0.0) & (np.abs(arrival_s - token_s) <= _TOLERANCE * np.maximum(1.0, np.abs(token_s)))
    found = np.zeros(len(ids))
    found[place[came]] = transfer_s[came]
    return found


def _walk(
    path: pd.DataFrame, ids: IntArray, arrival_s: FloatArray, first_token_s: FloatArray, parts: dict[str, FloatArray]
) -> None:
    """Fills `parts` [num_requests] of all requests at once, one visit of each per round."""
    request_of = path["request"].to_numpy(dtype=np.int64)
    begin = np.searchsorted(request_of, ids, side="left")
    visit = np.searchsorted(request_of, ids, side="right") - 1
    visit_arrival_s, finish_s, transfer_s, tokenize_s, service_s, host_s = (
        floats(path, column) for column in ("arrival_s", "finish_s", "transfer_s", "tokenize_s", "service_s", "host_s")
    )
    kind_of = path["kind"].cat.codes.to_numpy()
    kinds = [str(kind) for kind in path["kind"].cat.categories]
    wanted_s = first_token_s.copy()
    visit = _last_before(visit, begin, finish_s, wanted_s)
    active = np.flatnonzero(visit >= begin)
    while len(active):
        at = visit[active]
        parts["other"][active] += wanted_s[active] - finish_s[at]
        parts["queue"][active] += finish_s[at] - visit_arrival_s[at] - service_s[at]
        parts["host"][active] += host_s[at]
        parts["transfer"][active] += transfer_s[at]
        parts["front_end"][active] += tokenize_s[at]
        for code, kind in enumerate(kinds):
            chosen = kind_of[at] == code
            parts[kind][active[chosen]] += (service_s[at] - host_s[at])[chosen]
        wanted_s[active] = visit_arrival_s[at] - transfer_s[at] - tokenize_s[at]
        visit[active] = _last_before(at - 1, begin[active], finish_s, wanted_s[active])
        active = active[visit[active] >= begin[active]]
    parts["other"] += wanted_s - arrival_s


def _last_before(visit: IntArray, begin: IntArray, finish_s: FloatArray, wanted_s: FloatArray) -> IntArray:
    """Goes back from `visit` until one that ended by `wanted_s`; a place before `begin` means there is none."""
    visit = visit.copy()
    limit_s = wanted_s + _TOLERANCE * np.maximum(1.0, np.abs(wanted_s))
    while True:
        late = np.flatnonzero((visit >= begin) & (finish_s[np.maximum(visit, 0)] > limit_s))
        if len(late) == 0:
            return visit
        visit[late] -= 1
