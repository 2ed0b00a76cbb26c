"""What each visit brings, into the arrays: tokens, units of work, who watches its end, identity of its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import TokenBatching
from hermes_sim.core.rng import stream
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.window import measured_window
from hermes_sim.sim.lengths import Lengths
from hermes_sim.sim.plans import PipelinePlan
from hermes_sim.sim.replicas import Replica
from hermes_sim.sim.sample_rows import Samples
from hermes_sim.state.arrays import WATCHED, EngineArrays
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def draw_rows(scenario: Scenario, lengths: Lengths, plans: Sequence[PipelinePlan]) -> FloatArray:
    """One number per visit for routing; a visit that one engine only can serve has none."""
    num_requests = len(lengths.num_clipped)
    draws = np.zeros(len(lengths.row_request))
    for number, plan in enumerate(plans):
        members = np.flatnonzero(lengths.request_pipeline == number)
        for place, stage in enumerate(plan.stages):
            if len(stage.candidates) > 1:
                name = stage.name if stage.round == 0 else f"{stage.name} {stage.round}"
                drawn = stream(scenario.seed, f"routing {plan.name}.{name}").random(num_requests)
                draws[lengths.first_row[members] + place] = drawn[members]
    return draws


def fill_rows(
    state: EngineArrays,
    scenario: Scenario,
    requests: RequestTable,
    lengths: Lengths,
    plans: Sequence[PipelinePlan],
    clients: IntArray,
) -> None:
    """What each visit and each sample brings, who watches its end, the identity of its prompt blocks."""
    number = len(lengths.row_request)
    state.row_request[:number] = lengths.row_request
    state.row_prompt[:number] = lengths.row_prompt
    state.row_output[:number] = lengths.row_output
    if (lengths.row_text >= 0).any():
        state.row_text[:number] = lengths.row_text
        state.row_common[:number] = lengths.row_common
    if requests.priority.any():  # memory that is never written to is never taken
        state.row_priority[:number] = requests.priority[lengths.row_request]
    if clients.any():
        state.row_client[:number] = clients[lengths.row_request]
    if requests.adapter is not None and state.max_adapters.any():
        state.row_adapter[:number] = requests.adapter[lengths.row_request] + 1
    fill_samples(state, number, lengths.samples)
    has_follower = np.zeros(requests.num_requests, bool)
    has_follower[requests.previous[requests.previous >= 0]] = True
    if requests.closed_loop is not None or scenario.follows_requests:
        has_follower[:] = True
    for pipeline, plan in enumerate(plans):
        members = np.flatnonzero(lengths.request_pipeline == pipeline)
        for place, stage_plan in enumerate(plan.stages):
            rows = lengths.first_row[members] + place
            stage = stage_plan.stage
            watchers = [s for s in stage_plan.successors if s not in (stage_plan.decode, stage_plan.more_decode)]
            if watchers or stage_plan.written_by is not None or stage_plan.hedge is not None:
                state.row_flags[rows] |= WATCHED
            if place in plan.terminals:
                state.row_flags[rows[has_follower[members]]] |= WATCHED
            if stage.runs_on == "jobs":
                state.row_units[rows] = stage.units_of(requests, scenario.seed)[members]
                seconds = stage.service_times_s(requests.num_requests, scenario.seed, stage_plan.round)
                if seconds is not None:
                    state.row_seconds[rows] = seconds[members]
            elif stage_plan.decode is not None and set(stage_plan.candidates) <= stage_plan.same_engine:
                state.row_continues_as[rows] = lengths.first_row[members] + stage_plan.decode
            elif stage_plan.more_decode is not None:
                state.row_continues_as[rows] = lengths.first_row[members] + stage_plan.more_decode
    lengths.trees.fill(state)
    state.itl_window_s[:] = gap_window_s(scenario, requests)
    count = requests.num_requests
    if (requests.prefix_group >= 0).any():
        state.content_group[:count] = requests.prefix_group
        state.content_group_tokens[:count] = np.where(requests.prefix_group >= 0, requests.prefix_tokens, 0)
    if (requests.session >= 0).any():
        state.content_session[:count] = np.where(lengths.has_added, -1, requests.session)
    if len(requests.hash_ids) > 0:
        state.hash_offsets[: count + 1] = requests.hash_offsets
        state.hash_ids[: len(requests.hash_ids)] = requests.hash_ids
    state.hash_block_tokens[0] = requests.hash_block_tokens
    if requests.adapter is not None and state.max_adapters.any():
        tell_adapters_apart(state, requests)


def tell_adapters_apart(state: EngineArrays, requests: RequestTable) -> None:
    """KV of one text through two adapters is not the same: prefixes and blocks of content are each adapter's own."""
    assert requests.adapter is not None
    number, count = int(requests.adapter.max(initial=-1)) + 2, requests.num_requests
    own = requests.adapter + 1
    group = state.content_group[:count]
    state.content_group[:count] = np.where(group >= 0, group * number + own, group)
    if len(requests.hash_ids) > 0:
        of_ids = np.repeat(own, np.diff(requests.hash_offsets))
        state.hash_ids[: len(of_ids)] = requests.hash_ids * number + of_ids


def fill_samples(state: EngineArrays, num_visits: int, samples: Samples) -> None:
    """Rows of further samples behind those of the visits; a sampled visit is as long as its longest sample."""
    visit, parent = samples.visit, samples.parent
    state.row_output[visit] = samples.longest
    state.row_first_sample[visit] = num_visits + samples.first
    state.row_num_samples[visit] = state.row_open_samples[visit] = samples.num_others + 1
    rows = slice(num_visits, num_visits + len(parent))
    state.row_parent[rows] = parent
    state.row_output[rows] = samples.output
    for column in (state.row_request, state.row_prompt, state.row_priority, state.row_client, state.row_adapter):
        column[rows] = column[parent]
    state.row_text[rows] = np.arange(num_visits, num_visits + len(parent))
    state.row_common[rows] = state.row_prompt[parent]


def client_rows(requests: RequestTable, replicas: Sequence[Replica]) -> IntArray:
    """[num_requests] client of each request, 0, 1, ... in any order; all 0 where no engine asks.

    A request without a client of its own is its session's, and without a session one of all such requests.
    """
    orders = {r.engine.batching.queue_order for r in replicas if isinstance(r.engine.batching, TokenBatching)}
    if "fair_share" not in orders:
        return np.zeros(requests.num_requests, np.int64)
    client = np.full(requests.num_requests, -1) if requests.client is None else requests.client
    others = np.where(requests.session >= 0, client.max(initial=-1) + 1 + requests.session, -1)
    _, number = np.unique(np.where(client >= 0, client, others), return_inverse=True)
    return np.asarray(number, np.int64)


def gap_window_s(scenario: Scenario, requests: RequestTable) -> tuple[float, float]:
    """When gaps between tokens are counted: the measured window, if all arrivals are known before the run."""
    if np.isnan(requests.arrival_s).any():
        return 0.0, np.inf
    window = measured_window(requests.arrival_s, np.inf, scenario.workload.measure)
    return window.start_s, window.end_s
