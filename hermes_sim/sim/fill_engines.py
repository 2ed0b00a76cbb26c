"""What the engines are, into the arrays: options, lanes, blocks, drafts, cost tables, groups, who feeds whom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np

from hermes_sim.batching import PADDINGS, QUEUE_ORDERS, DynamicBatching, TokenBatching
from hermes_sim.batching.layered_prefill import LayeredPrefill
from hermes_sim.batching.python_batching import PythonOptions
from hermes_sim.batching.speculation import ON_EARLY_EXIT, ON_GUESSED_BONUS, WITHOUT_BONUS
from hermes_sim.core.errors import SimulationError
from hermes_sim.core.rng import stream
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_arrays import on_arrays
from hermes_sim.perf.job_cost import JobCurve, activation_bytes, build_job_curve
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.perf.worker import Worker
from hermes_sim.scenario.cluster import Engine, WhileWaiting
from hermes_sim.scenario.job_memory import batch_problem, kept_passes
from hermes_sim.scenario.lora import Lora
from hermes_sim.scenario.remote_drafts import AllAccepted, EarlyExit
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.speculative import MedusaHeads
from hermes_sim.sim.engine_costs import EngineCosts
from hermes_sim.sim.plans import PipelinePlan, Queues
from hermes_sim.sim.remote_drafts import RemoteDrafts
from hermes_sim.sim.replicas import Replica, num_lanes
from hermes_sim.stages.stage import Models, Stage
from hermes_sim.state.arrays import JOBS, TOKENS, EngineArrays, empty_blocks
from hermes_sim.workload.requests import RequestTable

CURVE_POINTS = 256
"""Most points of a job's cost curve."""


def fill_engines(
    state: EngineArrays, replicas: Sequence[Replica], queues: Queues, slots: Sequence[int], seed: int
) -> None:
    """Options, lanes, blocks and cost tables. `slots`: sequences that may hold blocks, of each engine."""
    kinds: dict[int, int] = {}
    acceptance_seed = int(stream(seed, "speculative").integers(2**62))
    for e, replica in enumerate(replicas):
        engine = replica.engine
        state.num_lanes[e] = num_lanes(engine)
        state.first_queue[e] = queues.first[e]
        state.num_queues[e] = len(queues.of_engine(e))
        if isinstance(engine.batching, DynamicBatching):
            state.engine_kind[e] = JOBS
            state.max_batch_size[e] = engine.batching.max_batch_size
            state.max_wait_s[e] = engine.batching.max_wait_s
            state.power_w[e] = replica.power_w / engine.batching.num_workers  # a worker is a part of the engine
            state.num_units[e] = int(replica.runs_jobs_on_arrays)
            continue
        costs = replica.costs
        assert costs is not None
        state.engine_kind[e] = TOKENS
        state.power_w[e] = replica.power_w / engine.parallel.pp  # so is a pipeline stage
        state.stage_interval_frac[e] = costs.cost.stage_interval_frac
        fill_policy(state, e, engine.batching)
        fill_memory(state, e, engine, costs)
        empty_blocks(state, e, costs.plan.num_blocks, slots[e])
        state.num_layers[e] = costs.cost.model.num_layers
        state.cost_kind[e] = fill_cost(state, kinds, costs.cost)
        if costs.cost.placement is not None:
            state.num_units[e] = len(costs.cost.placement.units)
        if engine.lora is not None:
            fill_adapters(state, e, engine.lora, costs)
        if engine.speculative is not None:
            state.speculative_seed[e] = acceptance_seed
            fill_drafts(state, e, engine, costs, kinds)
            if replica.remote_drafts is not None:
                fill_remote_drafts(state, e, replica.remote_drafts, kinds)
        state.share_by_sums[e] = (
            num_lanes(engine) == 1
            and engine.speculative is None
            and not state.static_batch[e]
            and not state.by_layers[e]
        )


