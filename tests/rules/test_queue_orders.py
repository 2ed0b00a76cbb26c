"""Orders of the line: who is admitted when not all can be."""

from __future__ import annotations

import pytest

from tests.one_engine import CompiledEngine
from tests.rules.driving import add, build, run, scheduled, share_all, waiting


def admissions(engine: CompiledEngine) -> list[int]:
    """Rows in the order in which they were first admitted."""
    seen: list[int] = []
    for step in run(engine):
        seen += [row for row, _ in step.admitted if row not in seen]
    return seen


class TestSortedByAKey:
    """The line is kept in order; ties go by arrival."""

    # rows 0 to 4: (prompt, output), priority, deadline
    REQUESTS = ((5, 5, 2, 9.0), (2, 9, 0, 5.0), (8, 1, 1, 5.0), (3, 3, 0, 1.0), (5, 5, 1, 9.0))

    @pytest.mark.parametrize(
        ("queue_order", "order"),
        [
            ("fcfs", [0, 1, 2, 3, 4]),
            ("priority", [1, 3, 2, 4, 0]),
            ("sjf", [3, 2, 0, 4, 1]),  # 10, 11, 9, 6, 10 tokens
            ("least_slack", [3, 1, 2, 0, 4]),
        ],
    )
    def test_order_of_admission(self, queue_order: str, order: list[int]) -> None:
        engine = build(queue_order=queue_order, max_num_seqs=1)
        for row, (num_prompt, num_output, priority, deadline_s) in enumerate(self.REQUESTS):
            key = deadline_s if queue_order == "least_slack" else None
            engine.push(0.0, row, num_prompt, num_output, priority, key=key)
        assert waiting(engine) == order
        assert admissions(engine) == order

    @pytest.mark.parametrize("queue_order", ["sjf", "least_slack"])
    def test_the_one_that_goes_last_gives_way_and_returns_to_its_place(self, queue_order: str) -> None:
        # 3 blocks of 2, all full after step 0. Keys 5, 3, 4: the running list is 1, 2, 0. Row 1 needs a block: row 0,
        # which goes last in the order, gives its one; then row 2 needs one and goes itself.
        engine = build(num_blocks=3, block_tokens=2, queue_order=queue_order)
        for row, key in enumerate([5.0, 3.0, 4.0]):
            engine.push(0.0, row, 2, 3, key=key)
        steps = run(engine, 1)
        engine.push(1.0, 3, 5, 1, key=4.5)
        steps += run(engine, 1)
        assert scheduled(steps) == [((1, 2), (2, 2), (0, 2)), ((1, 1),)]
        assert steps[1].preempted == (0, 2)
        assert waiting(engine) == [2, 3, 0]


class TestFairShare:
    """Virtual token counters (arXiv 2401.00588): 1 a prompt token, 2 an output token, the smallest counter first."""

    def test_the_client_served_least_goes_first(self) -> None:
        # One at a time. Clients: rows 0, 1, 2 of A, row 3 of B, all from the start. Counters when a place is free:
        #   row 0 (A, earliest of equals) 4 + 2 x 2 = 8;   A 8, B 0: row 3: 10 + 2 = 12;   A 8, B 12: row 1: A 16, row 2
        engine = build(queue_order="fair_share", max_num_seqs=1)
        for row in range(3):
            engine.push(0.0, row, 4, 2, client=0)
        engine.push(0.0, 3, 10, 1, client=1)
        assert admissions(engine) == [0, 3, 1, 2]
        assert engine.arrays.client_counter[0, :2].tolist() == [24, 12]

    def test_hits_are_charged_too(self) -> None:
        # 9 prompt tokens, 8 of them cached: 9 + 2
        engine = build(queue_order="fair_share", max_num_seqs=1)
        share_all(engine, 0, 1)
        engine.push(0.0, 0, 9, 1, client=0)
        engine.push(0.0, 1, 9, 1, client=1)
        run(engine)
        assert engine.arrays.row_cached[1] == 8
        assert engine.arrays.client_counter[0, :2].tolist() == [11, 11]

    def test_a_client_that_comes_back_is_lifted_to_the_least_inside(self) -> None:
        # A is served alone: 4 + 2 x 4 = 12, more is under way (row 1: 4). B arrives at 4 s with counter 0, lifted to
        # 16, A's at that time: the tie goes to the earliest in line, row 2 of A.
        engine = build(queue_order="fair_share", max_num_seqs=1)
        for row in range(3):
            engine.push(0.0, row, 4, 4, client=0)
        run(engine, 4)
        engine.act()  # row 1 is admitted: 12 + 4
        engine.push(4.0, 3, 4, 4, client=1)
        assert engine.arrays.client_counter[0, :2].tolist() == [16, 16]
        run(engine, 1)
        # while row 1 goes on, A is charged: B is next
        assert admissions(engine) == [3, 2]

    def test_an_idle_engine_lifts_nobody(self) -> None:
        engine = build(queue_order="fair_share", max_num_seqs=1)
        engine.push(0.0, 0, 4, 4, client=0)
        run(engine)
        engine.push(9.0, 1, 4, 4, client=1)
        assert engine.arrays.client_counter[0, :2].tolist() == [12, 0]

    def test_a_preempted_one_goes_to_the_front_and_is_not_charged_again(self) -> None:
        # as in rule 5: 4 blocks, row 1 is preempted in step 2 with 2 outputs; both prompts are charged once
        engine = build(num_blocks=4, prefix_caching=False, queue_order="fair_share")
        engine.push(0.0, 0, 7, 10, client=0)
        engine.push(0.0, 1, 7, 10, client=1)
        run(engine)
        assert engine.arrays.row_preemptions[:2].tolist() == [0, 1]
        assert engine.arrays.client_counter[0, :2].tolist() == [27, 27]


class TestLongestPrefix:
    """SGLang's lpm: most cached blocks first, earliest of equals."""

    def test_most_hits_first(self) -> None:
        # row 0 leaves 3 blocks of text 1, row 1 one block of text 2. Then 2 (nothing), 3 (text 2: 1 block), 4 (text 1:
        # 3 blocks), 5 (text 1, shorter: 1 block).
        engine = build(queue_order="longest_prefix", max_num_seqs=1)
        share_all(engine, 0, 4, 5, group=1)
        share_all(engine, 1, 3, group=2)
        add(engine, (13, 1), (5, 1))
        run(engine)
        add(engine, (9, 1), (9, 1), (16, 1), (6, 1), first_row=2, at_s=2.0)
        assert admissions(engine) == [4, 3, 5, 2]

    def test_beyond_128_in_line_nobody_is_looked_at(self) -> None:
        engine = build(num_rows=140, queue_order="longest_prefix", max_num_seqs=1)
        share_all(engine, 0, 128, 129)
        add(engine, (9, 1))
        run(engine)
        add(engine, *[(3, 1)] * 127, first_row=1, at_s=1.0)
        add(engine, (9, 1), (16, 1), first_row=128, at_s=1.0)
        # 128 rows wait before row 129: rows 1 to 128. Row 128 (2 blocks) is the best of them though 129 has as many
        assert admissions(engine)[:3] == [128, 129, 1]
