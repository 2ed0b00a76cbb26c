"""From a frozen Scenario to arrays: engines, cost tables, pipelines, one row per visit. No clock here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import DynamicBatching, TokenBatching
from hermes_sim.core.errors import SimulationError
from hermes_sim.core.rng import stream
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.network import Endpoint, GroupLink, Network
from hermes_sim.hardware.placement import Slots
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import kv_bytes_per_token
from hermes_sim.perf.job_cost import JobCurve, build_job_curve
from hermes_sim.perf.memory import MemoryPlan, memory_plan
from hermes_sim.perf.step_cost import LlmCost, build_llm_cost
from hermes_sim.routing import RoutingConfig
from hermes_sim.routing.router import HEAVY_THRESHOLD_TOKENS, LIGHT_SHARE, NUM_CHOICES, Router
from hermes_sim.routing.table import ROUTERS
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.window import measured_window
from hermes_sim.scenario.workload import Pipeline, stage_kind
from hermes_sim.stages.stage import Models, Stage
from hermes_sim.state.arrays import JOBS, TOKENS, WATCHED, EngineArrays, allocate, empty_blocks
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

LONGEST_STEP_TOKENS = 1 << 18
"""Cost tables end here; a step with more tokens cannot be priced."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine instance: where it is and what its steps cost."""

    name: str
    """llm[0]"""
    engine: Engine
    endpoints: tuple[Endpoint, ...]
    device: Device
    num_cores: int
    """Of all its devices together."""
    link: GroupLink
    model: ModelArchitecture | None
    plan: MemoryPlan | None
    cost: LlmCost | None
    idle_w: float
    power_w: FloatArray
    """[4] while limited by compute, memory, network, host."""
    price_usd_per_h: float

    @property
    def num_devices(self) -> int:
        return len(self.endpoints)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of a pipeline, as the coordinator walks it."""

    stage: Stage
    successors: tuple[int, ...]
    num_predecessors: int
    candidates: IntArray
    """Engines that serve it."""
    queues: Mapping[int, int]
    """Engine -> queue of this stage there."""
    router: Router
    options: FloatArray
    decode: int | None
    """Prefill: the decode stage that follows directly, if any."""
    same_engine: frozenset[int]
    """Prefill: candidates that serve that decode stage too."""


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The stages of one pipeline, in an order in which predecessors come first."""

    name: str
    stages: tuple[StagePlan, ...]
    roots: tuple[int, ...]
    terminals: tuple[int, ...]


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
    state = allocate(array_sizes(replicas, queues, requests, lengths))
    fill_engines(state, scenario, replicas, queues)
    fill_curves(state, scenario, replicas, queues, lengths)
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


