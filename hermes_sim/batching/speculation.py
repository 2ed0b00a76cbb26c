"""How many drafts of a sequence the target model accepts (Leviathan et al., ICML 2023, arXiv 2211.17192).

Drawn by a counter-based hash of (seed, request, tokens generated, position), so that a draw depends on nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.batching.batch import note
from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import ACCEPTED
from hermes_sim.state.hashes import mix

BY_PROBABILITY = 0
BY_LIST = 1

# What a device of its own drafts while its last drafts are verified.
NO_PRE_DRAFTS = 0
ON_GUESSED_BONUS = 1  # as if all were accepted, behind its own guess of the token that follows them
WITHOUT_BONUS = 2  # as if all were accepted; then the token behind them is not taken from the model
ON_EARLY_EXIT = 3  # behind what an exit in the middle of the model says

CONFIDENCES = 1
AGREEMENTS = 2
"""Added to the seed: draws of their own."""

POSITIONS_PER_TOKEN = 64
UNIT = 2.0**-53
"""Spacing of the 53-bit fractions."""

MORE_DRAFTS = 2
FEWER_DRAFTS = 1
"""Adaptive length: two more after all were accepted, one less after a rejection (Hugging Face's heuristic schedule)."""


@compiled
def uniform(seed: int, row: int, generated: int, position: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    key = mix(mix(np.uint64(seed), np.uint64(row)), np.uint64(generated * POSITIONS_PER_TOKEN + position))
    return np.float64(key >> np.uint64(11)) * UNIT


@compiled
def num_nodes(state: Any, e: int, positions: int) -> int:
    """Drafts of so many positions: one each, `tree_width`, or the nodes of a tree down to that depth."""
    if state.tree_width[e] > 0:
        return positions * state.tree_width[e]
    return np.int64(state.draft_nodes[e, positions])


@compiled
def num_positions(state: Any, e: int, num_drafts: int) -> int:
    """Positions that so many drafts fill: of a tree that was cut, whole depths."""
    if state.tree_width[e] > 0:
        return num_drafts // state.tree_width[e]
    depth = np.int64(0)
    while depth < state.draft_tokens[e] and state.draft_nodes[e, depth + 1] <= num_drafts:
        depth += 1
    return depth


@compiled
def num_right(state: Any, e: int, row: int, generated: int, positions: int) -> int:
    """Leading drafts, of so many positions behind the tokens generated, that the model accepts."""
    right = np.int64(0)
    if state.accept_kind[e] == BY_LIST:
        place = mix(np.uint64(row), np.uint64(generated)) % np.uint64(state.accept_size[e])
        return min(np.int64(state.accept[e, place]), positions)
    last = state.accept_size[e] - 1
    while right < positions and (
        uniform(state.speculative_seed[e], row, generated, right) < state.accept[e, min(right, last)]
    ):
        right += 1
    return right


@compiled
def count_accepted(state: Any, e: int, slot: int, row: int, num_drafts: int) -> int:
    """Leading drafts that are right, at most what the sequence still wants after the token it gets anyway.

    With devices that draft ahead, it is also noted whether what they have drafted meanwhile is of use.
    """
    generated = np.int64(state.row_generated[row])
    positions = num_positions(state, e, num_drafts)
    right = num_right(state, e, row, generated, positions)
    if state.pre_drafting[e] != NO_PRE_DRAFTS:
        state.slot_pre_draft[e, slot] = 2 if is_of_use(state, e, row, generated, positions, right) else 1
    if state.adaptive_drafts[e] != 0:
        drafts = np.int64(state.slot_drafts[e, slot])
        drafts = drafts + MORE_DRAFTS if right == positions else drafts - FEWER_DRAFTS
        state.slot_drafts[e, slot] = min(max(drafts, np.int64(1)), state.draft_tokens[e])
    accepted = min(right, np.int64(state.row_output[row]) - generated - 1)
    state.total_accepted[e] += accepted
    note(state, e, ACCEPTED, row, accepted)
    return accepted


@compiled
def is_of_use(state: Any, e: int, row: int, generated: int, positions: int, right: int) -> bool:
    """Whether drafts made ahead follow what the step has brought."""
    if state.pre_drafting[e] == ON_EARLY_EXIT:
        draw = uniform(state.speculative_seed[e] + AGREEMENTS, row, generated, 0)
        return draw < state.pre_draft_right[e]
    if right < positions:
        return False
    if state.pre_drafting[e] == ON_GUESSED_BONUS:
        return num_right(state, e, row, generated, positions + 1) > positions
    return True


@compiled
def skips_bonus(state: Any, e: int, slot: int) -> bool:
    """Whether the token behind accepted drafts is left out, because drafts that follow them are there already."""
    return state.pre_drafting[e] == WITHOUT_BONUS and state.slot_pre_draft[e, slot] == 2


@compiled
def waits_for_drafts(state: Any, e: int, slot: int, time_s: float) -> bool:
    """Whether a decode's drafts are being made, or are on their way."""
    return state.draft_devices[e] > 0 and state.slot_ready_s[e, slot] > time_s


@compiled
def next_ready_s(state: Any, e: int, time_s: float) -> float:
    """When drafts are here next, later than time_s; infinity if none are awaited."""
    found_s = np.inf
    for place in range(state.num_running[e]):
        ready_s = state.slot_ready_s[e, state.running[e, place]]
        if time_s < ready_s < found_s:
            found_s = ready_s
    return found_s


@compiled
def first_ready_s(state: Any, e: int) -> float:
    """From when on at least one running sequence waits for no drafts."""
    found_s = np.inf
    for place in range(state.num_running[e]):
        found_s = min(found_s, state.slot_ready_s[e, state.running[e, place]])
    return found_s


@compiled
def stops_drafting(state: Any, e: int, row: int, generated: int, position: int, is_right: bool) -> bool:
    """Whether the draft at a position looks too unsure to be sent."""
    frac = state.draft_stop_right[e] if is_right else state.draft_stop_wrong[e]
    return frac > 0.0 and uniform(state.speculative_seed[e] + CONFIDENCES, row, generated, position) < frac
