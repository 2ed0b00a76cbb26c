"""Rule 16: what the cost model is told of a step."""

from __future__ import annotations

from tests.rules.driving import add, build, counts, run


class TestBatch:
    """What the cost model is told (rule 16)."""

    def test_counts_by_hand(self) -> None:
        # step 0: 5 (pairs 15) + the first 11 of 40 (66). Step 1: decode over 6; 15 after 11 (15 x 11 + 120 = 285).
        # Step 2: decode over 7; 14 after 26 (364 + 105). Step 3: decodes over 8 and 41.
        engine = build()
        add(engine, (5, 5), (40, 2))
        assert [counts(step) for step in run(engine, 4)] == [
            (16, 1, 0, 0, 0, 0, 2, 81, 16),
            (16, 1, 1, 1, 6, 6, 1, 285, 26),
            (15, 2, 1, 1, 7, 7, 1, 469, 40),
            (2, 2, 2, 2, 49, 41, 0, 0, 0),
        ]

    def test_last_single_token_of_a_prompt_is_prefill(self) -> None:
        engine = build()
        add(engine, (17, 1))
        assert counts(run(engine)[1]) == (1, 1, 0, 0, 0, 0, 1, 17, 17)

    def test_load_is_what_is_left(self) -> None:
        # 5 + 3 - 1 tokens to compute, 3 to come
        engine = build()
        add(engine, (5, 3), (20, 1))
        arrays = engine.arrays
        seen = [(int(arrays.load_tokens[0]), int(arrays.load_output_tokens[0]), int(arrays.load_requests[0]))]
        while not engine.is_idle:
            run(engine, 1)
            seen.append((int(arrays.load_tokens[0]), int(arrays.load_output_tokens[0]), int(arrays.load_requests[0])))
        # steps: 5 + 11, 1 + 9 (the second is done), 1
        assert seen == [(27, 4, 2), (11, 3, 2), (1, 1, 1), (0, 0, 0)]
