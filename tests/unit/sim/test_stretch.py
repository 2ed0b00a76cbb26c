"""Runs of decode-only steps, cut at any time, leave the engine as single steps do: same blocks, same floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.sim.advance import next_action, run_until
from hermes_sim.sim.ranks import ARRIVAL, STEP_DONE
from hermes_sim.state.arrays import EngineArrays
from tests.invariants import check_invariants, waiting_rows
from tests.one_engine import CompiledEngine, Options

RANKS = (STEP_DONE, ARRIVAL)
ALWAYS = (
    "now_s", "last_end_s", "num_running", "running", "num_free_slots", "num_free_blocks", "block_next",
    "block_previous", "block_owners", "block_hash", "load_requests", "load_tokens", "load_output_tokens", "shares",
    "num_steps", "busy_s", "batch_integral_s", "blocks_integral_s", "total_tokens", "total_sampled",
    "total_decode_context", "total_prefill_pairs", "total_decode_tokens", "total_prefill_tokens",
    "total_cached_tokens", "total_recomputed_tokens", "total_preemptions", "total_hit_blocks", "timeline",
    "timeline_filled", "itl_counts", "row_finish_s", "row_start_s", "row_preempted_s", "lane_end_s", "num_in_flight",
    "peak_used_blocks",
)  # fmt: skip
"""What anybody may read at any time."""
WHEN_SETTLED = ("row_generated", "slot_computed", "slot_done", "row_shares", "client_counter", "slot_blocks")
"""Counters of sequences catch up when a run is over."""


def assert_equal(single: EngineArrays, many: EngineArrays) -> None:
    """One engine stepped singly, its twin in runs."""
    for name in ALWAYS:
        np.testing.assert_array_equal(getattr(single, name), getattr(many, name), err_msg=name)
    assert waiting_rows(single, 0) == waiting_rows(many, 0)
    if many.stretch_ticks[0] < 0:
        for name in WHEN_SETTLED:
            np.testing.assert_array_equal(getattr(single, name), getattr(many, name), err_msg=name)
        check_invariants(many)


def advance_singly(engine: CompiledEngine, horizon_s: float, rank: int) -> None:
    """Begins before the horizon, ends up to it."""
    while True:
        time_s, begins = next_action(engine.arrays.handle, 0)
        is_due = time_s < horizon_s or (time_s == horizon_s and rank > STEP_DONE and not begins)
        if not is_due or np.isinf(time_s):
            return
        engine.act()


@st.composite
def options(draw: st.DrawFn) -> Options:
    window: dict[str, Any] = draw(
        st.sampled_from(
            [{}, {}, {"window_blocks": 2, "window_groups": 2}, {"window_blocks": 3, "all_layers_slide": True}]
        )
    )
    return Options(
        num_blocks=draw(st.integers(20, 60)),
        block_tokens=draw(st.sampled_from([1, 2, 4])),
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.integers(6, 30)),
        policy=draw(st.sampled_from(["chunked_prefill", "continuous", "prefill_first", "mixed_pool", "decode_first"])),
        queue_order=draw(st.sampled_from(["fcfs", "sjf", "fair_share", "longest_prefix"])),
        full_sequence_gate=draw(st.booleans()),
        prefix_caching=draw(st.booleans()),
        insert_at=draw(st.sampled_from(["schedule", "step_end"])),
        preemption=draw(st.sampled_from(["recompute", "swap"])),
        swap_blocks=20,
        **window,
    )


@settings(max_examples=60)
@given(options(), st.data())
def test_cut_anywhere(options: Options, data: st.DataObject) -> None:
    """Horizons inside steps and exactly at their ends, and arrivals there."""
    number = data.draw(st.integers(1, 8))
    room = options.num_blocks // (1 + options.window_groups) * options.block_tokens
    single, many = CompiledEngine(options, number), CompiledEngine(options, number)
    for engine in (single, many):
        engine.arrays.itl_window_s[1] = np.inf
        engine.arrays.power_w[0] = (400.0, 300.0, 200.0, 100.0)
        engine.arrays.record_decisions[0] = engine is single
        engine.arrays.content_group[:number] = np.arange(number) % 2
        engine.arrays.content_group_tokens[:number] = 6
    time_s = 0.0
    for row in range(number):
        prompt = data.draw(st.integers(1, max(1, min(20, room // 2))))
        output = data.draw(st.integers(0, max(1, min(30, room - prompt))))
        for engine in (single, many):
            engine.push(time_s, row, prompt, output, client=row % 3)
        for _ in range(data.draw(st.integers(0, 3))):
            if data.draw(st.booleans()) and np.isfinite(single.next_end_s):
                time_s = max(time_s, single.next_end_s)
            else:
                time_s += data.draw(st.sampled_from([0.001, 0.0125, 0.1]))
            rank = data.draw(st.sampled_from(RANKS))
            advance_singly(single, time_s, rank)
            run_until(many.arrays.handle, time_s, rank, True)
            assert_equal(single.arrays, many.arrays)
        # who arrives at time_s comes after the ends at that time
        advance_singly(single, time_s, ARRIVAL)
        run_until(many.arrays.handle, time_s, ARRIVAL, True)
        assert_equal(single.arrays, many.arrays)
    advance_singly(single, np.inf, ARRIVAL)
    run_until(many.arrays.handle, np.inf, ARRIVAL, True)
    assert_equal(single.arrays, many.arrays)
    assert not np.isnan(many.arrays.row_finish_s[:number]).any()


def test_runs_are_taken() -> None:
    """The twin is not stepped singly: after one call in the middle of a run it is open."""
    engine = CompiledEngine(Options(num_blocks=50, block_tokens=4, max_num_seqs=4, max_num_batched_tokens=16), 2)
    engine.push(0.0, 0, 5, 30)
    engine.push(0.0, 1, 7, 40)
    run_until(engine.arrays.handle, 0.2, ARRIVAL, True)
    assert engine.arrays.stretch_ticks[0] > 10
    run_until(engine.arrays.handle, np.inf, ARRIVAL, True)
    assert engine.arrays.row_generated[:2].tolist() == [30, 40]
    assert engine.arrays.stretch_ticks[0] == -1
