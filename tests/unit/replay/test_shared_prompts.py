"""Block ids of prompts that share their beginnings."""

from itertools import pairwise

from hermes_sim.replay.shared_prompts import BlockIds, cycled_prompts, prompts_seen_before


def rows_of(blocks: BlockIds) -> list[list[int]]:
    ids, offsets = blocks.ids.tolist(), blocks.offsets.tolist()
    return [ids[start:end] for start, end in pairwise(offsets)]


class TestCycledPrompts:
    def test_prompts_come_again_in_turn(self) -> None:
        rows = rows_of(cycled_prompts(5, [64, 80], 2, 0))
        assert [len(row) for row in rows] == [4, 5, 4, 5, 4]
        assert rows[0] == rows[2] == rows[4]
        assert not set(rows[0]) & set(rows[1])

    def test_a_group_shares_full_blocks_of_its_system_prompt_only(self) -> None:
        first, second, third, fourth = rows_of(cycled_prompts(4, [64] * 4, 2, 40))
        assert first[:2] == second[:2]
        assert third[:2] == fourth[:2]
        assert not set(first[2:]) & set(second[2:])
        assert not set(first) & set(third)


class TestPromptsSeenBefore:
    def test_what_was_seen_is_shared_with_an_earlier_prompt(self) -> None:
        rows = rows_of(prompts_seen_before([64, 32, 100], [0, 0, 48]))
        assert rows[2][:3] == rows[0][:3]
        assert not set(rows[2][3:]) & set(rows[0] + rows[1])

    def test_nothing_is_shared_where_nothing_was_seen(self) -> None:
        rows = rows_of(prompts_seen_before([64, 64], [0, 0]))
        assert not set(rows[0]) & set(rows[1])

    def test_a_prompt_is_not_longer_than_itself(self) -> None:
        rows = rows_of(prompts_seen_before([160, 40], [0, 160]))
        assert rows[1] == rows[0][:2]