def fill_policy(state: EngineArrays, e: int, batching: TokenBatching) -> None:
    """How the engine fills its steps."""
    switches = batching.switches()
    state.max_num_seqs[e] = batching.max_num_seqs
    state.max_num_batched_tokens[e] = batching.max_num_batched_tokens
    state.prefill_threshold[e] = batching.long_prefill_token_threshold
    state.receive_every_steps[e] = batching.receive_every_steps
    state.chunk_prefill[e] = switches.chunk_prefill
    state.mix_steps[e] = switches.mix
    state.waiting_first[e] = switches.waiting_first
    state.decodes_first[e] = switches.decodes_first
    state.static_batch[e] = switches.static_batch
    state.prompt_padding[e] = PADDINGS.index(switches.padding)
    state.by_layers[e] = switches.by_layers
    if isinstance(batching, LayeredPrefill):
        state.layer_group_tokens[e] = batching.layer_group_tokens
    state.full_sequence_gate[e] = switches.full_sequence_gate
    state.queue_order[e] = QUEUE_ORDERS.index(batching.queue_order)
    state.output_reserve_frac[e] = batching.output_reserve_frac
    state.fewest_generated[e] = batching.victim == "fewest_generated"
    state.async_scheduling[e] = batching.async_scheduling
    if isinstance(batching, PythonOptions):
        state.python_policy[e] = 1
        state.num_watched[e] = 1  # what it is to decide is an event: it is never left behind


def fill_memory(state: EngineArrays, e: int, engine: Engine, costs: EngineCosts) -> None:
    """KV blocks, how they are found again, and what moving them costs."""
    kv_cache, plan = engine.kv_cache, costs.plan
    assert isinstance(engine.batching, TokenBatching)
    state.block_tokens[e] = kv_cache.block_tokens
    state.watermark_blocks[e] = int(engine.batching.watermark_frac * plan.num_blocks)
    state.prefix_caching[e] = kv_cache.prefix_caching
    state.seal_at_schedule[e] = kv_cache.insert_at == "schedule"
    state.radix[e] = kv_cache.prefix_cache == "radix"
    state.swap_blocks[e] = costs.swap_blocks
    state.swap_block_s[e] = costs.swap_block_s
    state.copy_block_s[e] = costs.copy_block_s
    state.while_waiting[e] = get_args(WhileWaiting).index(kv_cache.while_waiting)
    state.offload_blocks[e] = costs.offload_blocks
    state.full_layers[e] = plan.full_layers
    state.window_blocks[e] = plan.window_blocks
    state.window_groups[e] = plan.window_groups


def fill_adapters(state: EngineArrays, e: int, lora: Lora, costs: EngineCosts) -> None:
    """Slots for low-rank adapters, and what they cost."""
    assert costs.adapters is not None
    state.max_adapters[e] = lora.max_loras
    state.adapter_step_s[e] = costs.adapters.step_s
    state.adapter_weight_s[e] = costs.adapters.weight_s
    state.adapter_token_s[e] = costs.adapters.token_s
    state.adapter_load_s[e] = costs.adapter_load_s


def fill_drafts(state: EngineArrays, e: int, engine: Engine, costs: EngineCosts, kinds: dict[int, int]) -> None:
    """Speculative decoding: how many drafts, which are accepted, what making them here costs."""
    speculative, draft = engine.speculative, costs.draft
    assert speculative is not None
    assert isinstance(engine.batching, TokenBatching)
    table = speculative.acceptance.table(speculative.candidates)
    state.draft_tokens[e] = speculative.num_draft_tokens
    state.tree_width[e] = speculative.tree_width if speculative.tree is None else 0
    if speculative.tree is not None:
        state.draft_nodes[e, : len(speculative.nodes)] = speculative.nodes
    state.adaptive_drafts[e] = speculative.adaptive
    state.draft_max_seqs[e] = speculative.max_batch_size or engine.batching.max_num_seqs
    state.accept_kind[e] = speculative.acceptance.from_trace
    state.accept_size[e] = len(table)
    state.accept[e, : len(table)] = table
    state.draft_one_pass[e] = isinstance(speculative.draft, MedusaHeads)
    if draft is not None:
        state.draft_step_s[e] = draft.draft_step_s
        if draft.cost is not None:
            state.draft_cost_kind[e] = fill_cost(state, kinds, draft.cost)


