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
def count_accepted(state: Any, e: int, slot: int, row: int, num_drafts: int) -> int:
    """Leading drafts that are right, at most what the sequence still wants after the token it gets anyway."""
    generated = np.int64(state.row_generated[row])
    positions = num_drafts // state.tree_width[e]
    accepted = np.int64(0)
    if state.accept_kind[e] == BY_LIST:
        place = mix(np.uint64(row), np.uint64(generated)) % np.uint64(state.accept_size[e])
        accepted = min(np.int64(state.accept[e, place]), positions)
    else:
        last = state.accept_size[e] - 1
        while accepted < positions and (
            uniform(state.speculative_seed[e], row, generated, accepted) < state.accept[e, min(accepted, last)]
        ):
            accepted += 1
    if state.adaptive_drafts[e] != 0:
        drafts = np.int64(state.slot_drafts[e, slot])
        drafts = drafts + MORE_DRAFTS if accepted == positions else drafts - FEWER_DRAFTS
        state.slot_drafts[e, slot] = min(max(drafts, np.int64(1)), state.draft_tokens[e])
    accepted = min(accepted, np.int64(state.row_output[row]) - generated - 1)
    state.total_accepted[e] += accepted
    note(state, e, ACCEPTED, row, accepted)
    return accepted