def draw_pipelines(pipelines: Sequence[Pipeline], requests: RequestTable, seed: int) -> IntArray:
    """Pipeline of every request: as the trace says, else by weight; a request's draw does not depend on the others."""
    weights = np.array([pipeline.weight for pipeline in pipelines])
    edges = np.cumsum(weights / weights.sum())
    draws = stream(seed, "pipelines").random(requests.num_requests)
    drawn = np.minimum(np.searchsorted(edges, draws, side="right"), len(pipelines) - 1).astype(np.int64)
    if requests.pipeline is None:
        return drawn
    names = [pipeline.name for pipeline in pipelines]
    unknown = [name for name in requests.pipeline_names if name not in names]
    if unknown:
        raise SimulationError(f"the trace names pipeline '{unknown[0]}', the workload has {', '.join(names)}")
    known = np.array([*(names.index(name) for name in requests.pipeline_names), -1], np.int64)[requests.pipeline]
    return np.where(known >= 0, known, drawn)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of every request as the language model sees them, and the layout of rows."""

    num_prompt: IntArray
    num_output: IntArray
    num_clipped: IntArray
    num_added: IntArray
    """Tokens of retrieved documents in the prompt, before clipping."""
    request_pipeline: IntArray
    first_row: IntArray
    row_request: IntArray
    row_stage: IntArray

    @staticmethod
    def of(scenario: Scenario, requests: RequestTable, request_pipeline: IntArray) -> Lengths:
        """Add retrieved documents, clip at the model's limit, count what was cut; lay out one row per visit.

        An empty prompt still has one token to compute (the beginning of the sequence).
        """
        pipelines = scenario.workload.pipelines
        added = np.zeros(requests.num_requests, np.int64)
        for number, pipeline in enumerate(pipelines):
            members = request_pipeline == number
            for stage in pipeline.stages:
                passing = members & passes(scenario, pipeline, stage, requests.num_requests)
                added[passing] += stage.added_prompt_tokens()
        limit = np.array([context_limit(scenario, pipeline) for pipeline in pipelines], np.int64)
        wanted_prompt = np.maximum(requests.num_prompt_tokens + added, 1)
        limits = limit[request_pipeline]
        num_output = np.minimum(requests.num_output_tokens, limits - 1)
        num_prompt = np.minimum(wanted_prompt, limits - num_output)
        num_clipped = (wanted_prompt - num_prompt) + (requests.num_output_tokens - num_output)
        num_stages = np.array([len(pipeline.stages) for pipeline in pipelines], np.int64)
        per_request = num_stages[request_pipeline]
        first_row = np.concatenate(([0], np.cumsum(per_request))).astype(np.int64)
        row_request = np.repeat(np.arange(requests.num_requests), per_request)
        row_stage = np.arange(first_row[-1]) - first_row[row_request]
        return Lengths(
            num_prompt, num_output, num_clipped, added, request_pipeline, first_row, row_request, row_stage,
        )  # fmt: skip


def context_limit(scenario: Scenario, pipeline: Pipeline) -> int:
    """Longest sequence every language model that may serve this pipeline can hold."""
    limits = [
        scenario.models[engine.model].max_model_len
        for stage in pipeline.stages
        if stage.runs_on == "tokens"
        for engine in serving_engines(scenario, stage)
        if engine.model is not None
    ]
    return min(limits, default=LONGEST_STEP_TOKENS)


def serving_engines(scenario: Scenario, stage: Stage) -> list[Engine]:
    """Engines of the cluster file that serve a stage and host its model."""
    model = getattr(stage, "model", None)
    names_model = stage.runs_on == "tokens" and model is not None
    return [
        engine
        for engine in scenario.cluster.engines
        if stage_kind(stage) in engine.serves and (not names_model or engine.model == model)
    ]


def build_replicas(scenario: Scenario, network: Network, lengths: Lengths) -> tuple[Replica, ...]:
    """All engine instances, in the order of the cluster file."""
    slots = Slots(scenario.cluster.nodes, scenario.devices)
    replicas: list[Replica] = []
    costs: dict[str, tuple[MemoryPlan, LlmCost]] = {}
    nodes = {node.name: node for node in scenario.cluster.nodes}
    for engine in scenario.cluster.engines:
        wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
        placed = slots.allocate_replicas(engine.node, wants, engine.replicas)
        for number, endpoints in enumerate(placed):
            group, name = endpoints[0].node_group, endpoints[0].device_group
            device = scenario.devices[nodes[group].devices[name].profile]
            link = network.tp_link(endpoints[: engine.parallel.tp])
            cores = engine.placement[name].cores or device.num_cores * len(endpoints)
            model = scenario.models[engine.model] if engine.model is not None else None
            plan = cost = None
            if isinstance(engine.batching, TokenBatching):
                if model is None:
                    raise SimulationError(f"engine '{engine.name}' serves tokens but names no model")
                if engine.name not in costs:
                    pipeline_link = network.pp_link(endpoints, engine.parallel.tp)
                    costs[engine.name] = build_costs(engine, model, device, link, pipeline_link, lengths)
                plan, cost = costs[engine.name]
            share = cores / (device.num_cores * len(endpoints))
            power = device.power
            bound = np.array(
                [power.compute_bound_frac, power.memory_bound_frac, power.network_bound_frac, power.host_bound_frac]
            )
            replicas.append(
                Replica(
                    name=f"{engine.name}[{number}]",
                    engine=engine,
                    endpoints=tuple(endpoints),
                    device=device,
                    num_cores=cores,
                    link=link,
                    model=model,
                    plan=plan,
                    cost=cost,
                    idle_w=power.idle_w * len(endpoints) * share,
                    power_w=cost.power_w if cost is not None else power.tdp_w * bound * len(endpoints) * share,
                    price_usd_per_h=device.price_usd_per_h * len(endpoints) * share,
                )
            )
    return tuple(replicas)


def build_costs(
    engine: Engine,
    model: ModelArchitecture,
    device: Device,
    link: GroupLink,
    pipeline_link: GroupLink,
    lengths: Lengths,
) -> tuple[MemoryPlan, LlmCost]:
    """Memory plan and cost tables of one engine."""
    batching = engine.batching
    assert isinstance(batching, TokenBatching)
    kv_dtype = engine.kv_cache.dtype or model.kv_dtype
    parallel = engine.parallel
    plan = memory_plan(
        model,
        device,
        tp=parallel.tp,
        pp=parallel.pp,
        ep=parallel.ep,
        memory_fraction=engine.kv_cache.memory_fraction,
        block_tokens=engine.kv_cache.block_tokens,
        kv_dtype=kv_dtype,
        max_num_batched_tokens=batching.max_num_batched_tokens,
        max_num_seqs=batching.max_num_seqs,
        activation_reserve_bytes=engine.kv_cache.activation_reserve_bytes,
        num_gpu_blocks=engine.kv_cache.num_gpu_blocks,
    )
    longest = int((lengths.num_prompt + lengths.num_output).max(initial=1))
    max_tokens = batching.max_num_batched_tokens
    if not batching.switches().chunk_prefill:
        max_tokens = max_tokens + longest
    cost = build_llm_cost(
        model,
        device,
        tp=parallel.tp,
        pp=parallel.pp,
        ep=parallel.ep,
        max_tokens=max_tokens,
        max_seqs=batching.max_num_seqs,
        tp_bandwidth_bytes_per_s=link.bandwidth_bytes_per_s,
        tp_latency_s=link.latency_s,
        pp_bandwidth_bytes_per_s=pipeline_link.bandwidth_bytes_per_s,
        pp_latency_s=pipeline_link.latency_s,
        kv_dtype=kv_dtype,
        host_per_step_s=engine.host.per_step_s,
        host_per_sequence_s=engine.host.per_sequence_s,
        graph_capture=engine.host.graph_capture,
        max_captured_seqs=engine.host.max_captured_seqs,
    )
    return plan, cost


@dataclass(frozen=True, slots=True)
class Queues:
    """Waiting lists: one per token engine, one per (job engine, stage of the workload)."""

    owners: tuple[tuple[int, str], ...]
    first: tuple[int, ...]
    """Engine -> its first queue."""
    stages: tuple[Stage | None, ...]

    @staticmethod
    def of(scenario: Scenario, replicas: Sequence[Replica]) -> Queues:
        owners: list[tuple[int, str]] = []
        stages: list[Stage | None] = []
        first: list[int] = []
        for e, replica in enumerate(replicas):
            first.append(len(owners))
            if replica.cost is not None:
                owners.append((e, ""))
                stages.append(None)
                continue
            for pipeline in scenario.workload.pipelines:
                for stage in pipeline.stages:
                    if stage.runs_on == "jobs" and replica.engine in serving_engines(scenario, stage):
                        owners.append((e, f"{pipeline.name}.{stage.name}"))
                        stages.append(stage)
            if len(owners) == first[-1]:  # nothing in this workload is for it
                owners.append((e, ""))
                stages.append(None)
        return Queues(tuple(owners), tuple(first), tuple(stages))

    def of_engine(self, e: int) -> range:
        last = self.first[e + 1] if e + 1 < len(self.first) else len(self.owners)
        return range(self.first[e], last)


def plan_pipeline(scenario: Scenario, pipeline: Pipeline, replicas: Sequence[Replica], queues: Queues) -> PipelinePlan:
    """Successors, candidates and routers of every stage."""
    stages = list(pipeline.stages)
    place = {stage.name: number for number, stage in enumerate(stages)}
    after = [[place[name] for name in stage.after] for stage in stages]
    successors = [tuple(n for n, before in enumerate(after) if s in before) for s in range(len(stages))]
    candidates = []
    for stage in stages:
        names = {engine.name for engine in serving_engines(scenario, stage)}
        candidates.append([e for e, replica in enumerate(replicas) if replica.engine.name in names])
    plans = []
    for number, stage in enumerate(stages):
        decode = None
        if stage_kind(stage) == "prefill":
            decode = next(
                (
                    n
                    for n in successors[number]
                    if stage_kind(stages[n]) == "decode" and after[n] == [number] and stages[n].probability == 1.0
                ),
                None,
            )
        routing = scenario.cluster.routing_per_stage.get(
            stage.name, scenario.cluster.routing_per_stage.get(stage_kind(stage), scenario.cluster.routing)
        )
        label = f"{pipeline.name}.{stage.name}"
        plans.append(
            StagePlan(
                stage=stage,
                successors=successors[number],
                num_predecessors=len(after[number]),
                candidates=np.array(candidates[number], np.int64),
                queues={
                    e: next((q for q in queues.of_engine(e) if queues.owners[q][1] == label), queues.first[e])
                    for e in candidates[number]
                },
                router=ROUTERS[routing.kind],
                options=router_options(routing),
                decode=decode,
                same_engine=frozenset(candidates[number]) & frozenset(candidates[decode])
                if decode is not None
                else frozenset(),
            )
        )
    return PipelinePlan(
        name=pipeline.name,
        stages=tuple(plans),
        roots=tuple(n for n, before in enumerate(after) if not before),
        terminals=tuple(n for n in range(len(stages)) if not successors[n]),
    )


def router_options(routing: RoutingConfig) -> FloatArray:
    """Options as the compiled routers read them."""
    options = np.zeros(3)
    options[HEAVY_THRESHOLD_TOKENS] = routing.heavy_threshold_tokens
    options[LIGHT_SHARE] = routing.light_share_frac
    options[NUM_CHOICES] = routing.choices
    return options


def num_slots(engine: Engine) -> int:
    """Sequences that may hold blocks: running ones, and as many whose KV is on its way."""
    batching = engine.batching
    if not isinstance(batching, TokenBatching):
        return 1
    both = {"prefill", "decode"} <= set(engine.serves)
    return batching.max_num_seqs * (1 if both else 2)


def num_lanes(engine: Engine) -> int:
    """Steps in flight: pipeline stages of a token engine, workers of a job engine."""
    if isinstance(engine.batching, DynamicBatching):
        return engine.batching.num_workers
    return engine.parallel.pp


def array_sizes(
    replicas: Sequence[Replica], queues: Queues, requests: RequestTable, lengths: Lengths
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
        "groups": len(contention_groups(replicas)),
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


def contention_groups(replicas: Sequence[Replica]) -> list[list[int]]:
    """Engines that share a device, together: they compete for its memory bandwidth. Others stand alone."""
    owner: dict[Endpoint, int] = {}
    group_of: list[int] = []
    members: dict[int, list[int]] = {}
    for e, replica in enumerate(replicas):
        found = sorted({owner[endpoint] for endpoint in replica.endpoints if endpoint in owner})
        target = found[0] if found else e
        for other in found[1:]:
            for member in members.pop(other):
                group_of[member] = target
                members[target].append(member)
        owner.update((endpoint, target) for endpoint in owner if owner[endpoint] in found)
        owner.update(dict.fromkeys(replica.endpoints, target))
        group_of.append(target)
        members.setdefault(target, []).append(e)
    return [sorted(members[key]) for key in sorted(members)]


def fill_engines(state: EngineArrays, scenario: Scenario, replicas: Sequence[Replica], queues: Queues) -> None:
    """What the engines are: options, lanes, blocks, cost tables, groups."""
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
    for number, members in enumerate(contention_groups(replicas)):
        first = sum(len(group) for group in contention_groups(replicas)[:number])
        state.group_first[number] = first
        state.group_size[number] = len(members)
        state.group_members[first : first + len(members)] = members
        state.group_of[members] = number
        lanes = int(state.num_lanes[members].sum())
        jobs = bool((state.engine_kind[members] == JOBS).any())
        state.group_contended[number] = lanes > 1 and (jobs or len(members) > 1)


def fill_cost(state: EngineArrays, kind: int, cost: LlmCost) -> None:
    """Copy one engine kind's memo tables; the places beyond them are never read."""
    state.cost_linear[kind, : len(cost.linear)] = cost.linear
    state.cost_decode_linear[kind, : len(cost.decode_linear)] = cost.decode_linear
    state.cost_sampled[kind, : len(cost.sampled)] = cost.sampled
    state.cost_attention[kind, : len(cost.attention)] = cost.attention


