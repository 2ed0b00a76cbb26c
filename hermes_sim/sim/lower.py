"""From a frozen Scenario to arrays: engines, cost tables, pipelines, one row per visit. No clock here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import DynamicBatching
from hermes_sim.core.rng import stream
from hermes_sim.hardware.network import Network
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_cost import JobCurve, build_job_curve
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.window import measured_window
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.lengths import Lengths, draw_pipelines, passes
from hermes_sim.sim.plans import PipelinePlan, Queues, plan_pipeline
from hermes_sim.sim.replicas import Replica, build_replicas, contention_groups, num_lanes, num_slots
from hermes_sim.stages.stage import Models, Stage
from hermes_sim.state.arrays import JOBS, TOKENS, WATCHED, EngineArrays, allocate, empty_blocks
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lowered:
    """Everything a run needs."""

    scenario: Scenario
    requests: RequestTable
    replicas: tuple[Replica, ...]
    network: Network
    pipelines: tuple[PipelinePlan, ...]
    request_pipeline: IntArray
    """[num_requests]"""
    first_row: IntArray
    """[num_requests + 1]: row of stage s of request r is first_row[r] + s."""
    row_stage: IntArray
    """[num_rows] place of the stage in its pipeline."""
    skipped: npt.NDArray[np.bool_]
    """[num_rows] drawn not to pass through (stage probability)."""
    draws: FloatArray
    """[num_rows] the visit's own uniform number, for routing."""
    num_clipped: IntArray
    """[num_requests] tokens cut off because of a model's limit."""
    state: EngineArrays
    queue_stage: tuple[tuple[int, str], ...]
    """Queue -> (engine, stage name)."""


def lower(scenario: Scenario, requests: RequestTable) -> Lowered:
    """Place engines, build cost tables, lay out rows, size the arrays. Raises HermesError where no run is possible."""
    network = Network(scenario.cluster.nodes, scenario.links, scenario.cluster.network)
    pipelines = scenario.workload.pipelines
    request_pipeline = draw_pipelines(pipelines, requests, scenario.seed)
    lengths = Lengths.of(scenario, requests, request_pipeline)
    replicas = build_replicas(scenario, network, lengths)
    queues = Queues.of(scenario, replicas)
    plans = tuple(plan_pipeline(scenario, pipeline, replicas, queues) for pipeline in pipelines)
    groups = contention_groups(replicas)
    state = allocate(array_sizes(replicas, queues, requests, lengths, len(groups)))
    fill_engines(state, replicas, queues)
    fill_groups(state, groups)
    fill_curves(state, scenario, replicas, queues, requests)
    fill_feeds(state, plans, requests)
    draws, skipped = draw_rows(scenario, lengths, plans)
    fill_rows(state, scenario, requests, lengths, plans)
    return Lowered(
        scenario=scenario,
        requests=requests,
        replicas=replicas,
        network=network,
        pipelines=plans,
        request_pipeline=request_pipeline,
        first_row=lengths.first_row,
        row_stage=lengths.row_stage,
        skipped=skipped,
        draws=draws,
        num_clipped=lengths.num_clipped,
        state=state,
        queue_stage=queues.owners,
    )


