"""From a frozen Scenario to arrays: engines, cost tables, pipelines, one row per visit. No clock here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import DynamicBatching, TokenBatching
from hermes_sim.hardware.network import Network
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.speculative import Speculative
from hermes_sim.scenario.visited import visited_stages
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.classes import draw_classes, priorities
from hermes_sim.sim.embeddings import with_encoded_tokens
from hermes_sim.sim.engine_costs import max_draft_tokens
from hermes_sim.sim.fill_engines import CURVE_POINTS, fill_curves, fill_engines, fill_feeds
from hermes_sim.sim.fill_rows import client_rows, draw_rows, fill_rows
from hermes_sim.sim.lengths import Lengths, draw_pipelines
from hermes_sim.sim.plans import PipelinePlan, Queues, plan_pipeline
from hermes_sim.sim.replicas import Replica, ReplicaBuilder, num_lanes, num_slots
from hermes_sim.sim.returns import fill_returns
from hermes_sim.sim.shared_links import SharedLinks, any_transfers, fill_groups, share_links
from hermes_sim.sim.tree_rows import TreeRows
from hermes_sim.stages.decode import Decode
from hermes_sim.state.arrays import EngineArrays, allocate
from hermes_sim.state.sequences import final_outputs
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


ARRIVALS_AT_A_TIME = 8192
"""Known arrivals that are laid out and pushed together, between two looks at progress and Ctrl-C."""


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
    request_class: IntArray
    """[num_requests] of the workload's classes; 0 where there are none."""
    first_row: IntArray
    """[num_requests + 1]: row of stage s of request r is first_row[r] + s."""
    row_stage: npt.NDArray[np.int16]
    """[num_visits] place of the stage in its pipeline."""
    row_parent: IntArray
    """[num_further_rows] visit of each further sequence (a sample, a branch of a search); their rows come after those
    of all visits."""
    is_fork: npt.NDArray[np.bool_]
    """[num_further_rows] whether its first token is drawn from the prompt of another row."""
    trees: TreeRows
    skipped: npt.NDArray[np.bool_]
    """[num_visits] not passed through: by chance, by length, by rounds; a route by load adds to it during the run."""
    draws: FloatArray
    """[num_visits] the visit's own uniform number, for routing; 0 where there is one engine."""
    num_clipped: IntArray
    """[num_requests] tokens cut off because of a model's limit."""
    num_saved: IntArray
    """[num_requests] tokens that reductions and early exits have left unwritten."""
    num_probe: IntArray
    """[num_requests] tokens of trial answers at checkpoints."""
    state: EngineArrays
    shared_links: SharedLinks
    queue_stage: tuple[tuple[int, str], ...]
    """Queue -> (engine, stage name)."""

    @property
    def num_chain_rows(self) -> int:
        """Visits, where a job may come before another stage; 0 where there are no jobs."""
        return self.num_visits if len(self.state.row_plan) > 1 else 0

    @property
    def num_visits(self) -> int:
        return len(self.row_stage)


def lower(scenario: Scenario, requests: RequestTable) -> Lowered:
    """Place engines, build cost tables, lay out rows, size the arrays. Raises HermesError where no run is possible."""
    network = Network(scenario.cluster.nodes, scenario.links, scenario.cluster.network, scenario.cluster.fabric)
    pipelines = scenario.workload.pipelines
    request_pipeline = draw_pipelines(pipelines, requests, scenario.seed)
    request_class = draw_classes(scenario.workload, request_pipeline, scenario.seed)
    if scenario.workload.classes:
        requests = replace(requests, priority=priorities(scenario.workload, request_class))
    walks = {pipeline.name: visited_stages(pipeline) for pipeline in pipelines}
    requests = with_encoded_tokens(requests, walks, request_pipeline, scenario.seed)
    lengths = Lengths.of(scenario, requests, request_pipeline, tuple(walks.values()))
    replicas = tuple(ReplicaBuilder(scenario, network, lengths).build())
    queues = Queues.of(scenario, walks, replicas)
    plans = tuple(plan_pipeline(scenario, name, stages, replicas, queues) for name, stages in walks.items())
    shared = share_links(replicas, network, any_transfers=any_transfers(scenario, plans))
    loading = engines_that_load(plans)
    slots = [num_slots(one.engine, num_samples(plans, e), loads_kv=e in loading) for e, one in enumerate(replicas)]
    clients = client_rows(requests, replicas)
    sizes = array_sizes(replicas, queues, requests, lengths, shared, slots, plans)
    state = allocate({**sizes, "clients": int(clients.max(initial=0)) + 1})
    fill_engines(state, replicas, queues, slots, scenario.seed)
    fill_groups(state, replicas, shared)
    fill_curves(state, scenario, replicas, queues, requests)
    fill_feeds(state, plans, requests, shared.listeners)
    draws = draw_rows(scenario, lengths, plans)
    fill_rows(state, scenario, requests, lengths, plans, clients)
    fill_returns(state, walks, plans, lengths, requests, replicas)
    state.seal_private_late[0] = prompts_are_private(plans)
    return Lowered(
        scenario=scenario,
        requests=requests,
        replicas=replicas,
        network=network,
        pipelines=plans,
        request_pipeline=request_pipeline,
        request_class=request_class,
        first_row=lengths.first_row,
        row_stage=lengths.row_stage,
        row_parent=lengths.parent,
        is_fork=lengths.is_fork,
        trees=lengths.trees,
        skipped=lengths.skipped,
        draws=draws,
        num_clipped=lengths.num_clipped,
        num_saved=lengths.num_saved,
        num_probe=lengths.num_probe,
        state=state,
        shared_links=shared,
        queue_stage=queues.owners,
    )