def fill_curves(
    state: EngineArrays, scenario: Scenario, replicas: Sequence[Replica], queues: Queues, lengths: Lengths
) -> None:
    """Cost curves of job stages on the engines that serve them."""
    longest_prompt = np.array([int(lengths.num_prompt.max(initial=1))], np.int64)
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
                partial(job_work, stage, scenario.models, units_per_job(stage, lengths)),
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


def units_per_job(stage: Stage, lengths: Lengths) -> float:
    """Mean work units of one job: encoders need the length of a sequence, not only the sum."""
    units = stage.units(lengths.num_prompt)
    return float(units.mean()) if len(units) and units.any() else 1.0


def job_work(stage: Stage, models: Models, per_job: float, total_units: float) -> tuple[Operator, ...]:
    """Operators of a batch of `total_units` units."""
    return stage.work(total_units, min(per_job, total_units), models)


def fill_feeds(state: EngineArrays, plans: Sequence[PipelinePlan], requests: RequestTable) -> None:
    """Which group's completions can lead to a push into which other, directly or through more stages.

    In closed loops and sessions the end of a request starts another, of any pipeline.
    """
    num_groups = len(state.group_first)
    direct = np.zeros((num_groups, num_groups), bool)
    for plan in plans:
        for stage in plan.stages:
            for successor in stage.successors:
                for source in stage.candidates:
                    for target in plan.stages[successor].candidates:
                        direct[state.group_of[source], state.group_of[target]] = True
    if requests.closed_loop is not None or (requests.previous >= 0).any():
        lasts = {int(e) for plan in plans for last in plan.terminals for e in plan.stages[last].candidates}
        firsts = {int(e) for plan in plans for first in plan.roots for e in plan.stages[first].candidates}
        for source in lasts:
            for target in firsts:
                direct[state.group_of[source], state.group_of[target]] = True
    reach = direct.copy()
    for middle in range(num_groups):
        reach |= np.outer(reach[:, middle], reach[middle])
    state.feeds[:] = reach


def passes(scenario: Scenario, pipeline: Pipeline, stage: Stage, num_requests: int) -> npt.NDArray[np.bool_]:
    """Which requests a stage's probability lets through; a request's draw does not depend on the others."""
    if stage.probability >= 1.0:
        return np.ones(num_requests, bool)
    return stream(scenario.seed, f"probability {pipeline.name}.{stage.name}").random(num_requests) < stage.probability


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


def kv_transfer_bytes(replica: Replica, num_tokens: int) -> float:
    """KV cache of a prompt, all layers and shards, as this engine stores it."""
    assert replica.model is not None
    dtype = replica.engine.kv_cache.dtype or replica.model.kv_dtype
    return num_tokens * kv_bytes_per_token(replica.model, dtype)
