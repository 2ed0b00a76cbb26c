"""Chunks of a KV store by hand: what gives way, and in what order."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.state.kv_chunks import (
    NUM_CHUNKS,
    NUM_EVICTED,
    NUM_EXPIRED,
    USED_BYTES,
    Chunks,
    find_absent,
    new_chunks,
    num_in_a_row,
    use_chain,
    write_chain,
)

A, B, C, D, E = (np.uint64(10 * number + 1) for number in range(5))
KINDS = np.zeros(1, np.int32)


def store(capacity: float = 3.0, ttl_s: float = np.inf, *, lfu: bool = False) -> Chunks:
    """Chunks of one byte."""
    return new_chunks(100, np.ones(1), capacity, ttl_s, lfu=lfu)


def write(chunks: Chunks, *keys: np.uint64, at_s: float = 0.0) -> list[int]:
    """What gave way, in order."""
    evicted = np.zeros(10, np.uint64)
    number = write_chain(chunks, np.array(keys), KINDS, at_s, evicted, np.zeros(10, np.int32))
    return evicted[:number].tolist()


def held(chunks: Chunks, *keys: np.uint64, at_s: float = 0.0) -> list[bool]:
    absent = np.zeros(len(keys), np.bool_)
    find_absent(chunks, np.array(keys), absent, at_s)
    return (~absent).tolist()


def test_the_least_recently_used_gives_way() -> None:
    chunks = store()
    for key in (A, B, C):
        assert write(chunks, key) == []
    use_chain(chunks, np.array([A]), 0, 1, 1.0)
    assert write(chunks, D) == [B]
    assert write(chunks, A) == []  # it is there: used once more
    assert write(chunks, E) == [C]
    assert held(chunks, A, B, C, D, E) == [True, False, False, True, True]
    assert chunks.numbers[NUM_EVICTED] == 2
    assert chunks.amounts[USED_BYTES] == 3.0


def test_of_a_chain_the_end_gives_way_first() -> None:
    chunks = store()
    write(chunks, A, B, C)
    assert write(chunks, D) == [C]
    assert num_in_a_row(chunks, np.array([A, B, C]), 0, 0.0) == 2
    use_chain(chunks, np.array([A, B]), 0, 2, 1.0)
    assert write(chunks, E) == [D]
    assert write(chunks, C) == [B]  # used before A, as its follower


def test_a_chain_longer_than_the_store_leaves_its_front() -> None:
    chunks = store()
    assert write(chunks, A, B, C, D, E) == [E, D]
    assert held(chunks, A, B, C, D, E) == [True, True, True, False, False]


def test_the_least_often_used_gives_way_the_least_recent_of_equals() -> None:
    chunks = store(lfu=True)
    write(chunks, A)
    write(chunks, B)
    write(chunks, C)
    use_chain(chunks, np.array([A]), 0, 1, 1.0)
    use_chain(chunks, np.array([B]), 0, 1, 2.0)
    assert write(chunks, D) == [C]
    assert write(chunks, E) == [D]  # used once, though last
    use_chain(chunks, np.array([E]), 0, 1, 3.0)
    assert write(chunks, C) == [A]


def test_what_nobody_uses_for_its_ttl_is_given_up() -> None:
    chunks = store(ttl_s=10.0)
    write(chunks, A, at_s=0.0)
    write(chunks, B, at_s=1.0)
    use_chain(chunks, np.array([A]), 0, 1, 8.0)
    assert held(chunks, A, B, at_s=11.0) == [True, True]  # ten seconds old, no more
    assert held(chunks, A, B, at_s=11.5) == [True, False]
    assert held(chunks, A, B, at_s=18.5) == [False, False]
    assert chunks.numbers[NUM_EXPIRED] == 2
    assert (chunks.numbers[NUM_CHUNKS], chunks.amounts[USED_BYTES]) == (0, 0.0)


def test_what_is_larger_than_the_store_does_not_come_in() -> None:
    chunks = store(capacity=0.5)
    assert write(chunks, A) == []
    assert held(chunks, A) == [False]


@pytest.mark.parametrize("lfu", [False, True])
def test_against_a_plain_model_of_many_writes(lfu: bool) -> None:
    """Random uses of 40 contents in a store of 7: the same contents stay as in a list of (uses, last use)."""
    rng = np.random.default_rng(3)
    chunks, model = store(7.0, lfu=lfu), dict[int, tuple[int, int]]()
    for turn in range(600):
        key = int(np.uint64(rng.integers(1, 41) ** 3))
        write(chunks, np.uint64(key), at_s=float(turn))
        if key not in model and len(model) == 7:
            victim = min(model, key=lambda other: model[other] if lfu else model[other][1:])
            del model[victim]
        model[key] = (min(model.get(key, (0, 0))[0] + 1, 64), turn)
        assert held(chunks, *(np.uint64(other) for other in model), at_s=float(turn)) == [True] * len(model)
    assert chunks.numbers[NUM_CHUNKS] == 7
