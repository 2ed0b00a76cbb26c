"""Low-rank adapters: who may run together, whose slot is taken, what loads and batches cost. One engine by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.one_engine import CompiledEngine
from tests.rules.driving import add, build, run, scheduled, waiting

NONE = -1
LOAD_S = 0.25


def with_adapters(max_loras: int, *adapters: int, **options: Any) -> CompiledEngine:
    """Row i names the i-th adapter. Loading one takes a quarter of a second; weights and tokens, binary fractions."""
    engine = build(num_rows=len(adapters), **options)
    arrays = engine.arrays
    arrays.max_adapters[0] = max_loras
    arrays.row_adapter[: len(adapters)] = np.array(adapters) + 1
    arrays.adapter_load_s[0] = LOAD_S
    arrays.adapter_step_s[0], arrays.adapter_weight_s[0], arrays.adapter_token_s[0] = 1 / 64, 1 / 128, 1 / 256
    return engine


def loaded(engine: CompiledEngine) -> set[int]:
    slots = engine.arrays.slot_adapter[0]
    return {int(number) - 1 for number in slots if number > 0}


class TestWhoRunsTogether:
    def test_one_adapter_too_many_is_passed_over(self) -> None:
        """A B C A with two slots: C waits, the second A joins before it; with room for C it goes in."""
        engine = with_adapters(2, 0, 1, 2, 0)
        add(engine, (2, 2), (2, 3), (2, 1), (2, 2))
        steps = run(engine, 1)
        assert scheduled(steps) == [((0, 2), (1, 2), (3, 2))]
        assert waiting(engine) == [2]
        # A's sequences end with the second step; then C takes A's place beside B
        assert scheduled(run(engine)) == [((0, 1), (1, 1), (3, 1)), ((1, 1), (2, 2))]

    def test_who_names_none_needs_no_slot(self) -> None:
        engine = with_adapters(1, 0, NONE, 1, NONE)
        add(engine, (2, 2), (2, 2), (2, 2), (2, 2))
        assert scheduled(run(engine, 1)) == [((0, 2), (1, 2), (3, 2))]

    def test_who_was_passed_over_keeps_its_place(self) -> None:
        """B is passed over; what was brought before it finds no blocks and goes back behind it."""
        engine = with_adapters(1, 0, 1, 0, num_blocks=4, max_num_batched_tokens=64, full_sequence_gate=True)
        add(engine, (8, 3), (4, 1), (16, 1))
        assert scheduled(run(engine, 1)) == [((0, 8),)]
        assert waiting(engine) == [1, 2]

    def test_without_slots_nothing_is_looked_at(self) -> None:
        engine = with_adapters(0, 0, 1, 2)
        add(engine, (2, 1), (2, 1), (2, 1))
        steps = run(engine)
        assert scheduled(steps) == [((0, 2), (1, 2), (2, 2))]
        assert steps[0].end_s - steps[0].start_s == 1.0


class TestSlots:
    def test_the_least_recently_used_gives_way(self) -> None:
        """A, B, A again, then C: B was used longest ago."""
        engine = with_adapters(2, 0, 1, 0, 2, 0)
        for row, at_s in enumerate((0.0, 10.0, 20.0, 30.0, 40.0)):
            add(engine, (2, 1), first_row=row, at_s=at_s)
            run(engine)
        assert loaded(engine) == {0, 2}
        arrays = engine.arrays
        assert (int(arrays.total_adapter_loads[0]), int(arrays.total_adapter_hits[0])) == (3, 2)

    def test_who_runs_keeps_its_slot(self) -> None:
        engine = with_adapters(2, 0, 1, 2, max_num_seqs=8)
        add(engine, (2, 30))
        run(engine, 3)
        for row in (1, 2):
            add(engine, (2, 1), first_row=row, at_s=engine.steps[-1].end_s)
            run(engine, 3)
        assert loaded(engine) == {0, 2}


class TestCost:
    def test_a_step_waits_for_loads_and_reads_each_adapter_once(self) -> None:
        """Three sequences of two adapters, one of none: two loads; 1/64 and 2/128 and six tokens of 1/256."""
        engine = with_adapters(4, 0, 1, 0, NONE)
        add(engine, (2, 2), (2, 2), (2, 2), (2, 2))
        first, second = run(engine)
        assert first.end_s - first.start_s == 1.0 + 2 * LOAD_S + 1 / 64 + 2 / 128 + 6 / 256
        assert second.end_s - second.start_s == 1.0 + 1 / 64 + 2 / 128 + 3 / 256

    @pytest.mark.parametrize("adapters", [(NONE, NONE), (0, NONE)])
    def test_only_tokens_with_an_adapter_count(self, adapters: tuple[int, int]) -> None:
        engine = with_adapters(4, *adapters)
        add(engine, (4, 1), (4, 1))
        (step,) = run(engine)
        extra_s = LOAD_S + 1 / 64 + 1 / 128 + 4 / 256 if 0 in adapters else 0.0
        assert step.end_s - step.start_s == 1.0 + extra_s
