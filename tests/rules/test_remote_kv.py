"""Rule 18: blocks are held before KV is sent."""

from __future__ import annotations

import numpy as np

from tests.one_engine import CompiledEngine
from tests.rules.driving import add, build, run, scheduled


def arrive_with_kv(engine: CompiledEngine, row: int, num_prompt: int, num_output: int, at_s: float) -> None:
    """A prompt computed elsewhere: blocks are reserved, then its KV is there."""
    assert engine.reserve(at_s, row, num_prompt, num_output)
    engine.receive(at_s, row)


class TestRemoteKv:
    """Rule 18 and the end of rule 6: blocks are held before the sequence runs, so it may pass a head that waits."""

    def test_decodes_at_once_over_its_whole_prompt(self) -> None:
        # 8 tokens came with it, the first output is computed first: a decode over 9, 3 blocks reserved
        engine = build(num_blocks=5)
        arrive_with_kv(engine, 0, 8, 3, 0.0)
        assert engine.arrays.num_free_blocks[0] == 2
        steps = run(engine)
        assert scheduled(steps) == [((0, 1),), ((0, 1),)]
        assert steps[0].batch == (1, 1, 1, 1, 9, 9, 0, 0, 0)
        assert engine.arrays.row_finish_s[0] == 2.0
        assert engine.arrays.num_free_blocks[0] == 5

    def test_behind_a_head_that_lacks_blocks_it_comes_forward(self) -> None:
        # 5 blocks: 3 are row 0's; row 1 at the head of the line wants 4 and nothing runs
        engine = build(num_blocks=5)
        assert engine.reserve(0.0, 0, 8, 3)
        add(engine, (16, 1), (2, 1), first_row=1)
        assert engine.act() == []
        assert (engine.arrays.num_running[0], engine.next_start_s) == (0, np.inf)
        engine.receive(1.0, 0)
        assert scheduled(run(engine)) == [((0, 1),), ((0, 1),), ((1, 16),), ((2, 2),)]

    def test_behind_a_head_that_lacks_a_slot_it_comes_forward(self) -> None:
        # one slot, which row 0 holds; row 1 at the head of the line has none to run in
        engine = build(num_blocks=9, max_num_seqs=1)
        assert engine.reserve(0.0, 0, 8, 3)
        add(engine, (4, 1), first_row=1)
        engine.receive(1.0, 0)
        assert scheduled(run(engine)) == [((0, 1),), ((0, 1),), ((1, 4),)]