def array_sizes(
    replicas: Sequence[Replica], queues: Queues, requests: RequestTable, lengths: Lengths, num_groups: int
) -> dict[str, int]:
    """Dimensions of state/arrays.FIELDS."""
    costs = [replica.cost for replica in replicas if replica.cost is not None]
    jobs = [r.engine.batching for r in replicas if isinstance(r.engine.batching, DynamicBatching)]
    blocks = max((r.plan.num_blocks for r in replicas if r.plan is not None), default=0)
    block_tokens = [r.engine.kv_cache.block_tokens for r in replicas if r.cost is not None]
    longest = int((lengths.num_prompt + lengths.num_output).max(initial=1))
    slots = max(num_slots(replica.engine) for replica in replicas)
    hash_slots = 2
    while hash_slots < 2 * blocks:
        hash_slots *= 2
    return {
        "engines": len(replicas),
        "groups": num_groups,
        "queues": len(queues.owners),
        "lanes": max(num_lanes(replica.engine) for replica in replicas),
        "slots": slots,
        "jobs": max((batching.max_batch_size for batching in jobs), default=1),
        "cost_kinds": max(len({id(cost) for cost in costs}), 1),
        "step_tokens": max((len(cost.linear) for cost in costs), default=1),
        "step_seqs": max((max(len(cost.sampled), len(cost.decode_linear)) for cost in costs), default=1),
        "attention_coefficients": max((len(cost.attention) for cost in costs), default=1),
        "curve_points": CURVE_POINTS,
        "table_blocks": -(-longest // min(block_tokens, default=1)) + 1 if costs else 1,
        "blocks": max(blocks, 1),
        "blocks_and_sentinel": max(blocks, 1) + 1,
        "hash_slots": hash_slots,
        "rows": max(len(lengths.row_request), 1),
        "requests": max(requests.num_requests, 1),
        "requests_and_one": max(requests.num_requests, 1) + 1,
        "hash_ids": max(len(requests.hash_ids), 1),
        "outbox": 4 * slots + max((batching.max_batch_size for batching in jobs), default=1) + 4,
        "phases": max(block_tokens, default=1) + 1,
    }


CURVE_POINTS = 256
"""Most points of a job's cost curve."""


def fill_engines(state: EngineArrays, replicas: Sequence[Replica], queues: Queues) -> None:
    """What the engines are: options, lanes, blocks, cost tables."""
    kinds: dict[int, int] = {}
    for e, replica in enumerate(replicas):
        engine = replica.engine
        state.num_lanes[e] = num_lanes(engine)
        state.first_queue[e] = queues.first[e]
        state.num_queues[e] = len(queues.of_engine(e))
        state.power_w[e] = replica.power_w / num_lanes(engine)  # a lane is a part of the engine
        if isinstance(engine.batching, DynamicBatching):
            state.engine_kind[e] = JOBS
            state.max_batch_size[e] = engine.batching.max_batch_size
            state.max_wait_s[e] = engine.batching.max_wait_s
            continue
        assert replica.cost is not None
        assert replica.plan is not None
        batching, switches = engine.batching, engine.batching.switches()
        state.engine_kind[e] = TOKENS
        state.max_num_seqs[e] = batching.max_num_seqs
        state.max_num_batched_tokens[e] = batching.max_num_batched_tokens
        state.prefill_threshold[e] = batching.long_prefill_token_threshold
        state.block_tokens[e] = engine.kv_cache.block_tokens
        state.watermark_blocks[e] = int(batching.watermark_frac * replica.plan.num_blocks)
        state.chunk_prefill[e] = switches.chunk_prefill
        state.full_sequence_gate[e] = switches.full_sequence_gate
        state.by_priority[e] = batching.queue_order == "priority"
        state.prefix_caching[e] = engine.kv_cache.prefix_caching
        state.stage_interval_frac[e] = replica.cost.stage_interval_frac
        empty_blocks(state, e, replica.plan.num_blocks, num_slots(engine))
        kind = kinds.setdefault(id(replica.cost), len(kinds))
        state.cost_kind[e] = kind
        fill_cost(state, kind, replica.cost)


def fill_groups(state: EngineArrays, groups: Sequence[Sequence[int]]) -> None:
    """Engines that share a device move together, in time order."""
    first = 0
    for number, group in enumerate(groups):
        members = list(group)
        state.group_first[number] = first
        state.group_size[number] = len(members)
        state.group_members[first : first + len(members)] = members
        state.group_of[members] = number
        lanes = int(state.num_lanes[members].sum())
        jobs = bool((state.engine_kind[members] == JOBS).any())
        state.group_contended[number] = lanes > 1 and (jobs or len(members) > 1)
        first += len(members)


def fill_cost(state: EngineArrays, kind: int, cost: LlmCost) -> None:
    """Copy one engine kind's memo tables; the places beyond them are never read."""
    state.cost_linear[kind, : len(cost.linear)] = cost.linear
    state.cost_decode_linear[kind, : len(cost.decode_linear)] = cost.decode_linear
    state.cost_sampled[kind, : len(cost.sampled)] = cost.sampled
    state.cost_attention[kind, : len(cost.attention)] = cost.attention


def fill_curves(
    state: EngineArrays, scenario: Scenario, replicas: Sequence[Replica], queues: Queues, requests: RequestTable
) -> None:
    """Cost curves of job stages on the engines that serve them."""
    longest_prompt = np.array([int(requests.num_prompt_tokens.max(initial=1))], np.int64)
    known: dict[tuple[str, str], JobCurve] = {}
    for queue, (e, label) in enumerate(queues.owners):
        stage = queues.stages[queue]
        replica = replicas[e]
        if stage is None or replica.cost is not None:
            continue
        assert isinstance(replica.engine.batching, DynamicBatching)
        workers = replica.engine.batching.num_workers
        max_units = float(stage.units(longest_prompt)[0]) * replica.engine.batching.max_batch_size
        curve = known.get((replica.engine.name, label))
        if curve is None:
            curve = build_job_curve(
                partial(job_work, stage, scenario.models, units_per_job(stage, requests)),
                replica.device,
                cores=max(replica.num_cores // workers, 1),
                num_devices=replica.num_devices,
                max_units=max(max_units, 1.0),
            )
            known[replica.engine.name, label] = curve
        number = len(curve.units)
        state.curve_num_points[queue] = number
        state.curve_units[queue, :number] = curve.units
        state.curve_seconds[queue, :number] = curve.seconds
        state.curve_demand[queue, :number] = curve.memory_demand


def units_per_job(stage: Stage, requests: RequestTable) -> float:
    """Mean work units of one job: encoders need the length of a sequence, not only the sum."""
    units = stage.units(requests.num_prompt_tokens)
    return float(units.mean()) if len(units) and units.any() else 1.0


def job_work(stage: Stage, models: Models, per_job: float, total_units: float) -> tuple[Operator, ...]:
    """Operators of a batch of `total_units` units."""
    return stage.work(total_units, min(per_job, total_units), models)


def fill_feeds(state: EngineArrays, plans: Sequence[PipelinePlan], requests: RequestTable) -> None:
    """Which group's outputs can lead to a change inside which other, directly or through more stages."""
    num_groups = len(state.group_first)
    reach = np.zeros((num_groups, num_groups), bool)

    def connect(sources: Iterable[int], targets: Iterable[int]) -> None:
        reach[np.ix_(state.group_of[list(sources)], state.group_of[list(targets)])] = True

    for plan in plans:
        for stage in plan.stages:
            for successor in stage.successors:
                connect(stage.candidates, plan.stages[successor].candidates)
            if stage.decode is not None and len(stage.same_engine) < len(stage.candidates):
                # blocks granted over there let the KV leave from here, which frees blocks here
                connect(plan.stages[stage.decode].candidates, stage.candidates)
    if requests.closed_loop is not None or (requests.previous >= 0).any():
        # the end of a request starts another, of any pipeline
        lasts = {int(e) for plan in plans for last in plan.terminals for e in plan.stages[last].candidates}
        connect(lasts, {int(e) for plan in plans for first in plan.roots for e in plan.stages[first].candidates})
    for middle in range(num_groups):
        reach |= np.outer(reach[:, middle], reach[middle])
    state.feeds[:] = reach


def draw_rows(
    scenario: Scenario, lengths: Lengths, plans: Sequence[PipelinePlan]
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """One number per visit for routing, and which visits are left out because of a stage's probability.

    A decode is left out with its prefill.
    """
    num_requests = len(lengths.num_prompt)
    draws = np.zeros(len(lengths.row_request))
    skipped = np.zeros(len(lengths.row_request), bool)
    for number, pipeline in enumerate(scenario.workload.pipelines):
        members = np.flatnonzero(lengths.request_pipeline == number)
        for place, stage in enumerate(pipeline.stages):
            rows = lengths.first_row[members] + place
            draws[rows] = stream(scenario.seed, f"routing {pipeline.name}.{stage.name}").random(num_requests)[members]
            left_out = ~passes(scenario, pipeline, stage, num_requests)[members]
            skipped[rows] |= left_out
            decode = plans[number].stages[place].decode
            if decode is not None:
                skipped[lengths.first_row[members] + decode] |= left_out
    return draws, skipped


def fill_rows(
    state: EngineArrays,
    scenario: Scenario,
    requests: RequestTable,
    lengths: Lengths,
    plans: Sequence[PipelinePlan],
) -> None:
    """What each visit brings: tokens, units of work, who watches its end, identity of its prompt blocks."""
    number = len(lengths.row_request)
    state.row_request[:number] = lengths.row_request
    state.row_prompt[:number] = lengths.num_prompt[lengths.row_request]
    state.row_output[:number] = lengths.num_output[lengths.row_request]
    state.row_priority[:number] = requests.priority[lengths.row_request]
    has_follower = np.zeros(requests.num_requests, bool)
    has_follower[requests.previous[requests.previous >= 0]] = True
    if requests.closed_loop is not None:
        has_follower[:] = True
    for pipeline, plan in enumerate(plans):
        members = np.flatnonzero(lengths.request_pipeline == pipeline)
        for place, stage_plan in enumerate(plan.stages):
            rows = lengths.first_row[members] + place
            stage = stage_plan.stage
            watchers = [s for s in stage_plan.successors if s != stage_plan.decode]
            if watchers:
                state.row_flags[rows] |= WATCHED
            if place in plan.terminals:
                state.row_flags[rows[has_follower[members]]] |= WATCHED
            if stage.runs_on == "jobs":
                state.row_units[rows] = stage.units(requests.num_prompt_tokens)[members]
                seconds = stage.service_times_s(requests.num_requests, scenario.seed)
                if seconds is not None:
                    state.row_seconds[rows] = seconds[members]
            elif stage_plan.decode is None and stage_kind(stage) == "prefill":
                state.row_output[rows] = np.minimum(state.row_output[rows], 1)
            elif stage_plan.decode is not None and set(stage_plan.candidates) <= stage_plan.same_engine:
                state.row_continues_as[rows] = lengths.first_row[members] + stage_plan.decode
    state.itl_window_s[:] = gap_window_s(scenario, requests)
    count = requests.num_requests
    state.content_group[:count] = requests.prefix_group
    state.content_group_tokens[:count] = np.where(requests.prefix_group >= 0, requests.prefix_tokens, 0)
    state.content_session[:count] = np.where(lengths.num_added > 0, -1, requests.session)
    state.hash_offsets[: count + 1] = requests.hash_offsets
    state.hash_ids[: len(requests.hash_ids)] = requests.hash_ids
    state.hash_block_tokens[0] = requests.hash_block_tokens


def gap_window_s(scenario: Scenario, requests: RequestTable) -> tuple[float, float]:
    """When gaps between tokens are counted: the measured window, if all arrivals are known before the run."""
    if np.isnan(requests.arrival_s).any():
        return 0.0, np.inf
    window = measured_window(requests.arrival_s, np.inf, scenario.workload.measure)
    return window.start_s, window.end_s
