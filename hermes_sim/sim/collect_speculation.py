"""What speculative decoding did: whether it pays, and what devices that draft did, drew and sent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.perf.operator_table import StepBatch
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.sim.collect_operators import mean_decodes
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.replicas import Replica

FloatArray = npt.NDArray[np.float64]


def speculation_speedup(lowered: Lowered) -> FloatArray:
    """[num_engines] speed of decoding over that without drafts, at the engine's mean batch; NaN without speculation.

    tokens per decode step x time of a plain step / time of a step that drafts and verifies (Leviathan et al., ICML
    2023, section 3.3), both steps without prompts; where devices of their own draft, with the mean wait for them.
    """
    state = lowered.state
    drafted, accepted = state.total_drafted, state.total_accepted
    speedup = np.full(len(lowered.replicas), np.nan)
    rounds_s = draft_round_s(lowered)
    for e in np.flatnonzero(drafted).tolist():
        decodes = int(state.total_decode_tokens[e] - drafted[e])
        plain_s, drafting_s = step_times_s(lowered, e, float(drafted[e]) / decodes)
        drafting_s += rounds_s[e]
        speedup[e] = (decodes + int(accepted[e])) / decodes * plain_s / drafting_s
    return speedup


def step_times_s(lowered: Lowered, e: int, drafts_per_decode: float) -> tuple[float, float]:
    """Seconds of the engine's mean decode step without drafts, and with so many for each sequence."""
    replica = lowered.replicas[e]
    batch = mean_decodes(lowered, e)
    assert batch is not None
    assert replica.cost is not None
    number = batch["num_decode"]
    positions, width = passes(lowered, e, drafts_per_decode)
    plain_s = _seconds(replica.cost, {**batch, **_decodes(number, 1)})
    drafting_s = _seconds(replica.cost, batch)
    assert replica.costs is not None
    draft = replica.costs.draft
    if draft is not None:
        drafting_s += positions * draft.draft_step_s
        if draft.cost is not None:
            drafting_s += _seconds(draft.cost, {**batch, "num_sampled": number})
            drafting_s += max(positions - 1.0, 0.0) * _seconds(draft.cost, {**batch, **_decodes(number, width)})
    return plain_s, drafting_s


def passes(lowered: Lowered, e: int, drafts_per_decode: float) -> tuple[float, int]:
    """Mean drafting passes of a step, and tokens of a sequence in each of them but the first."""
    state = lowered.state
    if state.draft_one_pass[e]:
        return 1.0, 1
    if state.tree_width[e] > 0:
        return drafts_per_decode / float(state.tree_width[e]), int(state.tree_width[e])
    nodes = state.draft_nodes[e, : state.draft_tokens[e] + 1]
    positions = float(np.interp(drafts_per_decode, nodes, np.arange(len(nodes))))
    last = int(np.ceil(positions))
    return positions, max(round(float(nodes[last - 1]) / max(last - 1, 1)), 1)


def draft_columns(lowered: Lowered, on_s: FloatArray) -> Table:
    """Columns of the engines on the devices of their own that draft for them. on_s: [num_engines] paid for."""
    state = lowered.state
    number = np.array([replica.num_draft_devices for replica in lowered.replicas], np.int64)
    return {
        "draft_devices": np.array([_devices(replica) for replica in lowered.replicas], object),
        "num_draft_devices": number,
        "num_draft_rounds": state.total_rounds.copy(),
        "draft_round_s": draft_round_s(lowered),
        "num_sent_drafts": state.total_sent_drafts.copy(),
        "num_pre_drafts": state.total_pre_drafts.copy(),
        "num_pre_drafts_right": state.total_pre_drafts_right.copy(),
        "draft_busy_s": state.draft_busy_s.copy(),
        "draft_utilization_frac": np.divide(
            state.draft_busy_s, number * on_s, out=np.full(len(number), np.nan), where=number * on_s > 0
        ),
        "draft_energy_j": drafting_energy_j(lowered, on_s),
    }


