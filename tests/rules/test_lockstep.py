"""Rule 15: ranks with DP attention step together, padded to the largest, idle ones with a dummy step."""

from __future__ import annotations

import pytest

from tests.one_engine import CompiledEngine
from tests.rules.driving import build, run


def ranks(number: int = 2, **options: object) -> CompiledEngine:
    """1 s a step and 0.25 s a token."""
    return build(num_ranks=number, token_s=0.25, **options)  # type: ignore[arg-type]


def test_tokens_are_padded_to_the_largest_rank() -> None:
    # 8 and 2 tokens: both ranks compute 8: 3 s
    engine = ranks()
    engine.push(0.0, 0, 8, 1, rank=0)
    engine.push(0.0, 1, 2, 1, rank=1)
    steps = run(engine)
    assert [(step.engine, step.scheduled, step.start_s, step.end_s) for step in steps] == [
        (0, ((0, 8),), 0.0, 3.0), (1, ((1, 2),), 0.0, 3.0),
    ]  # fmt: skip
    assert [step.seconds for step in steps] == [(3.0, 0.0, 0.0, 0.0)] * 2
    assert engine.arrays.row_finish_s[:2].tolist() == [3.0, 3.0]


def test_an_idle_rank_runs_a_dummy_step() -> None:
    # rank 1 has nothing: it takes part in both steps, and its own begins when they end
    engine = ranks()
    engine.push(0.0, 0, 4, 2, rank=0)
    engine.act()
    engine.push(0.5, 1, 4, 1, rank=1)
    steps = run(engine)
    assert [(step.engine, step.scheduled) for step in engine.steps] == [
        (0, ((0, 4),)), (1, ()), (0, ((0, 1),)), (1, ((1, 4),)),
    ]  # fmt: skip
    # the second step holds rank 1's 4 tokens: 2 s after 2 s
    assert [step.end_s for step in engine.steps] == [2.0, 2.0, 4.0, 4.0]
    assert engine.arrays.row_start_s[1] == 2.0
    assert engine.arrays.num_steps[:2].tolist() == [2, 2]
    assert engine.arrays.total_tokens[:2].tolist() == [5, 4]
    assert len(steps) == 2


def test_nobody_has_anything() -> None:
    engine = ranks(3)
    engine.push(0.0, 0, 4, 1, rank=2)
    run(engine)
    assert engine.is_idle
    assert engine.arrays.num_in_flight[:3].tolist() == [0, 0, 0]


def test_each_rank_has_its_own_blocks_and_line() -> None:
    # rank 0 of 4 blocks is full: its second request waits, though rank 1 is empty
    engine = ranks(num_blocks=4)
    engine.push(0.0, 0, 12, 3, rank=0)
    engine.push(0.0, 1, 8, 1, rank=0)
    engine.push(0.0, 2, 2, 1, rank=1)
    steps = run(engine)
    assert [step.scheduled for step in steps if step.engine == 0] == [((0, 12),), ((0, 1),), ((0, 1),), ((1, 8),)]
    assert [step.scheduled for step in steps if step.engine == 1] == [((2, 2),), (), (), ()]


def test_what_a_rank_waits_for_the_longest_is_the_network() -> None:
    # contexts of their own: 1 ms a token of context on the ranks (decode attention): here the largest rank is rank 0
    # by tokens and rank 1 by time
    engine = ranks(step_s=1.0)
    engine.arrays.cost_sampled[0, :, 1] = [0.5 * number for number in range(engine.arrays.cost_sampled.shape[1])]
    engine.push(0.0, 0, 8, 1, rank=0)  # 1 + 8 / 4 + 0.5
    engine.push(0.0, 1, 2, 1, rank=1)  # 3 prompts: 1 + 8 / 4 + 1.5
    engine.push(0.0, 2, 2, 1, rank=1)
    engine.push(0.0, 3, 2, 1, rank=1)
    steps = run(engine)
    assert [step.end_s for step in steps] == [4.5, 4.5]
    assert [step.seconds for step in steps] == [
        pytest.approx((3.0, 0.5, 1.0, 0.0)),
        pytest.approx((3.0, 1.5, 0.0, 0.0)),
    ]


def test_async_ranks_hide_the_hosts_time_together() -> None:
    # 1 s of the device, 0.25 s of the host
    engine = build(num_ranks=2, async_scheduling=True, host_s=0.25)
    engine.push(0.0, 0, 4, 4, rank=0)
    engine.push(0.0, 1, 4, 2, rank=1)
    spans = [(step.start_s, step.end_s) for step in run(engine) if step.engine == 0]
    assert spans == [(0.0, 1.25), (0.25, 2.25), (1.25, 3.25), (2.25, 4.25)]
