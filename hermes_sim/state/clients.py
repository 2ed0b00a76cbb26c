"""Virtual token counters: what an engine has served every client (Sheng et al., OSDI 2024, arXiv 2401.00588)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.queues import FAIR_SHARE

PROMPT_TOKEN_WEIGHT = 1
OUTPUT_TOKEN_WEIGHT = 2
"""The paper's weights: an output token costs about two of a prompt."""


@compiled
def client_enters(state: Any, e: int, row: int) -> None:
    """A visit arrives. A client with nothing inside starts level with the least served one: idling earns nothing."""
    if state.queue_order[e] != FAIR_SHARE:
        return
    client = state.row_client[row]
    if state.client_inside[e, client] == 0:
        least = np.int64(-1)
        for other in range(state.client_inside.shape[1]):
            if state.client_inside[e, other] > 0 and (least < 0 or state.client_counter[e, other] < least):
                least = state.client_counter[e, other]
        state.client_counter[e, client] = max(state.client_counter[e, client], least)
    state.client_inside[e, client] += 1


@compiled
def client_leaves(state: Any, e: int, row: int) -> None:
    """A visit has ended."""
    if state.queue_order[e] == FAIR_SHARE:
        state.client_inside[e, state.row_client[row]] -= 1


@compiled
def charge_prompt(state: Any, e: int, row: int) -> None:
    """The prompt is admitted."""
    if state.queue_order[e] == FAIR_SHARE:
        state.client_counter[e, state.row_client[row]] += PROMPT_TOKEN_WEIGHT * np.int64(state.row_prompt[row])


@compiled
def charge_output(state: Any, e: int, row: int, num_tokens: int) -> None:
    """Tokens were generated."""
    if state.queue_order[e] == FAIR_SHARE:
        state.client_counter[e, state.row_client[row]] += OUTPUT_TOKEN_WEIGHT * num_tokens
