"""Window, rate and time of recorded traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hermes_sim.core.errors import TraceError
from hermes_sim.core.rng import stream
from hermes_sim.workload.requests import ClosedLoop, RequestTable, concatenate_hashes, request_table
from hermes_sim.workload.scaling import cut_window, first_requests, first_turns, scale_rate, scale_time


def trace(num_requests: int = 2000) -> RequestTable:
    """Arrivals at 1/s; every fourth request is followed by a turn that waits for it; each has its own hash id."""
    rows = np.arange(num_requests)
    follows = rows % 4 == 1
    offsets, ids = concatenate_hashes([[int(row)] for row in rows])
    return request_table(
        np.where(follows, np.nan, rows.astype(np.float64)),
        rows + 1,
        rows,
        session=np.where(rows % 4 < 2, rows // 4, -1),
        previous=np.where(follows, rows - 1, -1),
        think_s=np.where(follows, 2.0, 0.0),
        hash_offsets=offsets,
        hash_ids=ids,
    )


def test_window_takes_whole_sessions_and_becomes_time_zero() -> None:
    cut = cut_window(trace(12), 4.0, 8.0)
    assert cut.num_prompt_tokens.tolist() == [5, 6, 7, 8]
    assert cut.arrival_s.tolist()[::2] == [0.0, 2.0]
    assert np.isnan(cut.arrival_s[1])
    assert cut.previous.tolist() == [-1, 0, -1, -1]
    assert cut.hash_ids.tolist() == [4, 5, 6, 7]


def test_time_stretches_pauses_too() -> None:
    stretched = scale_time(trace(4), 2.5)
    assert np.array_equal(stretched.arrival_s, [0.0, np.nan, 5.0, 7.5], equal_nan=True)
    assert stretched.think_s.tolist() == [0.0, 5.0, 0.0, 0.0]


def test_first_turns_follow_chains() -> None:
    chain = request_table([0.0, np.nan, np.nan, np.nan, 1.0], [1] * 5, [1] * 5, previous=[-1, 0, 1, 2, -1])
    assert first_turns(chain).tolist() == [0, 0, 0, 0, 4]


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.5, 3.0])
def test_rate_scale_multiplies_the_rate_over_the_same_time(factor: float) -> None:
    table = trace()
    scaled = scale_rate(table, factor, stream(1, "trace"))
    assert scaled.num_requests == pytest.approx(factor * table.num_requests, rel=0.1)
    arrivals_s = scaled.arrival_s[~np.isnan(scaled.arrival_s)]
    assert (arrivals_s <= 2000.0).all()
    # a waiting turn is never parted from the turn it waits for
    waits = np.isnan(scaled.arrival_s)
    assert (scaled.num_prompt_tokens[waits] == scaled.num_prompt_tokens[scaled.previous[waits]] + 1).all()
    assert (scaled.session[waits] == scaled.session[scaled.previous[waits]]).all()
    # copies never share content
    assert len(np.unique(scaled.hash_ids)) == len(scaled.hash_ids)
    _, session_sizes = np.unique(scaled.session[scaled.session >= 0], return_counts=True)
    assert set(session_sizes) <= {2}


def test_whole_factors_copy_every_request() -> None:
    doubled = scale_rate(trace(), 2.0, stream(1, "trace"))
    assert np.array_equal(np.bincount(doubled.num_prompt_tokens)[1:], np.full(2000, 2))


def test_a_closed_loop_has_no_rate_to_scale() -> None:
    table = request_table([np.nan], [1], [1], closed_loop=ClosedLoop(1, np.zeros(1)))
    assert first_requests(table, 0).num_requests == 0
    with pytest.raises(TraceError, match="closed loop"):
        scale_rate(table, 2.0, stream(1, "trace"))


def test_pipelines_and_notes_survive() -> None:
    table = replace(trace(4), pipeline=np.array([0, 0, 1, -1]), pipeline_names=("a", "b"), notes=("n",), num_bad_rows=3)
    doubled = scale_rate(table, 2.0, stream(1, "trace"))
    assert sorted(doubled.pipeline.tolist()) == [-1, -1, 0, 0, 0, 0, 1, 1]  # type: ignore[union-attr]
    assert (doubled.pipeline_names, doubled.notes, doubled.num_bad_rows) == (("a", "b"), ("n",), 3)
