"""A small oracle to begin a hand-derived case with: blocks of 4 tokens, steps of 1 s, nothing shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.reference_engine import ReferenceEngine
from tests.reference_records import Arrival, BatchCounts, Options, Seconds, StepRecord


def one_second(counts: BatchCounts) -> Seconds:
    return Seconds(1.0)


def own_content(row: int, index: int) -> int:
    return 1_000_000 * (row + 1) + index


def same_content(row: int, index: int) -> int:
    return index


def build(
    *,
    content: Callable[[int, int], int] = own_content,
    cost: Callable[[BatchCounts], Seconds] = one_second,
    **options: Any,
) -> ReferenceEngine:
    defaults: dict[str, Any] = {
        "num_blocks": 100,
        "block_tokens": 4,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 16,
    }
    return ReferenceEngine(Options(**{**defaults, **options}), content=content, cost=cost)


def push(engine: ReferenceEngine, row: int, num_prompt: int, num_output: int, priority: int = 0) -> bool:
    return engine.push(Arrival(0.0, row, num_prompt, num_output, priority))


def begin(engine: ReferenceEngine, start_s: float) -> StepRecord:
    record = engine.begin_step(start_s)
    assert record is not None
    return record


def scheduled(records: Sequence[StepRecord]) -> list[tuple[tuple[int, int], ...]]:
    return [record.scheduled for record in records]