def prompts_are_private(plans: Sequence[PipelinePlan]) -> bool:
    """Whether no other visit or sample of a request can find the blocks of its own text."""
    for plan in plans:
        prefills = [stage for stage in plan.stages if stage_kind(stage.stage) == "prefill"]
        samples = [s.stage.num_samples for s in plan.stages if isinstance(s.stage, Decode)]
        if len(prefills) > 1 or max(samples, default=1) > 1:
            return False
    return True


def engines_that_load(plans: Sequence[PipelinePlan]) -> set[int]:
    """Engines that compute prompts, the first tokens of which may come from KV stores."""
    prefills = (plan.stages[one.prefill] for plan in plans for one in plan.stages if one.prefill is not None)
    return {int(e) for prefill in prefills for e in prefill.candidates}


def num_samples(plans: Sequence[PipelinePlan], e: int) -> int:
    """Most samples of one prompt that an engine decodes."""
    stages = (stage for plan in plans for stage in plan.stages if e in stage.candidates)
    return max((stage.stage.num_samples for stage in stages if isinstance(stage.stage, Decode)), default=1)


def array_sizes(
    replicas: Sequence[Replica],
    queues: Queues,
    requests: RequestTable,
    lengths: Lengths,
    shared: SharedLinks,
    slots: Sequence[int],
    plans: Sequence[PipelinePlan],
) -> dict[str, int]:
    """Dimensions of state/arrays.FIELDS."""
    jobs = [r.engine.batching for r in replicas if isinstance(r.engine.batching, DynamicBatching)]
    most_jobs = max((batching.max_batch_size for batching in jobs), default=1)
    most_slots = max(slots)
    in_step = max(len(group) for group in shared.groups)
    rows = max(num_rows(lengths, plans), 1)
    return {
        **token_sizes(replicas, lengths.longest_sequence),
        "engines": len(replicas),
        "groups": len(shared.groups),
        "resources": shared.num_columns,
        "device_sets": shared.most_sets,
        "queues": len(queues.owners),
        "lanes": max(num_lanes(replica.engine) for replica in replicas),
        "slots": most_slots,
        "jobs": most_jobs,
        "curve_points": CURVE_POINTS,
        "rows": rows,
        "draft_rows": rows if any(replica.num_draft_devices for replica in replicas) else 1,
        "returning_rows": rows if any(keeps_for_later(r.engine) for r in replicas) else 1,
        "requests": max(requests.num_requests, 1),
        "requests_and_one": max(requests.num_requests, 1) + 1,
        "hash_ids": max(len(requests.hash_ids), 1),
        **adapter_sizes(replicas, requests),
        "bulk": min(max(requests.num_requests, 1), ARRIVALS_AT_A_TIME),
        "plans": sum(len(plan.stages) for plan in plans),
        "chain_rows": max(len(lengths.row_request), 2) if any(queues.stages) else 1,
        "hand_offs": sum(lanes_of_jobs(replicas)) + in_step * (4 * most_slots + most_jobs) + 4,
        "outbox": in_step * (4 * most_slots + most_jobs) + 4,
        "decisions": in_step * 8 * most_slots + 8,
    }


def num_rows(lengths: Lengths, plans: Sequence[PipelinePlan]) -> int:
    """Visits, their further sequences, and a copy of each visit where any may be hedged."""
    hedged = any(stage.hedge is not None for plan in plans for stage in plan.stages)
    return lengths.num_rows + (len(lengths.row_request) if hedged else 0)


def adapter_sizes(replicas: Sequence[Replica], requests: RequestTable) -> dict[str, int]:
    """Dimensions that low-rank adapters set."""
    slots = max((one.engine.lora.max_loras for one in replicas if one.engine.lora is not None), default=0)
    named = 0 if requests.adapter is None or slots == 0 else int(requests.adapter.max(initial=-1)) + 1
    return {"adapters": max(named, 1), "adapter_slots": max(slots, 1)}


