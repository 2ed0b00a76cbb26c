"""Representative steps, operator by operator: what the time of an engine is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hermes_sim.core.tables import Table
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_cost import job_operator_costs
from hermes_sim.perf.operator_table import OperatorCost
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.fill_engines import job_worker
from hermes_sim.sim.lower import Lowered
from hermes_sim.stages.stage import Stage

COLUMNS = ("engine", "stage", "operator", "flops", "bytes", "time_s", "bound", "provenance")


def operator_table(lowered: Lowered) -> Table:
    """A representative step of every stage on every engine of the cluster file, operator by operator."""
    rows: list[tuple[Any, ...]] = []
    seen: set[str] = set()
    for e, replica in enumerate(lowered.replicas):
        if replica.engine.name in seen or lowered.state.num_steps[e] == 0:
            continue
        seen.add(replica.engine.name)
        if replica.cost is None:
            rows += job_operators(lowered, e)
            continue
        for stage, batch in representative_batches(lowered, e).items():
            rows += [(replica.name, stage, *operator) for operator in replica.cost.operator_table(**batch)]
    number = dict.fromkeys(("flops", "bytes", "time_s"), np.float64)
    return {
        name: np.array([row[place] for row in rows], number.get(name, object)) for place, name in enumerate(COLUMNS)
    }


def job_operators(lowered: Lowered, e: int) -> list[tuple[Any, ...]]:
    """The mean batch of every stage that a job engine has served."""
    replica = lowered.replicas[e]
    worker = job_worker(replica, lowered.scenario)
    rows: list[tuple[Any, ...]] = []
    for stage, work, _ in mean_batches(lowered, e):
        operators = job_operator_costs(work, worker)
        if not operators:  # a stage that states its time itself
            operators = [OperatorCost("stated", 0.0, 0.0, 1.0, "compute", "estimate")]
        rows += [(replica.name, stage_kind(stage), *operator) for operator in operators]
    return rows


def mean_batches(lowered: Lowered, e: int) -> Iterator[tuple[Stage, tuple[Operator, ...], int]]:
    """(stage, operators of its mean batch, number of batches) of every stage that a job engine has served."""
    state = lowered.state
    for queue, (owner, label) in enumerate(lowered.queue_stage):
        batches = int(state.total_batches[queue])
        if owner != e or batches == 0 or not label:
            continue
        stage = find_stage(lowered, label)
        units = float(state.total_units[queue])
        stated = stage.units_per_sequence(lowered.requests, lowered.scenario.seed)
        per_job = units / int(state.total_jobs[queue]) if stated is None else min(stated, units / batches)
        work = stage.work(units / batches, per_job, lowered.scenario.models)
        yield stage, work, batches


def find_stage(lowered: Lowered, label: str) -> Stage:
    """Stage by `pipeline.stage`."""
    pipeline, name = label.split(".", 1)
    plan = next(plan for plan in lowered.pipelines if plan.name == pipeline)
    return next(stage.stage for stage in plan.stages if stage.name == name)


def representative_batches(lowered: Lowered, e: int) -> dict[str, dict[str, int]]:
    """Mean decode batch and mean prompt (or chunk) of an engine, as arguments of LlmCost.operator_table."""
    found = {"prefill": mean_prompt(lowered, e), "decode": mean_decodes(lowered, e)}
    return {stage: batch for stage, batch in found.items() if batch is not None}


def mean_prompt(lowered: Lowered, e: int) -> dict[str, int] | None:
    """One prompt of mean length, or the largest chunk of it that a step takes."""
    state, replica = lowered.state, lowered.replicas[e]
    if state.total_prefill_tokens[e] == 0 or "prefill" not in replica.engine.serves:
        return None
    served = state.row_engine == e
    mean_tokens = float(state.row_prompt[served].mean()) if served.any() else 1.0
    batching: Any = replica.engine.batching
    chunk = max(1, min(round(mean_tokens), batching.max_num_batched_tokens))
    return {
        "num_tokens": chunk,
        "num_sampled": 1,
        "num_prefill": 1,
        "prefill_token_pairs": chunk * (chunk + 1) // 2,
        "prefill_context_sum": chunk,
    }


def mean_decodes(lowered: Lowered, e: int) -> dict[str, int] | None:
    """A step of decodes only, of the engine's mean batch, context and number of drafts per sequence."""
    state = lowered.state
    decode_tokens, drafted = int(state.total_decode_tokens[e]), int(state.total_drafted[e])
    sequence_steps = decode_tokens - drafted
    if sequence_steps <= 0:
        return None
    mean_batch = float(state.batch_integral_s[e] / max(state.busy_s[e], 1e-12))
    number = max(1, min(round(mean_batch), int(state.max_num_seqs[e])))
    num_tokens = round(number * decode_tokens / sequence_steps)
    context = round(int(state.total_decode_context[e]) / sequence_steps)
    return {
        "num_tokens": num_tokens,
        "num_sampled": num_tokens,
        "num_decode": number,
        "num_draft_tokens": num_tokens - number,
        "decode_context_sum": number * context,
        "decode_context_max": context,
    }
