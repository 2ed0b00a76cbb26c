"""Drafts made on devices of their own: round trips between them and the engine that verifies.

When a step ends, what it has brought goes to the device that drafts for the sequence; that drafts on, position by
position, for all whose results came together, and sends the drafts back; the engine takes them up in the first step
that begins when they are there. Meanwhile it verifies the drafts of others. A device works off what comes in turn. It
may draft ahead while it would wait (docs/speculation.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import DECODE, PART_OF_PROMPT, has_ended
from hermes_sim.batching.speculation import (
    NO_PRE_DRAFTS,
    ON_EARLY_EXIT,
    ON_GUESSED_BONUS,
    num_right,
    stops_drafting,
)
from hermes_sim.core.compiled import compiled
from hermes_sim.perf.step_kernel import step_cost
from hermes_sim.sim.pricing import HOST, total_s
from hermes_sim.state.arrays import ENERGY

OF_USE = 2
"""state.slot_pre_draft: what was drafted ahead goes on from what the step has brought."""


@compiled
def note_prompt(state: Any, e: int, slot: int, row: int) -> None:
    """A prompt has its first token: its device has known it since it came here."""
    state.slot_sent_s[e, slot] = state.row_arrival_s[row]


@compiled
def note_round(state: Any, e: int, slot: int, row: int) -> None:
    """A step has verified what was drafted for a sequence: its visit waited for that."""
    state.row_draft_wait_s[row] += state.slot_ready_s[e, slot] - state.slot_round_s[e, slot]


@compiled
def begin_rounds(state: Any, e: int, lane: int, time_s: float, duration_s: float) -> None:
    """All sequences of the step that ends now are drafted on, device by device.

    None where more run than are drafted for: their next decode is ready at once, without drafts.
    """
    num_devices = state.draft_devices[e]
    for place in range(state.lane_num_scheduled[e, lane] - 1, -1, -1):
        slot = np.int64(state.lane_slots[e, lane, place])
        if not goes_on(state, e, lane, place, slot):
            continue
        is_first = state.slot_round_s[e, slot] == 0.0
        state.slot_ready_s[e, slot] = time_s
        state.slot_round_s[e, slot] = time_s
        state.slot_ready_drafts[e, slot] = 0
        if state.num_running[e] > state.draft_max_seqs[e]:
            state.slot_pre_draft[e, slot] = 0
            continue
        if is_first and state.lane_slot_kind[e, lane, place] == DECODE:
            state.slot_sent_s[e, slot] = state.row_arrival_s[state.slot_row[e, slot]]
        device = slot % num_devices
        state.slot_beside[e, slot] = state.scratch_device[device]
        state.scratch_device[device] = slot
        plan_round(state, e, slot, is_first, time_s, duration_s)
    for place in range(state.lane_num_scheduled[e, lane]):
        slot = np.int64(state.lane_slots[e, lane, place])
        device = slot % num_devices
        if slot >= 0 and state.scratch_device[device] == slot:
            draft(state, e, device, time_s)
            state.scratch_device[device] = -1


@compiled
def goes_on(state: Any, e: int, lane: int, place: int, slot: int) -> bool:
    """Whether a sequence of the step decodes on in this engine."""
    if slot < 0 or state.lane_slot_kind[e, lane, place] == PART_OF_PROMPT or state.slot_gone[e, slot] != 0:
        return False
    return not has_ended(state, e, slot)


@compiled
def plan_round(state: Any, e: int, slot: int, is_first: bool, time_s: float, duration_s: float) -> None:
    """How many positions are drafted for a sequence, and how many passes that still takes.

    Drafting stops behind the first position that looks too unsure: that pass was in vain. Passes made ahead while the
    device had nothing else to do are saved if they are of use, the one under way too.
    """
    row = np.int64(state.slot_row[e, slot])
    generated = np.int64(state.row_generated[row])
    most = np.int64(state.slot_drafts[e, slot])
    right = num_right(state, e, row, generated, most)
    drafts = np.int64(0)
    while drafts < most and not stops_drafting(state, e, row, generated, drafts, drafts < right):
        drafts += 1
    passes = min(drafts + 1, most)
    state.slot_ready_drafts[e, slot] = drafts
    state.slot_passes_left[e, slot] = passes
    state.slot_carry_s[e, slot] = 0.0
    state.row_rounds[row] += 1
    state.row_sent_drafts[row] += drafts
    state.total_rounds[e] += 1
    state.total_sent_drafts[e] += drafts
    if is_first:
        state.slot_passes_left[e, slot] = -passes  # the prompt comes before them
    elif state.pre_drafting[e] != NO_PRE_DRAFTS and state.slot_pre_draft[e, slot] > 0:
        draft_ahead(state, e, slot, row, passes, time_s, duration_s)
    state.slot_pre_draft[e, slot] = 0


@compiled
def draft_ahead(state: Any, e: int, slot: int, row: int, passes: int, time_s: float, duration_s: float) -> None:
    """What a device has drafted between sending its drafts and their result, in the time that it had for it."""
    pass_s = state.slot_pass_s[e, slot]
    result_s = time_s + state.draft_down_s[e]
    begin_s = max(state.slot_sent_s[e, slot], state.draft_free_s[e, slot % state.draft_devices[e]])
    if state.pre_drafting[e] == ON_EARLY_EXIT:
        begin_s = max(begin_s, result_s - (1.0 - state.pre_draft_exit[e]) * duration_s)
    lead = 1 if state.pre_drafting[e] == ON_GUESSED_BONUS else 0
    made = min(max(result_s - begin_s, 0.0) / pass_s, np.float64(lead + passes))
    energy_j = made * state.slot_pass_j[e, slot]
    state.row_shares[row, ENERGY] += energy_j
    state.draft_energy_j[e] += energy_j
    state.draft_busy_s[e] += made * pass_s / state.slot_pass_seqs[e, slot]
    state.total_pre_drafts[e] += 1
    if state.slot_pre_draft[e, slot] != OF_USE:
        return
    state.total_pre_drafts_right[e] += 1
    saved = max(made - lead, 0.0)
    whole = np.int64(saved)
    state.slot_passes_left[e, slot] = passes - whole
    if whole < passes:
        state.slot_carry_s[e, slot] = (saved - whole) * pass_s


@compiled
def draft(state: Any, e: int, device: int, time_s: float) -> None:
    """One device works for all whose results come to it now: new prompts, then pass by pass, each with those that lack
    it. Sets when their drafts are at the engine."""
    result_s = time_s + state.draft_down_s[e]
    first = np.int64(state.scratch_device[device])
    free_s = state.draft_free_s[e, device]
    begin_s = max(result_s, free_s)
    clock_s = begin_s + prompts_left_s(state, e, first, free_s, begin_s)
    most = np.int64(0)
    slot = first
    while slot >= 0:
        left = abs(np.int64(state.slot_passes_left[e, slot]))
        state.slot_passes_left[e, slot] = left
        most = max(most, left)
        if left == 0:
            send(state, e, slot, result_s)
        slot = np.int64(state.slot_beside[e, slot])
    for number in range(1, most + 1):
        pass_s = drafting_pass(state, e, first, number)
        clock_s += pass_s
        slot = first
        while slot >= 0:
            left = np.int64(state.slot_passes_left[e, slot])
            if left >= number:
                state.slot_pass_s[e, slot] = pass_s
            if left == number:
                sent_s = max(clock_s - state.slot_carry_s[e, slot], result_s)
                send(state, e, slot, sent_s)
                free_s = max(free_s, sent_s)
            slot = np.int64(state.slot_beside[e, slot])
    state.draft_free_s[e, device] = free_s


@compiled
def send(state: Any, e: int, slot: int, time_s: float) -> None:
    """The drafts of a sequence leave their device."""
    state.slot_sent_s[e, slot] = time_s
    on_the_way_s = state.draft_up_s[e] + state.slot_ready_drafts[e, slot] * state.draft_up_per_token_s[e]
    state.slot_ready_s[e, slot] = time_s + on_the_way_s


@compiled
def drafting_pass(state: Any, e: int, first: int, number: int) -> float:
    """Seconds of one pass over a token of each sequence that lacks so many passes or more; shares out its energy."""
    num_seqs = np.int64(0)
    context_sum = np.int64(0)
    context_max = np.int64(0)
    slot = first
    while slot >= 0:
        if state.slot_passes_left[e, slot] >= number:
            row = state.slot_row[e, slot]
            context = np.int64(state.row_prompt[row]) + state.row_generated[row] + number - 1
            num_seqs += 1
            context_sum += context
            context_max = max(context_max, context)
        slot = np.int64(state.slot_beside[e, slot])
    seconds = state.scratch_seconds
    kind = state.draft_cost_kind[e]
    step_cost(
        state.cost_linear[kind], state.cost_decode_linear[kind], state.cost_sampled[kind], state.cost_attention[kind],
        num_seqs, num_seqs, num_seqs, num_seqs, context_sum, context_max, 0, 0, 0, seconds,
    )  # fmt: skip
    seconds[HOST] += state.draft_step_s[e]
    energy_j = count_drafting(state, e, seconds)
    slot = first
    while slot >= 0:
        if state.slot_passes_left[e, slot] >= number:
            state.slot_pass_seqs[e, slot] = num_seqs
            state.slot_pass_j[e, slot] = energy_j / num_seqs
            state.row_shares[state.slot_row[e, slot], ENERGY] += energy_j / num_seqs
        slot = np.int64(state.slot_beside[e, slot])
    return total_s(seconds)


@compiled
def prompts_left_s(state: Any, e: int, first: int, free_s: float, begin_s: float) -> float:
    """Of the prompts that are drafted for the first time, what their device could not read while the engine did.

    It could since they came, as far as it had nothing else to do. Those that go on from an earlier draft are known.
    """
    needed_s = 0.0
    earliest_s = np.inf
    slot = first
    while slot >= 0:
        if state.slot_passes_left[e, slot] < 0:
            row = np.int64(state.slot_row[e, slot])
            if state.row_generated[row] <= 2:
                needed_s += read_prompt_s(state, e, row)
                earliest_s = min(earliest_s, state.slot_sent_s[e, slot])
        slot = np.int64(state.slot_beside[e, slot])
    if needed_s == 0.0:
        return 0.0
    return max(needed_s - max(begin_s - max(earliest_s, free_s), 0.0), 0.0)


@compiled
def read_prompt_s(state: Any, e: int, row: int) -> float:
    """Seconds in which a device reads a prompt, chunk by chunk."""
    kind = state.draft_cost_kind[e]
    prompt = np.int64(state.row_prompt[row])
    seconds = state.scratch_seconds
    done = np.int64(0)
    found_s = 0.0
    while done < prompt:
        chunk = min(prompt - done, state.draft_chunk_tokens[e])
        pairs = chunk * done + chunk * (chunk + 1) // 2
        step_cost(
            state.cost_linear[kind], state.cost_decode_linear[kind], state.cost_sampled[kind],
            state.cost_attention[kind], chunk, 0, 0, 0, 0, 0, 1, pairs, done + chunk, seconds,
        )  # fmt: skip
        seconds[HOST] += state.draft_step_s[e]
        state.row_shares[row, ENERGY] += count_drafting(state, e, seconds)
        found_s += total_s(seconds)
        done += chunk
    return found_s


@compiled
def count_drafting(state: Any, e: int, seconds: Any) -> float:
    """Time and energy of a device that drafts, into the totals; returns the energy [J]."""
    energy_j = 0.0
    for resource in range(4):
        energy_j += seconds[resource] * state.draft_power_w[e, resource]
    state.draft_busy_s[e] += total_s(seconds)
    state.draft_energy_j[e] += energy_j
    return energy_j
