"""The laws that every run keeps, checked at its end; a violation is a defect of the program."""

from __future__ import annotations

import numpy as np

from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.status import UNFINISHED
from hermes_sim.state.arrays import EngineArrays


def check_laws(coordinator: Coordinator) -> None:
    """Nothing is lost and nothing is made up: requests, tokens, KV blocks, samples, drafts, time."""
    lowered, state = coordinator.lowered, coordinator.state
    assert len(coordinator.status) == lowered.requests.num_requests
    assert (coordinator.status != UNFINISHED).all(), "law 1: requests in = requests out"
    assert (state.load_requests == 0).all(), "law 1: requests in = requests out"
    assert (state.load_tokens[state.engine_kind == 0] == 0).all(), "law 1: every token asked for was processed"
    _check_blocks(state)
    _check_times(state)
    _check_samples(coordinator)
    _check_counters(state)


def _check_blocks(state: EngineArrays) -> None:
    used = (state.block_owners > 0).sum(axis=1)
    assert (used + state.num_free_blocks == state.num_blocks).all(), "law 2: KV blocks owned + free = all"
    assert (used == 0).all(), "law 2: at the end every KV block is free"
    assert (state.num_swapped_blocks == 0).all(), "law 2: what was swapped out came back"


def _check_times(state: EngineArrays) -> None:
    arrival_s, start_s, finish_s = state.row_arrival_s, state.row_start_s, state.row_finish_s
    served = ~np.isnan(start_s)
    assert (arrival_s[served] <= start_s[served]).all(), "law 3: arrival <= start"
    assert not (start_s > finish_s).any(), "law 3: start <= finish"


def _check_samples(coordinator: Coordinator) -> None:
    """Every further sample of a decode that was served has all its tokens and has ended with it or before it."""
    lowered, state = coordinator.lowered, coordinator.state
    parents = lowered.row_parent
    if len(parents) == 0:
        return
    number = len(lowered.row_stage)
    samples = slice(number, number + len(parents))
    served = ~np.isnan(state.row_finish_s[parents])
    assert (state.row_generated[samples] == state.row_output[samples])[served].all(), "law 1: every sample is complete"
    assert not np.isnan(state.row_finish_s[samples][served]).any(), "law 1: every sample has ended"
    forked = served & (state.row_num_samples[parents] > 1)
    assert (state.row_open_samples[parents[forked]] == 0).all(), "law 1: no sample is open"


def _check_counters(state: EngineArrays) -> None:
    drafted, accepted = state.total_drafted, state.total_accepted
    assert (accepted <= drafted).all(), "no more drafts are kept than were made"
    hit, looked_up = state.total_hit_blocks, state.total_looked_up_blocks
    assert (hit <= looked_up).all(), "no more blocks are found than were looked for"