def draft_round_s(lowered: Lowered) -> FloatArray:
    """[num_engines] mean time from the end of a step until the next drafts are there; 0 without such rounds."""
    state, found = lowered.state, np.zeros(len(lowered.replicas))
    for e in np.flatnonzero(state.total_rounds).tolist():
        rows = state.row_engine == e
        found[e] = state.row_draft_wait_s[rows].sum() / state.total_rounds[e]
    return found


def drafting_energy_j(lowered: Lowered, on_s: FloatArray) -> FloatArray:
    """[num_engines] of the devices of their own that draft, their idle time included."""
    state = lowered.state
    found = np.array(state.draft_energy_j)
    for e, replica in enumerate(lowered.replicas):
        drafts = replica.remote_drafts
        if drafts is not None:
            idle_s = max(drafts.num_devices * float(on_s[e]) - float(state.draft_busy_s[e]), 0.0)
            found[e] += idle_s * drafts.device.power.idle_w
    return found


def drafting_cost_usd(lowered: Lowered, on_s: FloatArray) -> FloatArray:
    """[num_engines] rent of the devices of their own that draft."""
    prices = [0.0 if one.remote_drafts is None else one.remote_drafts.price_usd_per_h for one in lowered.replicas]
    return np.array(prices) * on_s / 3600.0


def book_messages(coordinator: Coordinator) -> None:
    """Drafts and results, which travel outside the flows: what the links carried, and each visit's share of it.

    In each round one message goes up and one comes down.
    """
    lowered, state, flows = coordinator.lowered, coordinator.state, coordinator.flows
    for e, replica in enumerate(lowered.replicas):
        drafts = replica.remote_drafts
        rounds = int(state.total_rounds[e])
        if drafts is None or rounds == 0:
            continue
        on = drafts.on
        rows = np.flatnonzero((state.row_engine == e) & (state.row_rounds > 0))
        up_bytes = state.row_rounds[rows] * on.message_overhead_bytes + state.row_sent_drafts[rows] * on.bytes_per_draft
        down_bytes = state.row_rounds[rows] * on.result_bytes
        energy_j = up_bytes * flows.energy_j(drafts.up_shares, 1.0)
        energy_j += down_bytes * flows.energy_j(drafts.down_shares, 1.0)
        visits = rows.copy()
        samples = rows >= lowered.num_visits
        visits[samples] = lowered.row_parent[rows[samples] - lowered.num_visits]
        np.add.at(coordinator.row_link_energy_j, visits, energy_j)
        begin_s, end_s = state.row_start_s[rows], state.row_finish_s[rows]
        for route, num_bytes in ((drafts.up_shares, up_bytes), (drafts.down_shares, down_bytes)):
            for start, end, amount in zip(begin_s.tolist(), end_s.tolist(), num_bytes.tolist(), strict=True):
                flows.log.add(route, start, end, amount)
            for link_id, share in zip(route.link_ids, route.share_frac, strict=True):
                use = flows.uses[link_id]
                carried = float(num_bytes.sum()) * share
                use.num_bytes += carried
                use.num_transfers += round(rounds * share)
                use.busy_s += carried / flows.links[link_id].bandwidth_bytes_per_s


def draft_wait_s(lowered: Lowered) -> FloatArray:
    """[num_visits] that a visit waited for its drafts: made, and sent to and fro."""
    number = lowered.num_visits
    if not any(replica.num_draft_devices for replica in lowered.replicas):
        return np.broadcast_to(0.0, number)
    return np.asarray(lowered.state.row_draft_wait_s[:number])


def _devices(replica: Replica) -> str:
    drafts = replica.remote_drafts
    return "" if drafts is None else f"{drafts.num_devices} x {drafts.device.name}"


def _decodes(num_sequences: int, tokens_each: int) -> dict[str, int]:
    num_tokens = num_sequences * tokens_each
    return {"num_tokens": num_tokens, "num_sampled": num_tokens, "num_draft_tokens": num_tokens - num_sequences}


def _seconds(cost: LlmCost, batch: Mapping[str, int]) -> float:
    return float(cost.seconds(StepBatch(**batch)).sum())