def fill_remote_drafts(state: EngineArrays, e: int, drafts: RemoteDrafts, kinds: dict[int, int]) -> None:
    """Drafts made on devices of their own."""
    state.draft_devices[e] = drafts.num_devices
    state.draft_cost_kind[e] = fill_cost(state, kinds, drafts.cost)
    state.draft_chunk_tokens[e] = len(drafts.cost.linear) - 1
    state.draft_step_s[e] = drafts.on.host_per_pass_s
    state.draft_up_s[e] = drafts.up_s
    state.draft_up_per_token_s[e] = drafts.up_s_per_draft
    state.draft_down_s[e] = drafts.down_s
    state.draft_power_w[e] = drafts.power_w
    ahead, stop = drafts.model.pre_drafting, drafts.model.early_stop
    if isinstance(ahead, AllAccepted):
        state.pre_drafting[e] = ON_GUESSED_BONUS if ahead.bonus == "guessed" else WITHOUT_BONUS
    elif isinstance(ahead, EarlyExit):
        state.pre_drafting[e] = ON_EARLY_EXIT
        state.pre_draft_exit[e] = ahead.exit_frac
        state.pre_draft_right[e] = ahead.agreement
    if stop is not None:
        state.draft_stop_wrong[e] = stop.wrong_caught
        state.draft_stop_right[e] = stop.right_lost


def fill_cost(state: EngineArrays, kinds: dict[int, int], cost: LlmCost) -> int:
    """Copy memo tables that are not there yet, and say where they are; places beyond their ends are never read."""
    kind = kinds.get(id(cost))
    if kind is None:
        kind = kinds[id(cost)] = len(kinds)
        state.cost_linear[kind, : len(cost.linear)] = cost.linear
        state.cost_decode_linear[kind, : len(cost.decode_linear)] = cost.decode_linear
        state.cost_sampled[kind, : len(cost.sampled)] = cost.sampled
        state.cost_attention[kind, : len(cost.attention)] = cost.attention
        if cost.linear_units is not None and cost.decode_units is not None and cost.sampled_units is not None:
            state.cost_linear_units[kind, : len(cost.linear_units)] = cost.linear_units
            state.cost_decode_units[kind, : len(cost.decode_units)] = cost.decode_units
            state.cost_sampled_units[kind, : len(cost.sampled_units)] = cost.sampled_units
    return kind


def fill_curves(
    state: EngineArrays, scenario: Scenario, replicas: Sequence[Replica], queues: Queues, requests: RequestTable
) -> None:
    """Cost curves of job stages on the engines that serve them."""
    known: dict[tuple[str, str], JobCurve] = {}
    for queue, (e, label) in enumerate(queues.owners):
        stage = queues.stages[queue]
        replica = replicas[e]
        if stage is None or replica.cost is not None:
            continue
        assert isinstance(replica.engine.batching, DynamicBatching)
        max_units = stage.most_units(requests, scenario.seed) * replica.engine.batching.max_batch_size
        curve = known.get((replica.engine.name, label))
        if curve is None:
            work = partial(job_work, stage, scenario.models, units_per_job(stage, requests, scenario.seed))
            largest = max(max_units, 1.0)
            check_batch(replica, scenario, label, work(largest))
            curve = build_job_curve(work, job_worker(replica, scenario), max_units=largest)
            known[replica.engine.name, label] = curve
        number = len(curve.units)
        state.curve_num_points[queue] = number
        state.curve_units[queue, :number] = curve.units
        state.curve_seconds[queue, :number] = curve.seconds
        state.curve_demand[queue, :number] = curve.memory_demand
        state.curve_active_j[queue, :number] = curve.active_j


def check_batch(replica: Replica, scenario: Scenario, label: str, largest: tuple[Operator, ...]) -> None:
    """Raises SimulationError where the activations of the largest batch have no room beside what the engine keeps."""
    words = batch_problem(scenario, replica.engine, replica.device, replica.num_devices, activation_bytes(largest))
    if words is not None:
        raise SimulationError(f"engine '{replica.engine.name}', stage '{label}': {words}")


