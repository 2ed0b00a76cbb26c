"""One engine driven by hand: unless a case says otherwise blocks of 4 tokens, a budget of 16, steps of 1 s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.invariants import check_invariants, free_queue, owned_blocks, waiting_rows
from tests.one_engine import CompiledEngine, Options, Step

Scheduled = tuple[tuple[int, int], ...]
"""(row, tokens) in running order."""


def build(
    num_rows: int = 8,
    num_ranks: int = 1,
    *,
    step_s: float = 1.0,
    token_s: float = 0.0,
    host_s: float = 0.0,
    **options: Any,
) -> CompiledEngine:
    """An engine of 100 blocks and 8 sequences at most."""
    defaults: dict[str, Any] = {
        "num_blocks": 100, "block_tokens": 4, "max_num_seqs": 8, "max_num_batched_tokens": 16,
    }  # fmt: skip
    return CompiledEngine(
        Options(**{**defaults, **options}), num_rows, num_ranks, step_s=step_s, token_s=token_s, host_s=host_s
    )


def add(engine: CompiledEngine, *requests: tuple[int, int], first_row: int = 0, at_s: float = 0.0) -> None:
    """Requests (prompt tokens, output tokens) arrive together, rows from `first_row` on."""
    for row, (num_prompt, num_output) in enumerate(requests, start=first_row):
        engine.push(at_s, row, num_prompt, num_output)
    assert engine.rejected == []


def run(engine: CompiledEngine, num_steps: int | None = None) -> list[Step]:
    """So many steps, each to its end, or all there are; invariants hold after every begin and end."""
    first = len(engine.steps)
    while not engine.is_idle and (num_steps is None or len(engine.steps) - first < num_steps):
        engine.act()
        check_invariants(engine.arrays)
    while num_steps is not None and engine.next_end_s < float("inf") and engine.options.num_lanes == 1:
        engine.act()
        check_invariants(engine.arrays)
    return engine.steps[first:]


def scheduled(steps: Sequence[Step]) -> list[Scheduled]:
    return [step.scheduled for step in steps]


def preempted(steps: Sequence[Step]) -> list[tuple[int, ...]]:
    return [step.preempted for step in steps]


def share_all(engine: CompiledEngine, *rows: int, group: int = 1, tokens: int = 10_000) -> None:
    """These requests hold the same text, prompts and outputs alike, in their first tokens."""
    engine.arrays.content_group[list(rows)] = group
    engine.arrays.content_group_tokens[list(rows)] = tokens


def waiting(engine: CompiledEngine) -> list[int]:
    """The line, head first."""
    return waiting_rows(engine.arrays, 0)


def blocks(engine: CompiledEngine, row: int) -> list[int]:
    """Blocks of a sequence, from its front."""
    return owned_blocks(engine.arrays, 0, int(engine.arrays.row_slot[row]))


def free(engine: CompiledEngine) -> list[int]:
    """The free queue, first to be used first."""
    return free_queue(engine.arrays, 0)


def row_of(steps: Sequence[Step], row: int) -> list[int]:
    """Tokens of one row in the steps that it was in."""
    return [tokens for step in steps for r, tokens in step.scheduled if r == row]


def counts(step: Step) -> tuple[int, ...]:
    """Tokens; of them with logits; decodes, their tokens, sum and largest of their contexts; prompts, their query-key
    pairs, sum of their contexts."""
    return step.batch
