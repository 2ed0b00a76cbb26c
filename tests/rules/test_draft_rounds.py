"""Drafts from devices of their own: round trips, who is verified when, what is drafted ahead, time and energy.

A step and a drafting pass take 1 s, a message down 0.5 s and up 0.25 s; a round of 3 drafts without queues is
0.5 + 3 + 0.25 + 1 = 4.75 s. Of three drafts none, or as many as the case says, are right.
"""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.batching.speculation import ON_EARLY_EXIT, ON_GUESSED_BONUS, WITHOUT_BONUS
from hermes_sim.state.arrays import ENERGY
from tests.one_engine import CompiledEngine, Step
from tests.rules.driving import add, build, preempted, run, scheduled

ROUND_S = 4.75


def remote(num_right: int = 0, *, num_devices: int = 8, drafts: int = 3, **options: object) -> CompiledEngine:
    """Drafts come from `num_devices` devices, slot by slot; `num_right` of them are right in every round."""
    engine = build(acceptance="trace", acceptance_values=(num_right,), draft_tokens=drafts, **options)  # type: ignore[arg-type]
    arrays = engine.arrays
    arrays.draft_devices[0] = num_devices
    arrays.draft_cost_kind[0] = 0
    arrays.draft_chunk_tokens[0] = 1000
    arrays.draft_up_s[0], arrays.draft_down_s[0] = 0.25, 0.5
    return engine


def starts(steps: list[Step]) -> list[float]:
    return [step.start_s for step in steps]


class TestRounds:
    def test_alone_a_round_is_down_passes_up_and_a_step(self) -> None:
        # prompt 0 to 1, read by the device since 0; rounds of 2 tokens: 1 + 2 x 3
        engine = remote(1)
        add(engine, (5, 7))
        steps = run(engine)
        assert starts(steps) == [0.0, 1.0 + 3.75, 1.0 + 3.75 + ROUND_S, 1.0 + 3.75 + 2 * ROUND_S]
        assert scheduled(steps) == [((0, 5),), ((0, 4),), ((0, 4),), ((0, 4),)]
        arrays = engine.arrays
        assert arrays.row_finish_s[0] == 1.0 + 3 * ROUND_S
        assert arrays.row_draft_wait_s[0] == 3 * 3.75
        assert (arrays.total_rounds[0], arrays.total_sent_drafts[0], arrays.row_rounds[0]) == (3, 9, 3)

    def test_each_draft_takes_its_time_on_the_way(self) -> None:
        engine = remote()
        engine.arrays.draft_up_per_token_s[0] = 0.0625
        add(engine, (5, 2))
        assert starts(run(engine)) == [0.0, 1.0 + 3.75 + 3 * 0.0625]

    def test_others_are_verified_meanwhile(self) -> None:
        # row 1 comes at 2: its prompt runs while row 0 is drafted for; then each has steps of its own
        engine = remote()
        add(engine, (5, 3))
        run(engine, 1)
        add(engine, (5, 3), first_row=1, at_s=2.0)
        steps = run(engine)
        assert scheduled(steps) == [((1, 5),), ((0, 4),), ((1, 4),), ((0, 4),), ((1, 4),)]
        assert starts(steps) == [2.0, 4.75, 6.75, 4.75 + ROUND_S, 6.75 + ROUND_S]

    def test_those_that_are_ready_share_a_step_and_others_queue_for_the_next(self) -> None:
        # row 1's drafts come at 5.5, while row 0 is verified from 4.75 to 5.75
        engine = remote()
        add(engine, (5, 2))
        run(engine, 1)
        add(engine, (5, 2), first_row=1, at_s=1.0)
        engine.arrays.draft_down_s[0] = 0.25
        steps = run(engine)
        assert starts(steps) == [1.0, 4.75, 5.75]
        assert scheduled(steps)[1:] == [((0, 4),), ((1, 4),)]
        assert engine.arrays.row_draft_wait_s[1] == 3.5  # and 0.25 s in the queue

    def test_no_drafts_while_more_run(self) -> None:
        engine = remote(draft_max_seqs=1)
        add(engine, (1, 3), (1, 3))
        assert starts(run(engine)) == [0.0, 1.0, 2.0]
        assert engine.arrays.total_rounds[0] == 0

    def test_a_sequence_that_comes_with_its_kv_decodes_once_without_drafts(self) -> None:
        # its device learns of it then, and reads the prompt in 1 s beside that step and the way down
        engine = remote()
        engine._describe(0, 5, 3, 0, 0, None)
        engine.arrays.row_generated[0] = 1
        assert engine.reserve(0.0, 0, 5, 3)
        engine.receive(0.0, 0)
        steps = run(engine)
        assert scheduled(steps) == [((0, 1),), ((0, 4),)]
        assert starts(steps) == [0.0, 1.0 + 3.75]

    def test_drafts_are_lost_with_the_blocks(self) -> None:
        # 4 blocks: row 0 (7 in) and row 1 (5 in) have 2 each; row 0's drafts want a third
        engine = remote(num_blocks=4, num_rows=2)
        add(engine, (7, 3), (5, 3))
        steps = run(engine, 2)
        assert preempted(steps) == [(), (1,)]
        assert engine.arrays.row_draft_wait_s[1] == 0.0
        run(engine)
        assert (engine.arrays.row_generated[:2] == 3).all()


