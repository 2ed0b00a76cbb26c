"""The compiled loop that fills one step of a token engine. The policies' switches decide its branches.

Mirrors vLLM's scheduler: running sequences and waiting ones share one token budget; the switches say who comes first
and what may share a step. Rules by number: docs/modelling.md, "Who runs in a step". tests/reference_engine.py is the
readable version; tests hold the two to the same integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import is_decoding
from hermes_sim.batching.line import note_line
from hermes_sim.batching.running import ALL, DECODES, PROMPTS, schedule_running
from hermes_sim.batching.speculation import waits_for_drafts
from hermes_sim.batching.waiting import fetch_requests, schedule_waiting
from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import HELD_BY_BATCH


@compiled
def running_phase(state: Any, e: int, left: int, time_s: float) -> Any:
    """Running sequences in their order; decodes before unfinished prompts where the policy says so."""
    if state.decodes_first[e] == 0:
        left, preempted, _ = schedule_running(state, e, left, ALL, time_s)
        return left, preempted
    left, preempted, cut_short = schedule_running(state, e, left, DECODES, time_s)
    if state.by_layers[e] == 0 and not cut_short:
        left, more, _ = schedule_running(state, e, left, PROMPTS, time_s)
        preempted = preempted or more
    return left, preempted


@compiled
def prompts_then_decodes(state: Any, e: int, again: bool, time_s: float) -> Any:
    """A step holds prompts or decodes, prompts first (vLLM V0, SGLang); a static batch is filled when none runs.

    `again`: this attempt has only preempted so far; a prompt that found no blocks must not come back before a decode.
    """
    left = state.max_num_batched_tokens[e]
    preempted = False
    if again:
        left, preempted, _ = schedule_running(state, e, left, DECODES, time_s)
        if preempted or left < state.max_num_batched_tokens[e]:
            return left, preempted
    if state.num_running[e] == 0 or state.static_batch[e] == 0:
        if state.chunk_prefill[e] != 0:
            left, preempted, _ = schedule_running(state, e, left, PROMPTS, time_s)
        if not preempted:
            left = schedule_waiting(state, e, left, time_s)
    if not preempted and left == state.max_num_batched_tokens[e]:
        left, preempted, _ = schedule_running(state, e, left, DECODES, time_s)
    return left, preempted


@compiled
def prompts_beside_decodes(state: Any, e: int, time_s: float) -> Any:
    """Prompts first, decodes in what they leave (Splitwise's mixed machines); never twice in a row at their expense."""
    left = state.max_num_batched_tokens[e]
    if state.decodes_left_out[e] != 0:
        left, preempted = running_phase(state, e, left, time_s)
        if not preempted:
            left = schedule_waiting(state, e, left, time_s)
    else:
        left = schedule_waiting(state, e, left, time_s)
        left, preempted = running_phase(state, e, left, time_s)
    state.decodes_left_out[e] = 0
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        is_left_out = state.slot_scheduled[e, slot] == 0 and is_decoding(state, e, slot)
        if is_left_out and not waits_for_drafts(state, e, slot, time_s):
            state.decodes_left_out[e] = 1
    return left, preempted


@compiled
def give_wave_tokens(state: Any, e: int) -> int:
    """Layered prefill: the prompts of the wave run again, through the next group of layers. Returns their number."""
    number = 0
    tokens = np.int64(0)
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        row = state.slot_row[e, slot]
        if state.slot_scheduled[e, slot] == 0:
            num_tokens = np.int64(state.row_prompt[row]) + state.row_generated[row] - state.slot_done[e, slot]
            if not is_decoding(state, e, slot) and num_tokens > 0:
                state.slot_scheduled[e, slot] = num_tokens
                state.slot_drafted[e, slot] = 0
        if state.slot_scheduled[e, slot] > 0 and not is_a_decode(state, e, slot):
            number += 1
            tokens += state.slot_scheduled[e, slot]
    if number == 0:
        state.wave_groups[e] = 0
    elif state.wave_groups[e] == 0:
        groups = (tokens + state.layer_group_tokens[e] - 1) // state.layer_group_tokens[e]
        state.wave_groups[e] = max(min(groups, state.num_layers[e]), 1)
        state.wave_done[e] = 0
    return number


@compiled
def is_a_decode(state: Any, e: int, slot: int) -> bool:
    """Whether the tokens that a sequence was given are a decode's."""
    row = state.slot_row[e, slot]
    return state.row_generated[row] >= 1 and (
        np.int64(state.row_prompt[row]) + state.row_generated[row] - state.slot_done[e, slot] == 1
    )


@compiled
def by_layer_groups(state: Any, e: int, time_s: float) -> Any:
    """Decodes through all layers, a wave of prompts through one group of them (arXiv 2510.08055)."""
    left = state.max_num_batched_tokens[e]
    left, preempted = running_phase(state, e, left, time_s)
    if state.wave_groups[e] > 0 and not any_wave_member(state, e):
        state.wave_groups[e] = 0
    if not preempted:
        left = schedule_waiting(state, e, left, time_s)
    give_wave_tokens(state, e)
    return left, preempted


@compiled
def any_wave_member(state: Any, e: int) -> bool:
    """Whether prompts of the wave are left: they may all have been preempted."""
    for place in range(state.num_running[e]):
        slot = np.int64(state.running[e, place])
        if not is_a_decode(state, e, slot):
            return True
    return False


@compiled
def schedule(state: Any, e: int, time_s: float) -> bool:
    """Decide the tokens of one step (state.slot_scheduled). Returns whether anything runs.

    The only running sequence may have preempted itself; vLLM then runs an empty step, which takes no time here.
    """
    again = False
    state.has_evicted[e] = 0
    state.line_stopped_by[e] = HELD_BY_BATCH  # where nobody is admitted until a batch has ended
    fetch_requests(state, e, time_s)
    while True:
        if state.by_layers[e] != 0:
            left, preempted = by_layer_groups(state, e, time_s)
        elif state.waiting_first[e] != 0 and state.mix_steps[e] == 0:
            left, preempted = prompts_then_decodes(state, e, again, time_s)
        elif state.waiting_first[e] != 0:
            left, preempted = prompts_beside_decodes(state, e, time_s)
        else:
            left, preempted = running_phase(state, e, state.max_num_batched_tokens[e], time_s)
            if not preempted:
                left = schedule_waiting(state, e, left, time_s)
        if left < state.max_num_batched_tokens[e] or state.wave_groups[e] > 0:
            note_line(state, e, preempted, time_s)
            return True
        if not preempted:
            note_line(state, e, preempted, time_s)
            return False
        again = True
