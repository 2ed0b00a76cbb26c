"""What holds a line: KV blocks, a full batch, the token budget; the rest is the step in flight."""

from __future__ import annotations

import pytest

from hermes_sim.state.arrays import HELD_BY_BATCH, HELD_BY_BUDGET, HELD_BY_KV
from tests.one_engine import CompiledEngine
from tests.rules.driving import add, build, run


def held(engine: CompiledEngine, row: int) -> tuple[float, float, float]:
    """Seconds by KV, batch, budget."""
    held_s = engine.arrays.row_held_s[row]
    return float(held_s[HELD_BY_KV]), float(held_s[HELD_BY_BATCH]), float(held_s[HELD_BY_BUDGET])


class TestLine:
    """Steps of one second; whoever comes in the middle of one waits for its end first."""

    def test_one_who_finds_the_engine_idle_is_not_held(self) -> None:
        engine = build()
        add(engine, (4, 2))
        run(engine)
        assert held(engine, 0) == (0.0, 0.0, 0.0)

    def test_a_full_batch(self) -> None:
        # one place: row 0 has it for 3 steps, row 1 for the next 2
        engine = build(max_num_seqs=1)
        add(engine, (4, 3), (4, 2), (4, 1))
        run(engine)
        assert [held(engine, row) for row in range(3)] == [(0.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.0, 5.0, 0.0)]

    def test_one_who_comes_while_the_batch_is_full_waits_for_it_at_once(self) -> None:
        engine = build(max_num_seqs=1)
        add(engine, (4, 3))
        run(engine, 1)
        engine.act()  # the second step begins at 1
        add(engine, (4, 1), first_row=1, at_s=1.5)
        run(engine)
        assert held(engine, 1) == (0.0, 1.5, 0.0)

    def test_kv_blocks(self) -> None:
        # 4 blocks of 4: row 0 begins with 3 and ends with 4, row 1 wants 2
        engine = build(num_blocks=4)
        add(engine, (12, 4), (8, 1))
        run(engine)
        assert held(engine, 1) == (4.0, 0.0, 0.0)
        assert engine.arrays.row_start_s[1] == 4.0

    def test_token_budget(self) -> None:
        # 16 a step: two steps of row 0 alone, and a third with 8 of it and 8 of row 1
        engine = build()
        add(engine, (40, 1), (8, 1))
        run(engine)
        assert held(engine, 1) == (0.0, 0.0, 2.0)

    def test_the_step_in_flight_is_nobodys_hold(self) -> None:
        engine = build()
        add(engine, (4, 3))
        run(engine, 1)
        engine.act()  # the second step begins at 1
        add(engine, (4, 1), first_row=1, at_s=1.25)
        run(engine)
        assert engine.arrays.row_start_s[1] == 2.0
        assert held(engine, 1) == (0.0, 0.0, 0.0)

    def test_one_hold_after_another(self) -> None:
        # row 0 takes the budget of two steps, row 1 and it the two places until row 0 ends at 6
        engine = build(max_num_seqs=2)
        add(engine, (40, 4), (8, 9), (4, 1))
        run(engine)
        kv_s, batch_s, budget_s = held(engine, 2)
        assert (kv_s, budget_s) == (0.0, 2.0)
        assert batch_s == pytest.approx(engine.arrays.row_start_s[2] - 2.0)