class TestDevices:
    def test_results_that_come_together_share_the_passes(self) -> None:
        # two prompts of 1 s each to read by 1.5: 0.5 s are left to do; then 3 passes for both
        engine = remote(num_devices=1)
        add(engine, (5, 2), (5, 2))
        assert starts(run(engine)) == [0.0, 1.5 + 0.5 + 3.0 + 0.25]
        assert engine.arrays.draft_busy_s[0] == 5.0

    def test_devices_of_their_own_read_at_once(self) -> None:
        engine = remote(num_devices=2)
        add(engine, (5, 2), (5, 2))
        assert starts(run(engine)) == [0.0, 4.75]
        assert engine.arrays.draft_busy_s[0] == 8.0

    def test_a_device_works_off_what_comes_in_turn(self) -> None:
        # row 0 is drafted from 1.5 to 4.5; row 1's first token comes at 3 + 0.5, its prompt and passes wait until 4.5
        engine = remote(num_devices=1)
        add(engine, (5, 2))
        run(engine, 1)
        add(engine, (5, 2), first_row=1, at_s=2.0)
        assert starts(run(engine)) == [2.0, 4.75, 4.5 + 1.0 + 3.0 + 0.25]

    def test_energy_is_time_by_power_and_all_of_it_is_the_requests(self) -> None:
        engine = remote(num_devices=1)
        engine.arrays.draft_power_w[0] = 8.0
        add(engine, (5, 2), (5, 2))
        run(engine)
        assert engine.arrays.draft_energy_j[0] == 40.0
        assert engine.arrays.row_shares[:2, ENERGY].tolist() == [20.0, 20.0]


class TestAhead:
    """The device waits 0.25 + 1 + 0.5 = 1.75 s for its result."""

    def ahead(self, mode: int, num_right: int, num_output: int) -> list[float]:
        engine = remote(num_right)
        engine.arrays.pre_drafting[0] = mode
        engine.arrays.pre_draft_exit[0], engine.arrays.pre_draft_right[0] = 0.25, 1.0
        add(engine, (5, num_output))
        return np.diff(starts(run(engine))[1:]).tolist()

    def test_behind_a_right_guess_of_the_bonus(self) -> None:
        # one of the 1.75 s goes into the guess, 0.75 are saved in each round; a list of 4 says: the guess is right too
        assert self.ahead(ON_GUESSED_BONUS, 4, 13) == [ROUND_S - 0.75] * 2

    def test_a_wrong_guess_saves_nothing(self) -> None:
        assert self.ahead(ON_GUESSED_BONUS, 3, 13) == [ROUND_S] * 2
        assert self.ahead(ON_GUESSED_BONUS, 1, 7) == [ROUND_S] * 2

    def test_without_the_bonus_all_the_wait_is_saved_and_a_round_brings_one_token_less(self) -> None:
        assert self.ahead(WITHOUT_BONUS, 3, 10) == [ROUND_S - 1.75] * 2

    def test_an_early_exit_saves_what_is_left_of_the_step(self) -> None:
        assert self.ahead(ON_EARLY_EXIT, 0, 4) == [ROUND_S - 0.75] * 2

    def test_no_more_is_saved_than_the_passes(self) -> None:
        engine = remote(3)
        engine.arrays.pre_drafting[0] = WITHOUT_BONUS
        engine.arrays.draft_up_s[0] = 8.0
        add(engine, (5, 10))
        assert np.diff(starts(run(engine))[1:]).tolist() == [0.5 + 8.0 + 1.0] * 2
        assert engine.arrays.total_pre_drafts_right[0] == engine.arrays.total_pre_drafts[0] == 2
        assert engine.arrays.draft_busy_s[0] == 1.0 + 3.0 + 3.0 * 2  # the prompt, one round, two drafted ahead


class TestEarlyStop:
    @pytest.mark.parametrize(("num_right", "sent", "passes"), [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 3)])
    def test_an_unsure_draft_costs_its_pass_and_stays(self, num_right: int, sent: int, passes: int) -> None:
        engine = remote(num_right)
        engine.arrays.draft_stop_wrong[0] = 1.0
        add(engine, (5, 1 + num_right + 1))
        steps = run(engine)
        assert scheduled(steps)[1] == ((0, 1 + sent),)
        assert steps[1].start_s == 1.5 + passes + 0.25

    def test_nothing_is_sent_where_right_ones_look_unsure(self) -> None:
        engine = remote(3)
        engine.arrays.draft_stop_right[0] = 1.0
        add(engine, (5, 2))
        assert scheduled(run(engine))[1] == ((0, 1),)