def job_worker(replica: Replica, scenario: Scenario) -> Worker:
    """What one batch of a job engine runs on: its part of the replica's cores, and of its arrays."""
    batching, link = replica.engine.batching, replica.link
    assert isinstance(batching, DynamicBatching)
    cores = max(replica.num_cores // batching.num_workers, 1)
    worker = Worker(replica.device, cores, replica.num_devices, link.bandwidth_bytes_per_s, link.latency_s)
    return on_arrays(worker, kept_passes(scenario, replica.engine)) if replica.runs_jobs_on_arrays else worker


def units_per_job(stage: Stage, requests: RequestTable, seed: int) -> float:
    """Mean work units of one job: encoders need the length of a sequence, not only the sum."""
    stated = stage.units_per_sequence(requests, seed)
    if stated is not None:
        return stated
    units = stage.units_of(requests, seed)
    return float(units.mean()) if len(units) and units.any() else 1.0


def job_work(stage: Stage, models: Models, per_job: float, total_units: float) -> tuple[Operator, ...]:
    """Operators of a batch of `total_units` units."""
    return stage.work(total_units, min(per_job, total_units), models)


def fill_feeds(
    state: EngineArrays, plans: Sequence[PipelinePlan], requests: RequestTable, listeners: Collection[int]
) -> None:
    """Which group's outputs can lead to a change inside which other, directly or through more stages.

    listeners: engines whose steps transfers may slow.
    """
    num_groups = len(state.group_first)
    reach = np.zeros((num_groups, num_groups), bool)

    def connect(sources: Iterable[int], targets: Iterable[int]) -> None:
        reach[np.ix_(state.group_of[list(sources)], state.group_of[list(targets)])] = True

    for plan in plans:
        for stage in plan.stages:
            for successor in working(plan, stage.successors, "successors"):
                connect(stage.candidates, plan.stages[successor].candidates)
            if stage.decode is not None and stage.may_split:
                # blocks granted over there let the KV leave from here, which frees blocks here
                connect(plan.stages[stage.decode].candidates, stage.candidates)
    if requests.closed_loop is not None or (requests.previous >= 0).any():
        # the end of a request starts another, of any pipeline
        lasts = {e for plan in plans for e in engines_of(plan, working(plan, plan.terminals, "predecessors"))}
        connect(lasts, {e for plan in plans for e in engines_of(plan, working(plan, plan.roots, "successors"))})
    connect_transfers(plans, connect, set(listeners))
    for middle in range(num_groups):
        reach |= np.outer(reach[:, middle], reach[middle])
    state.feeds[:] = reach


def connect_transfers(
    plans: Sequence[PipelinePlan], connect: Callable[[set[int], set[int]], None], listeners: set[int]
) -> None:
    """Transfers from and to KV stores and of encoders' vectors share links: whoever begins one can change when another
    comes to its engine.

    All transfers can slow the steps of those whose collectives they meet.
    """
    begin, get, split = set[int](), set[int](), set[int]()
    for plan in plans:
        for stage in plan.stages:
            engines = engines_of(plan, {n for n in (stage.prefill, stage.last_of_pass) if n is not None})
            if stage.encoded_by:  # its vectors set out when an encoder ends, and it joins the line when they come
                engines |= engines_of(plan, stage.encoded_by)
                get |= {int(e) for e in stage.candidates}
            begin |= engines
            get |= engines_of(plan, {stage.prefill} if stage.prefill is not None else ())
            if stage.decode is not None and stage.may_split:
                get |= {int(e) for e in plan.stages[stage.decode].candidates}
                split |= {int(e) for e in (*stage.candidates, *plan.stages[stage.decode].candidates)}
    if begin:
        connect(begin, get)
    if begin | split and listeners:
        connect(begin | split, listeners)


def working(plan: PipelinePlan, places: Iterable[int], onwards: Literal["successors", "predecessors"]) -> set[int]:
    """These stages; instead of those that take no time and have no engine, the next ones onwards that have."""
    found: set[int] = set()
    for place in places:
        stage = plan.stages[place]
        if stage.stage.runs_on == "nowhere":
            found |= working(plan, getattr(stage, onwards), onwards)
        else:
            found.add(place)
    return found


def engines_of(plan: PipelinePlan, places: Iterable[int]) -> set[int]:
    """Engines that serve any of these stages."""
    return {int(e) for place in places for e in plan.stages[place].candidates}
