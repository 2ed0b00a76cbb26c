"""Whether speculative decoding pays: how much faster an engine decodes with its drafts than it would without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hermes_sim.perf.operator_table import StepBatch
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.sim.collect_operators import mean_decodes
from hermes_sim.sim.lower import Lowered

FloatArray = npt.NDArray[np.float64]


def speculation_speedup(lowered: Lowered) -> FloatArray:
    """[num_engines] speed of decoding over that without drafts, at the engine's mean batch; NaN without speculation.

    tokens per decode step x time of a plain step / time of a step that drafts and verifies (Leviathan et al., ICML
    2023, section 3.3), both steps without prompts.
    """
    state = lowered.state
    drafted, accepted = state.total_drafted, state.total_accepted
    speedup = np.full(len(lowered.replicas), np.nan)
    for e in np.flatnonzero(drafted).tolist():
        decodes = int(state.total_decode_tokens[e] - drafted[e])
        plain_s, drafting_s = step_times_s(lowered, e, float(drafted[e]) / decodes)
        speedup[e] = (decodes + int(accepted[e])) / decodes * plain_s / drafting_s
    return speedup


def step_times_s(lowered: Lowered, e: int, drafts_per_decode: float) -> tuple[float, float]:
    """Seconds of the engine's mean decode step without drafts, and with so many for each sequence."""
    replica, state = lowered.replicas[e], lowered.state
    batch = mean_decodes(lowered, e)
    assert batch is not None
    assert replica.cost is not None
    number, width = batch["num_decode"], int(state.tree_width[e])
    plain_s = _seconds(replica.cost, {**batch, **_decodes(number, 1)})
    drafting_s = _seconds(replica.cost, batch)
    positions = drafts_per_decode / width
    assert replica.costs is not None
    draft = replica.costs.draft
    if draft is not None:
        drafting_s += positions * draft.draft_step_s
        if draft.cost is not None:
            drafting_s += _seconds(draft.cost, {**batch, "num_sampled": number})
            drafting_s += max(positions - 1.0, 0.0) * _seconds(draft.cost, {**batch, **_decodes(number, width)})
    return plain_s, drafting_s


def _decodes(num_sequences: int, tokens_each: int) -> dict[str, int]:
    num_tokens = num_sequences * tokens_each
    return {"num_tokens": num_tokens, "num_sampled": num_tokens, "num_draft_tokens": num_tokens - num_sequences}


def _seconds(cost: LlmCost, batch: Mapping[str, int]) -> float:
    return float(cost.seconds(StepBatch(**batch)).sum())
