"""The compiled engine takes the decisions of the plain-Python oracle, as integers, on random workloads."""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hermes_sim.state.blocks import block_content
from tests.one_engine import CompiledEngine, Options, linear_cost
from tests.reference_engine import Arrival, ReferenceEngine


def compare(options: Options, arrivals: list[Arrival], groups: list[tuple[int, int]]) -> tuple[int, int]:
    """Drive both engines over the same arrivals; every step must agree. Returns (preemptions, hit tokens)."""
    compiled = CompiledEngine(options, len(arrivals))
    for row, (group, num_tokens) in enumerate(groups):
        compiled.arrays.content_group[row], compiled.arrays.content_group_tokens[row] = group, num_tokens

    def content(row: int, index: int) -> int:
        return int(block_content(compiled.arrays.handle, row, index, options.block_tokens))

    reference = ReferenceEngine(
        **dataclasses.asdict(options), content=content, cost=lambda num_tokens, *_: linear_cost(num_tokens)
    )
    expected = reference.run(arrivals)
    due = deque(arrivals)
    clock_s = 0.0
    steps = []
    while due or np.isfinite(compiled.next_start_s):
        if not np.isfinite(compiled.next_start_s):
            clock_s = max(clock_s, due[0].arrival_s)
        while due and due[0].arrival_s <= clock_s:
            arrival = due.popleft()
            compiled.push(clock_s, arrival.row, arrival.num_prompt, arrival.num_output, arrival.priority)
        if np.isfinite(compiled.next_start_s):
            steps.append(compiled.step(clock_s))
            clock_s = steps[-1].end_s
    assert compiled.rejected == reference.rejected
    for mine, theirs in zip(steps, expected, strict=True):
        assert mine.scheduled == theirs.scheduled
        assert mine.num_preemptions == len(theirs.preempted)
        assert mine.free_blocks == theirs.free_blocks
        assert mine.batch == dataclasses.astuple(theirs.counts)
        assert mine.start_s == theirs.start_s
        assert mine.end_s == pytest.approx(theirs.end_s, rel=1e-12)
    finish = {row: time for row, time in enumerate(compiled.arrays.row_finish_s) if np.isfinite(time)}
    assert finish == pytest.approx(reference.finish_s, rel=1e-12)
    return sum(step.num_preemptions for step in steps), int(compiled.arrays.total_cached_tokens[0])


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Options, list[Arrival], list[tuple[int, int]]]:
    """A small engine under pressure: few blocks, shared prefixes, bursts."""
    block_tokens = draw(st.sampled_from([1, 2, 4, 16]))
    options = Options(
        num_blocks=draw(st.integers(4, 40)),
        block_tokens=block_tokens,
        max_num_seqs=draw(st.integers(1, 8)),
        max_num_batched_tokens=draw(st.integers(1, 64)),
        policy=draw(st.sampled_from(["chunked_prefill", "continuous"])),
        prefix_caching=draw(st.booleans()),
        full_sequence_gate=draw(st.booleans()),
        watermark_frac=draw(st.sampled_from([0.0, 0.05, 0.2])),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 17])),
        queue_order=draw(st.sampled_from(["fcfs", "priority"])),
    )
    number = draw(st.integers(1, 24))
    times = np.cumsum([draw(st.sampled_from([0.0, 0.0, 0.012, 0.03, 0.2])) for _ in range(number)])
    arrivals = [
        Arrival(float(times[row]), row, draw(st.integers(1, 80)), draw(st.integers(0, 40)), draw(st.integers(0, 2)))
        for row in range(number)
    ]
    groups = [(draw(st.integers(0, 2)), draw(st.sampled_from([0, 8, 40, 200]))) for _ in range(number)]
    return options, arrivals, groups


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
@example(  # the only running sequence preempts itself, and the step starts over
    (
        Options(2, 4, 8, 64, queue_order="priority"),
        [Arrival(0.0, 0, 3, 5, 9), Arrival(0.0, 1, 3, 2, 0)],
        [(0, 0), (0, 0)],
    )
)
def test_decisions_agree(workload: tuple[Options, list[Arrival], list[tuple[int, int]]]) -> None:
    compare(*workload)


@pytest.mark.parametrize("policy", ["chunked_prefill", "continuous"])
def test_decisions_agree_under_pressure(policy: str) -> None:
    """A longer run that surely preempts and hits the prefix cache, so that the agreement is about something."""
    rng = np.random.default_rng(5)
    number = 120
    options = Options(
        num_blocks=160, block_tokens=16, max_num_seqs=24, max_num_batched_tokens=256, policy=policy,
        full_sequence_gate=False,
    )  # fmt: skip
    times = np.cumsum(rng.exponential(0.05, number))
    arrivals = [
        Arrival(float(times[row]), row, int(rng.integers(20, 400)), int(rng.integers(1, 300))) for row in range(number)
    ]
    groups = [(int(rng.integers(0, 3)), 128) for _ in range(number)]
    preemptions, cached = compare(options, arrivals, groups)
    assert preemptions > 10
    assert cached > 1000
