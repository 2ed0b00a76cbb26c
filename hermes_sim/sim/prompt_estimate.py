"""What an engine would take for the rest of a prompt alone, and how much of it its prefix cache holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import (
    NUM_LAYER_GROUPS,
    NUM_PREFILL,
    NUM_SAMPLED,
    NUM_TOKENS,
    PREFILL_CONTEXT_SUM,
    PREFILL_TOKEN_PAIRS,
)
from hermes_sim.core.compiled import compiled
from hermes_sim.sim.pricing import table_cost, total_s
from hermes_sim.state.blocks import count_hits


@compiled
def num_cached_tokens(state: Any, e: int, row: int) -> int:
    """Tokens of a visit's prompt that the engine's prefix cache holds now, whole blocks, at least one token short."""
    num_hits, _ = count_hits(state, e, row, np.int64(state.row_prompt[row]) + state.row_generated[row])
    number: int = num_hits * state.block_tokens[e]
    return number


@compiled
def prompt_seconds(state: Any, e: int, num_computed: int, num_tokens: int) -> float:
    """Steps of a prompt of `num_tokens` of which `num_computed` are in the cache, with nobody beside it.

    In chunks of the engine's budget where its policy cuts prompts, else in one step.
    """
    batch: Any = np.zeros(state.scratch_batch.size, np.int64)
    seconds = np.zeros(4)
    most = np.int64(state.cost_linear.shape[1] - 1)
    if state.chunk_prefill[e] != 0:
        most = min(most, np.int64(state.max_num_batched_tokens[e]))
        if state.prefill_threshold[e] > 0:
            most = min(most, np.int64(state.prefill_threshold[e]))
    batch[NUM_PREFILL] = 1
    batch[NUM_LAYER_GROUPS] = 1
    duration_s = 0.0
    done = np.int64(num_computed)
    while done < num_tokens:
        number = min(num_tokens - done, most)
        batch[NUM_TOKENS] = number
        batch[NUM_SAMPLED] = 1 if done + number == num_tokens else 0
        batch[PREFILL_TOKEN_PAIRS] = number * done + number * (number + 1) // 2
        batch[PREFILL_CONTEXT_SUM] = done + number
        table_cost(state, state.cost_kind[e], batch, batch[NUM_SAMPLED], seconds)
        duration_s += total_s(seconds)
        done += number
    return duration_s