def lanes_of_jobs(replicas: Sequence[Replica]) -> list[int]:
    """Jobs that each job engine may end at once."""
    found = [replica.engine.batching for replica in replicas]
    return [one.num_workers * one.max_batch_size for one in found if isinstance(one, DynamicBatching)]


def keeps_for_later(engine: Engine) -> bool:
    """Whether an engine does anything of its own with the KV of requests that are away."""
    return isinstance(engine.batching, TokenBatching) and engine.kv_cache.while_waiting != "lru"


def token_sizes(replicas: Sequence[Replica], longest_sequence: int) -> dict[str, int]:
    """Dimensions that the token engines set: steps, blocks, drafts."""
    serving = [(replica, replica.costs) for replica in replicas if replica.costs is not None]
    tables: dict[int, LlmCost] = {}
    for _, costs in serving:
        tables[id(costs.cost)] = costs.cost
        if costs.draft is not None and costs.draft.cost is not None:
            tables[id(costs.draft.cost)] = costs.draft.cost
    for replica, _ in serving:
        if replica.remote_drafts is not None:
            tables[id(replica.remote_drafts.cost)] = replica.remote_drafts.cost
    blocks = max((costs.plan.num_blocks for _, costs in serving), default=0)
    block_tokens = [replica.engine.kv_cache.block_tokens for replica, _ in serving]
    drafts = max((max_draft_tokens(replica.engine) for replica, _ in serving), default=0)
    hash_slots = 2
    while hash_slots < 2 * blocks:
        hash_slots *= 2
    return {
        "cost_kinds": max(len(tables), 1),
        **unit_sizes(list(tables.values())),
        "step_tokens": max((len(cost.linear) for cost in tables.values()), default=1),
        "step_seqs": max((max(len(cost.sampled), len(cost.decode_linear)) for cost in tables.values()), default=1),
        "attention_coefficients": max((len(cost.attention) for cost in tables.values()), default=1),
        "tree_depths": max((speculative.num_draft_tokens for speculative in trees(replicas)), default=0) + 1,
        "draft_devices": max((replica.num_draft_devices for replica in replicas), default=0) or 1,
        "accept_table": max((accept_size(replica) for replica, _ in serving), default=1),
        "table_blocks": -(-(longest_sequence + drafts) // min(block_tokens)) + 1 if serving else 1,
        "window_entries": max((c.plan.window_blocks * c.plan.window_groups for _, c in serving), default=0) or 1,
        "blocks": max(blocks, 1),
        "blocks_and_sentinel": max(blocks, 1) + 1,
        "radix_blocks": max(blocks, 1) if any(r.engine.kv_cache.prefix_cache == "radix" for r, _ in serving) else 1,
        "hash_slots": hash_slots,
        "phases": max(block_tokens, default=1) + 1,
    }


def unit_sizes(tables: Sequence[LlmCost]) -> dict[str, int]:
    """Dimensions of the accounts by device group; of nothing where no engine has any."""
    with_units = [cost for cost in tables if cost.placement is not None]
    return {
        "unit_kinds": len(tables) if with_units else 1,
        "unit_tokens": max((len(cost.linear) for cost in with_units), default=1),
        "unit_seqs": max((max(len(cost.sampled), len(cost.decode_linear)) for cost in with_units), default=1),
    }


def trees(replicas: Sequence[Replica]) -> list[Speculative]:
    """Of engines whose drafts form trees."""
    found = (replica.engine.speculative for replica in replicas)
    return [speculative for speculative in found if speculative is not None and speculative.tree is not None]


def accept_size(replica: Replica) -> int:
    """Entries of the table of acceptances."""
    speculative = replica.engine.speculative
    if speculative is None:
        return 1
    return len(speculative.acceptance.table(speculative.candidates))


def planned_outputs(lowered: Lowered) -> IntArray:
    """[num_rows] tokens generated when the last visit ends that shares a row's sequence, wherever it runs."""
    final = lowered.state.row_output.astype(np.int64)
    for number, plan in enumerate(lowered.pipelines):
        first = lowered.first_row[:-1][lowered.request_pipeline == number]
        for place in reversed(range(len(plan.stages))):
            stage = plan.stages[place]
            following = stage.decode if stage.decode is not None else stage.more_decode
            if following is not None:
                final[first + place] = final[first + following]
    branched = np.flatnonzero(lowered.state.row_num_branches > 1)
    for row in branched.tolist():  # what the longest of its sequences has beyond the prompt of the first
        first_branch = int(lowered.state.row_first_sample[row])
        branches = np.arange(first_branch, first_branch + int(lowered.state.row_num_branches[row]) - 1)
        ends = lowered.state.row_prompt[branches] + final_outputs(lowered.state, branches)
        final[row] = max(int(final[row]), int(ends.max()) - int(lowered.state.row_prompt[row]))
    return np.asarray(final, np.int64)
