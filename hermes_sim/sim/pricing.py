"""What a step that has been decided costs: its sums to the cost model, by resource, with what the policy adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.adapters import adapter_seconds
from hermes_sim.batching.batch import (
    ADAPTER_TOKENS,
    COPIED_BLOCKS,
    DECODE_CONTEXT_MAX,
    DECODE_CONTEXT_SUM,
    NUM_ADAPTER_LOADS,
    NUM_ADAPTERS,
    NUM_DECODE,
    NUM_DECODE_TOKENS,
    NUM_DRAFTED,
    NUM_LAYER_GROUPS,
    NUM_PREFILL,
    NUM_SAMPLED,
    NUM_SAMPLED_PROMPTS,
    NUM_TOKENS,
    PREFILL_CONTEXT_SUM,
    PREFILL_HISTORY_SUM,
    PREFILL_LONGEST,
    PREFILL_TOKEN_PAIRS,
    SWAPPED_BLOCKS,
)
from hermes_sim.batching.packing import num_rows_in_lane
from hermes_sim.core.compiled import compiled
from hermes_sim.perf.step_kernel import step_cost
from hermes_sim.perf.unit_kernel import unit_cost

SHORTEST_STEP_S = 1e-9
"""No step is shorter: an output is always later than the start of its step, so nothing waits in a circle."""

# Columns of seconds and demand vectors.
COMPUTE = 0
MEMORY = 1
NETWORK = 2
HOST = 3


@compiled
def table_cost(state: Any, kind: int, batch: Any, num_sampled: int, seconds: Any) -> None:
    """Price a batch with the tables of one kind."""
    step_cost(
        state.cost_linear[kind],
        state.cost_decode_linear[kind],
        state.cost_sampled[kind],
        state.cost_attention[kind],
        batch[NUM_TOKENS],
        num_sampled,
        batch[NUM_DECODE],
        batch[NUM_DECODE_TOKENS],
        batch[DECODE_CONTEXT_SUM],
        batch[DECODE_CONTEXT_MAX],
        batch[NUM_PREFILL],
        batch[PREFILL_TOKEN_PAIRS],
        batch[PREFILL_CONTEXT_SUM],
        seconds,
    )


@compiled
def account_units(state: Any, e: int, lane: int, batch: Any) -> None:
    """What each device group of the engine does in the step, and the joules of all."""
    kind = state.cost_kind[e]
    state.lane_units_j[e, lane] = unit_cost(
        state.cost_linear_units[kind],
        state.cost_decode_units[kind],
        state.cost_sampled_units[kind],
        state.cost_attention[kind],
        batch[NUM_TOKENS],
        batch[NUM_SAMPLED],
        batch[NUM_DECODE],
        batch[NUM_DECODE_TOKENS],
        batch[DECODE_CONTEXT_SUM],
        batch[DECODE_CONTEXT_MAX],
        batch[NUM_PREFILL],
        batch[PREFILL_TOKEN_PAIRS],
        batch[PREFILL_CONTEXT_SUM],
        state.lane_units[e, lane],
    )


@compiled
def decodes_only(state: Any, kind: int, batch: Any, num_tokens: int, num_sampled: int, seconds: Any) -> None:
    """Price the decodes of a batch alone, with `num_tokens` tokens of theirs."""
    step_cost(
        state.cost_linear[kind],
        state.cost_decode_linear[kind],
        state.cost_sampled[kind],
        state.cost_attention[kind],
        num_tokens,
        num_sampled,
        batch[NUM_DECODE],
        num_tokens,
        batch[DECODE_CONTEXT_SUM],
        batch[DECODE_CONTEXT_MAX],
        0,
        0,
        0,
        seconds,
    )


@compiled
def pad_prompts(state: Any, e: int, lane: int, batch: Any) -> None:
    """A rectangle of prompts: every row as long as the longest, its padding computed like tokens."""
    longest = batch[PREFILL_LONGEST]
    num_rows = num_rows_in_lane(state, e, lane, longest)
    batch[NUM_TOKENS] = num_rows * longest
    batch[PREFILL_TOKEN_PAIRS] = num_rows * (longest * (longest + 1) // 2) + longest * batch[PREFILL_HISTORY_SUM]
    batch[PREFILL_CONTEXT_SUM] = num_rows * longest + batch[PREFILL_HISTORY_SUM]
    batch[NUM_PREFILL] = num_rows


@compiled
def pad_decodes(state: Any, e: int, batch: Any) -> None:
    """A static batch keeps its size and its longest context until the last sequence has ended."""
    longest = np.int64(0)
    number = state.num_running[e]
    for place in range(number):
        slot = np.int64(state.running[e, place])
        row = state.slot_row[e, slot]
        known = np.int64(state.row_prompt[row]) + state.row_generated[row]
        longest = max(longest, known, np.int64(state.slot_computed[e, slot]))
    batch[NUM_TOKENS] = number
    batch[NUM_SAMPLED] = number
    batch[NUM_DECODE] = number
    batch[NUM_DECODE_TOKENS] = number
    batch[DECODE_CONTEXT_SUM] = number * longest
    batch[DECODE_CONTEXT_MAX] = longest


@compiled
def add_drafts(state: Any, e: int, batch: Any, seconds: Any) -> None:
    """Making the drafts: a pass of the drafting layers over all new tokens, then one per further position.

    Heads that each look at a position of their own take one pass. Further passes of a tree run over the nodes that the
    pass before has added.
    """
    width = state.tree_width[e]
    if state.draft_one_pass[e] != 0:
        num_passes = np.int64(1)
    elif width > 0:
        per_position = batch[NUM_DECODE] * width
        num_passes = (batch[NUM_DRAFTED] + per_position - 1) // per_position
    else:
        num_passes = np.int64(1)
        while state.draft_nodes[e, num_passes] * batch[NUM_DECODE] < batch[NUM_DRAFTED]:
            num_passes += 1
    kind = state.draft_cost_kind[e]
    seconds[HOST] += num_passes * state.draft_step_s[e]
    if kind < 0:
        return
    part = state.scratch_seconds
    table_cost(state, kind, batch, batch[NUM_DECODE], part)
    for resource in range(4):
        seconds[resource] += part[resource]
    if num_passes > 1 and width > 0:
        decodes_only(state, kind, batch, per_position, per_position, part)
        for resource in range(4):
            seconds[resource] += (num_passes - 1) * part[resource]
    if width == 0:
        for depth in range(1, num_passes):
            added = (state.draft_nodes[e, depth] - state.draft_nodes[e, depth - 1]) * batch[NUM_DECODE]
            decodes_only(state, kind, batch, added, added, part)
            for resource in range(4):
                seconds[resource] += part[resource]


@compiled
def layer_group_cost(state: Any, e: int, batch: Any, seconds: Any) -> None:
    """Layered prefill: the decodes run through all layers, the prompts of the wave through one group of them."""
    kind = state.cost_kind[e]
    share = 1.0 / batch[NUM_LAYER_GROUPS]
    part = state.scratch_seconds
    decodes_only(state, kind, batch, batch[NUM_DECODE_TOKENS], batch[NUM_SAMPLED], part)
    table_cost(state, kind, batch, batch[NUM_SAMPLED], seconds)
    for resource in range(4):
        seconds[resource] = seconds[resource] * share + part[resource] * (1.0 - share)


@compiled
def price_step(state: Any, e: int, lane: int) -> None:
    """Seconds by resource of the batch in state.scratch_batch, and its counts for the totals at its end."""
    batch = state.scratch_batch
    counts = state.lane_batch[e, lane]
    for place in range(batch.size):
        counts[place] = batch[place]
    seconds = state.lane_seconds[e, lane]
    if batch[NUM_LAYER_GROUPS] > 1:
        layer_group_cost(state, e, batch, seconds)
        if batch[NUM_SAMPLED_PROMPTS] == 0:  # the prompts count when they are through all layers
            counts[NUM_TOKENS] = batch[NUM_DECODE_TOKENS]
            counts[PREFILL_TOKEN_PAIRS] = 0
            counts[PREFILL_CONTEXT_SUM] = 0
    else:
        if state.prompt_padding[e] != 0 and batch[NUM_PREFILL] > 0:
            pad_prompts(state, e, lane, batch)
        elif state.static_batch[e] != 0:
            pad_decodes(state, e, batch)
        table_cost(state, state.cost_kind[e], batch, batch[NUM_SAMPLED], seconds)
        if state.num_units[e] > 0:
            account_units(state, e, lane, batch)
        if batch[NUM_DRAFTED] > 0 and state.draft_devices[e] == 0:
            add_drafts(state, e, batch, seconds)
    seconds[NETWORK] += batch[SWAPPED_BLOCKS] * state.swap_block_s[e]
    seconds[MEMORY] += batch[COPIED_BLOCKS] * state.copy_block_s[e]
    if state.max_adapters[e] > 0:
        seconds[NETWORK] += batch[NUM_ADAPTER_LOADS] * state.adapter_load_s[e]
        seconds[MEMORY] += adapter_seconds(state, e, batch[ADAPTER_TOKENS], batch[NUM_ADAPTERS])
    used = state.num_blocks[e] - state.num_free_blocks[e]
    state.lane_used_blocks[e, lane] = used
    state.peak_used_blocks[e] = max(state.peak_used_blocks[e], used)


@compiled
def link_wait_s(state: Any, e: int, num_tokens: int, duration_s: float) -> float:
    """How much longer a step lasts where transfers leave its collectives less of a link than they want.

    A step that keeps a share d of a link busy and gets the share s takes d / s of its time where d is more.
    """
    slowest = 1.0
    group = state.group_of[e]
    first = state.group_first_link[group]
    for column in range(first, first + state.group_num_links[group]):
        wanted = min(num_tokens * state.link_token_s[e, column] / duration_s, 1.0)
        slowest = max(slowest, wanted / state.link_share_frac[e, column])
    return (slowest - 1.0) * duration_s


@compiled
def set_demand(state: Any, e: int, lane: int) -> None:
    """What share of each resource the step in this lane uses while it is alone."""
    seconds = state.lane_seconds[e, lane]
    demand = state.lane_demand[e, lane]
    duration_s = max(total_s(seconds), SHORTEST_STEP_S)
    for column in state.device_columns[e]:
        if column >= 0:
            demand[column] = seconds[COMPUTE] / duration_s * state.compute_share_frac[e]
            demand[column + 1] = seconds[MEMORY] / duration_s * state.memory_share_frac[e]
    group = state.group_of[e]
    for link in range(state.group_first_link[group], state.group_num_columns[group]):
        busy_s = state.lane_num_tokens[e, lane] * state.link_token_s[e, link] / state.link_share_frac[e, link]
        demand[link] = min(busy_s / duration_s, 1.0)


@compiled
def total_s(seconds: Any) -> float:
    """Sum in a fixed order."""
    return seconds[0] + seconds[1] + seconds[2] + seconds[3]
