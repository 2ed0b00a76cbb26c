"""Several samples of one prompt: forks that share its blocks; the part full one is copied when a fork first runs."""

from __future__ import annotations

from tests.one_engine import CompiledEngine
from tests.rules.driving import blocks, build, run, scheduled, waiting


def three_samples(num_prompt: int = 6, num_output: int = 3, **options: object) -> CompiledEngine:
    """Row 0 and its samples, rows 1 and 2."""
    engine = build(num_slots=16, **options)  # type: ignore[arg-type]
    engine.push(0.0, 0, num_prompt, num_output, samples=((1, num_output), (2, num_output)))
    return engine


class TestForks:
    def test_they_join_when_the_prompt_is_done(self) -> None:
        # 6 in, 3 out each: all have their first token at 1 s, then decode side by side
        engine = three_samples()
        assert scheduled(run(engine)) == [((0, 6),), ((0, 1), (1, 1), (2, 1)), ((0, 1), (1, 1), (2, 1))]
        assert engine.arrays.row_generated[:3].tolist() == [3, 3, 3]
        assert engine.arrays.row_finish_s[:3].tolist() == [3.0, 3.0, 3.0]

    def test_they_share_full_blocks_and_copy_the_part_full_one(self) -> None:
        # 6 tokens: block 0 full and shared, block 1 row 0's; rows 1 and 2 copy it: blocks 2 and 3
        engine = three_samples(copy_block_s=0.125)
        steps = run(engine, 2)
        assert [blocks(engine, row) for row in range(3)] == [[0, 1], [0, 2], [0, 3]]
        assert engine.arrays.block_owners[0, :4].tolist() == [3, 1, 1, 1]
        assert engine.arrays.total_copied_blocks[0] == 2
        # two copies of 0.125 s in the step in which they first run
        assert [step.seconds for step in steps] == [(1.0, 0.0, 0.0, 0.0), (1.0, 0.25, 0.0, 0.0)]

    def test_a_prompt_of_full_blocks_is_not_copied(self) -> None:
        engine = three_samples(num_prompt=8)
        run(engine, 2)
        assert [blocks(engine, row) for row in range(3)] == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
        assert engine.arrays.total_copied_blocks[0] == 0

    def test_the_visit_ends_with_the_last_sample(self) -> None:
        engine = build(num_slots=16)
        engine.push(0.0, 0, 4, 5, samples=((1, 3), (2, 1)))
        run(engine)
        # the longest is the visit's own: 5 s; samples of 3 and of 1 token end at 3 s and with the prompt
        assert engine.arrays.row_finish_s[:3].tolist() == [5.0, 3.0, 1.0]
        assert engine.arrays.row_open_samples[0] == 0

    def test_in_order_at_the_front_of_the_line(self) -> None:
        # one place: row 3 waits behind the samples
        engine = three_samples(max_num_seqs=1)
        engine.push(0.0, 3, 2, 1)
        run(engine, 1)
        assert waiting(engine) == [1, 2, 3]
        assert scheduled(run(engine)) == [
            ((0, 1),), ((0, 1),), ((1, 1),), ((1, 1),), ((2, 1),), ((2, 1),), ((3, 2),),
        ]  # fmt: skip

    def test_without_a_slot_they_start_over_with_what_is_cached(self) -> None:
        # 2 slots: row 2 has none when the prompt ends. It finds block 0 (4 of 7 known tokens) and computes 3 when row 0
        # and row 1 have gone
        engine = build(max_num_seqs=2, num_slots=2)
        engine.push(0.0, 0, 6, 3, samples=((1, 3), (2, 3)))
        steps = run(engine)
        assert scheduled(steps) == [((0, 6),), ((0, 1), (1, 1)), ((0, 1), (1, 1)), ((2, 3),), ((2, 1),)]
        assert steps[3].admitted == ((2, 4),)
        assert engine.arrays.row_finish_s[0] == 5.0

    def test_where_the_kv_comes_from_elsewhere(self) -> None:
        engine = build(num_slots=16)
        arrays = engine.arrays
        engine.reserve(0.0, 0, 6, 3, samples=((1, 3), (2, 2)))
        engine.receive(1.0, 0)
        assert waiting(engine) == [0, 1, 2]
        assert scheduled(run(engine)) == [((0, 1), (1, 1), (2, 1)), ((0, 1), (1, 1))]
        assert arrays.row_finish_s[:3].tolist() == [3.0, 3.0, 2.0]

    def test_async_forks_have_the_prompt_only(self) -> None:
        # when the prompt's step ends row 0's decode is in flight already; the samples start from the prompt's 6 tokens
        engine = three_samples(async_scheduling=True)
        steps = run(engine)
        assert scheduled(steps) == [((0, 6),), ((0, 1),), ((0, 1), (1, 1), (2, 1)), ((1, 1), (2, 1))]
        assert engine.arrays.row_generated[:3].tolist() == [3, 3, 3]


class TestUnderPressure:
    def test_waiting_forks_make_way_for_a_head_that_does_not_fit(self) -> None:
        # 4 blocks, 7 in: 2 blocks. Rows 1 and 2 share the full one; 2 free: each takes one for its copy; then row 0
        # needs none until token 9: row 2, the tail, goes
        engine = three_samples(num_prompt=7, num_output=4, num_blocks=4, prefix_caching=False)
        steps = run(engine)
        assert steps[1].scheduled == ((0, 1), (1, 1), (2, 1))
        assert steps[2].preempted == (2, 1)
        assert engine.arrays.row_generated[:3].tolist() == [4, 4, 4]
