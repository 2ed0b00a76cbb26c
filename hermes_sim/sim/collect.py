"""From the arrays at the end of a run to result tables, and the laws that every run keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import DynamicBatching
from hermes_sim.core.tables import RunTables, Table
from hermes_sim.hardware.device import Device
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_cost import Worker, job_operator_costs
from hermes_sim.perf.operator_table import OperatorCost
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.coordinator import REJECTED, Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.replicas import Replica
from hermes_sim.stages.stage import Stage
from hermes_sim.state.arrays import (
    ENERGY,
    ENGINE_TIME,
    ITL_BINS_PER_OCTAVE_LOG2,
    ITL_LOWEST_EXPONENT,
    ITL_NUM_OCTAVES,
)

FloatArray = npt.NDArray[np.float64]
STATUS = np.array(["finished", "rejected", "unfinished"], object)


def collect(coordinator: Coordinator) -> RunTables:
    """All tables of a finished run."""
    lowered, state = coordinator.lowered, coordinator.state
    check_laws(coordinator)
    duration_s = run_duration_s(coordinator)
    visits = visit_table(coordinator)
    engines = engine_table(lowered, duration_s)
    return RunTables(
        requests=request_table(coordinator, engines, visits),
        visits=visits,
        engines=engines,
        links=link_table(coordinator, duration_s),
        operators=operator_table(lowered),
        itl_edges_s=itl_edges_s(),
        itl_counts=state.itl_counts.copy(),
        duration_s=duration_s,
        num_events=coordinator.clock.num_events,
        num_steps=int(state.num_steps.sum()),
        notes=(*lowered.scenario.notes, *lowered.requests.notes),
    )


def run_duration_s(coordinator: Coordinator) -> float:
    """To the last event: an arrival, the end of a visit, the end of a step."""
    state = coordinator.state
    last_arrival_s = np.nanmax(coordinator.arrival_s, initial=0.0) if len(coordinator.arrival_s) else 0.0
    last_finish_s = np.nanmax(state.row_finish_s, initial=0.0)
    return float(max(last_arrival_s, last_finish_s))


def check_laws(coordinator: Coordinator) -> None:
    """Laws 1 to 3 of every run; a violation is our bug."""
    lowered, state = coordinator.lowered, coordinator.state
    assert len(coordinator.status) == lowered.requests.num_requests
    used = (state.block_owners > 0).sum(axis=1)
    assert (used + state.num_free_blocks == state.num_blocks).all(), "law 2: KV blocks owned + free = all"
    assert (state.load_requests == 0).all(), "law 1: requests in = requests out"
    assert (state.load_tokens[state.engine_kind == 0] == 0).all(), "law 1: every token asked for was processed"
    arrival_s, start_s, finish_s = state.row_arrival_s, state.row_start_s, state.row_finish_s
    served = ~np.isnan(start_s)
    assert (arrival_s[served] <= start_s[served]).all(), "law 3: arrival <= start"
    assert not (start_s > finish_s).any(), "law 3: start <= finish"


def itl_edges_s() -> FloatArray:
    """Edges of the gap histogram: each octave in equal parts."""
    parts = 1 << ITL_BINS_PER_OCTAVE_LOG2
    fractions = 1.0 + np.arange(parts) / parts
    octaves = 2.0 ** (ITL_LOWEST_EXPONENT + np.arange(ITL_NUM_OCTAVES))
    return np.concatenate(((octaves[:, None] * fractions).ravel(), [2.0 * octaves[-1]]))


def named(names: list[str], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Strings by index; -1 is the empty string."""
    return np.asarray(np.array([*names, ""], object)[index])


def visit_table(coordinator: Coordinator) -> Table:
    """One row per request and stage."""
    lowered, state = coordinator.lowered, coordinator.state
    number = len(lowered.row_stage)
    row_request = state.row_request[:number].astype(np.int64)
    pipeline = lowered.request_pipeline[row_request]
    names = [[stage.stage.name for stage in plan.stages] for plan in lowered.pipelines]
    kinds = [[stage_kind(stage.stage) for stage in plan.stages] for plan in lowered.pipelines]
    offset = np.concatenate(([0], np.cumsum([len(stages) for stages in names]))).astype(np.int64)
    place = offset[pipeline] + lowered.row_stage
    finish_s = state.row_finish_s[:number]
    arrival_s = state.row_arrival_s[:number]
    service = state.row_shares[:number, :4]
    served = ~np.isnan(finish_s)
    service_s = np.where(served, service.sum(axis=1), np.nan)
    preempted_s = np.where(served, state.row_preempted_s[:number], np.nan)
    queue_s = np.maximum(finish_s - arrival_s - service_s - preempted_s, 0.0)
    return {
        "request": row_request,
        "stage": named([name for stages in names for name in stages], place),
        "kind": named([kind for stages in kinds for kind in stages], place),
        "engine": named([replica.name for replica in lowered.replicas], state.row_engine[:number]),
        "arrival_s": arrival_s,
        "start_s": state.row_start_s[:number],
        "finish_s": finish_s,
        "transfer_s": coordinator.row_transfer_s,
        "queue_s": queue_s,
        "service_s": service_s,
        "compute_s": np.where(served, service[:, 0], np.nan),
        "memory_s": np.where(served, service[:, 1], np.nan),
        "network_s": np.where(served, service[:, 2], np.nan),
        "host_s": np.where(served, service[:, 3], np.nan),
        "preempted_s": preempted_s,
    }


def per_request(lowered: Lowered, values: npt.NDArray[Any], reduce: np.ufunc) -> npt.NDArray[Any]:
    """Reduce a column of visits over each request's stages."""
    if len(values) == 0:
        return values
    return np.asarray(reduce.reduceat(values, lowered.first_row[:-1]))


def request_table(coordinator: Coordinator, engines: Table, visits: Table) -> Table:
    """One row per request."""
    lowered, state = coordinator.lowered, coordinator.state
    requests = lowered.requests
    number = len(lowered.row_stage)
    kind = visits["kind"]
    finish_s = state.row_finish_s[:number]
    rejected = coordinator.status == REJECTED
    generated = np.where((kind == "prefill") | (kind == "decode"), state.row_generated[:number], 0)
    num_generated = per_request(lowered, generated, np.maximum).astype(np.int64)
    first_token_s = per_request(lowered, np.where(kind == "prefill", finish_s, np.inf), np.minimum)
    has_token = np.isfinite(first_token_s) & (num_generated > 0)
    last_s = per_request(lowered, np.where(np.isnan(finish_s), -np.inf, finish_s), np.maximum)
    prompt = per_request(lowered, np.where(kind == "prefill", state.row_prompt[:number], 0), np.maximum)
    shares = state.row_shares[:number]
    engine_s = per_request(lowered, shares[:, ENGINE_TIME], np.add)
    row_cost = shares[:, ENGINE_TIME] * cost_rates(engines)[state.row_engine[:number]]
    return {
        "request": np.arange(requests.num_requests, dtype=np.int64),
        "pipeline": named([plan.name for plan in lowered.pipelines], lowered.request_pipeline),
        "status": STATUS[coordinator.status],
        "session": requests.session.astype(np.int64),
        "arrival_s": coordinator.arrival_s,
        "first_token_s": np.where(has_token & ~rejected, first_token_s, np.nan),
        "finish_s": np.where(rejected | ~np.isfinite(last_s), np.nan, last_s),
        "num_prompt_tokens": prompt.astype(np.int64),
        "num_output_tokens": np.where(rejected, 0, num_generated),
        "num_cached_tokens": per_request(lowered, state.row_cached[:number], np.add).astype(np.int64),
        "num_clipped_tokens": lowered.num_clipped,
        "num_preemptions": per_request(lowered, state.row_preemptions[:number], np.add).astype(np.int64),
        "energy_j": per_request(lowered, shares[:, ENERGY], np.add),
        "engine_s": engine_s,
        "cost_usd": per_request(lowered, row_cost, np.add),
    }


def cost_rates(engines: Table) -> FloatArray:
    """USD per second of step time, so that an engine's whole rent falls on what it served; last: no engine."""
    busy_s = engines["busy_s"]
    rates = np.divide(engines["cost_usd"], busy_s, out=np.zeros(len(busy_s)), where=busy_s > 0)
    return np.append(rates, 0.0)


def engine_table(lowered: Lowered, duration_s: float) -> Table:
    """One row per engine instance."""
    state = lowered.state
    replicas = lowered.replicas
    counts = [flops_and_bytes(lowered, e) for e in range(len(replicas))]
    flops = np.array([count[0] for count in counts])
    moved = np.array([count[1] for count in counts])
    peak_flops = np.array([peak_flops_per_s(replica) for replica in replicas])
    peak_bytes = np.array([r.device.memory.bandwidth_bytes_per_s * r.num_devices for r in replicas])
    lanes = state.num_lanes.astype(float)
    busy_s = state.busy_s
    seconds = state.shares[:, :4]
    idle_s = np.maximum(duration_s - busy_s / lanes, 0.0)
    busy_j = (seconds * state.power_w).sum(axis=1)
    idle_j = idle_s * np.array([replica.idle_w for replica in replicas])
    hours = duration_s / 3600.0

    def over(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
        return np.divide(numerator, denominator, out=np.zeros(len(replicas)), where=denominator > 0)

    return {
        "engine": np.array([replica.name for replica in replicas], object),
        "kind": np.array(["llm" if replica.cost is not None else "batch" for replica in replicas], object),
        "serves": np.array(["+".join(replica.engine.serves) for replica in replicas], object),
        "devices": np.array([f"{replica.num_devices} x {replica.device.name}" for replica in replicas], object),
        "num_devices": np.array([replica.num_devices for replica in replicas], np.int64),
        "num_steps": state.num_steps.copy(),
        "busy_s": busy_s.copy(),
        "compute_s": seconds[:, 0].copy(),
        "memory_s": seconds[:, 1].copy(),
        "network_s": seconds[:, 2].copy(),
        "host_s": seconds[:, 3].copy(),
        "duration_s": np.full(len(replicas), duration_s),
        "utilization_frac": over(busy_s, lanes * duration_s),
        "flops": flops,
        "bytes": moved,
        "mfu_frac": over(flops, peak_flops * duration_s),
        "mbu_frac": over(moved, peak_bytes * duration_s),
        "num_prompt_tokens": state.total_prefill_tokens.copy(),
        "num_output_tokens": np.where(state.engine_kind == 0, state.total_sampled, 0),
        "num_recomputed_tokens": state.total_recomputed_tokens.copy(),
        "num_cached_tokens": state.total_cached_tokens.copy(),
        "num_preemptions": state.total_preemptions.copy(),
        "num_blocks": state.num_blocks.copy(),
        "mean_batch": over(state.batch_integral_s, busy_s),
        "mean_kv_used_frac": over(state.blocks_integral_s, busy_s * state.num_blocks),
        "peak_kv_used_frac": over(state.peak_used_blocks.astype(float), state.num_blocks.astype(float)),
        "energy_j": busy_j + idle_j,
        "cost_usd": np.array([replica.price_usd_per_h for replica in replicas]) * hours,
    }


def peak_flops_per_s(replica: Replica) -> float:
    """Dense peak of the dtype the engine computes in, all devices."""
    dtype = replica.model.activation_dtype if replica.model is not None else None
    peaks = replica.device.peak_flops_per_s
    peak = peaks.get(dtype, max(peaks.values())) if dtype is not None else best_float_peak(replica.device)
    return peak * replica.num_devices


def best_float_peak(device: Device) -> float:
    """The peak that encoders and index scans are held against: bf16 where there is one."""
    for dtype in ("bf16", "fp16", "fp32"):
        if dtype in device.peak_flops_per_s:
            return float(device.peak_flops_per_s[dtype])
    return float(max(device.peak_flops_per_s.values()))


def flops_and_bytes(lowered: Lowered, e: int) -> tuple[float, float]:
    """Arithmetic and memory traffic of all steps of an engine."""
    state, replica = lowered.state, lowered.replicas[e]
    if replica.cost is not None:
        return replica.cost.flops_bytes(
            int(state.num_steps[e]),
            int(state.total_tokens[e]),
            int(state.total_sampled[e]),
            int(state.total_decode_context[e]),
            int(state.total_prefill_pairs[e]),
            int(state.total_prefill_context[e]),
        )
    flops = moved = 0.0
    for _, work, batches in mean_batches(lowered, e):
        flops += batches * sum(operator.total_flops for operator in work)
        moved += batches * sum(operator.total_bytes for operator in work)
    return flops, moved


def find_stage(lowered: Lowered, label: str) -> Stage:
    """Stage by `pipeline.stage`."""
    pipeline, name = label.split(".", 1)
    plan = next(plan for plan in lowered.pipelines if plan.name == pipeline)
    return next(stage.stage for stage in plan.stages if stage.stage.name == name)


def link_table(coordinator: Coordinator, duration_s: float) -> Table:
    """One row per direction of a link that carried a transfer (collectives are part of steps)."""
    used = [number for number, use in enumerate(coordinator.flows.uses) if use.num_transfers > 0]
    links = [coordinator.lowered.network.links[number] for number in used]
    uses = [coordinator.flows.uses[number] for number in used]
    moved = np.array([use.num_bytes for use in uses])
    capacity = np.array([link.bandwidth_bytes_per_s for link in links]) * duration_s
    return {
        "link": np.array([link.name for link in links], object),
        "bytes": moved,
        "num_transfers": np.array([use.num_transfers for use in uses], np.int64),
        "busy_s": np.array([use.busy_s for use in uses]),
        "utilization_frac": np.divide(moved, capacity, out=np.zeros(len(links)), where=capacity > 0),
    }


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
    columns = ("engine", "stage", "operator", "flops", "bytes", "time_s", "bound", "provenance")
    number = dict.fromkeys(("flops", "bytes", "time_s"), np.float64)
    return {
        name: np.array([row[place] for row in rows], number.get(name, object)) for place, name in enumerate(columns)
    }


def job_operators(lowered: Lowered, e: int) -> list[tuple[Any, ...]]:
    """The mean batch of every stage that a job engine has served."""
    replica = lowered.replicas[e]
    batching = replica.engine.batching
    assert isinstance(batching, DynamicBatching)
    worker = Worker(replica.device, max(replica.num_cores // batching.num_workers, 1), replica.num_devices)
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
        work = stage.work(units / batches, units / int(state.total_jobs[queue]), lowered.scenario.models)
        yield stage, work, batches


def representative_batches(lowered: Lowered, e: int) -> dict[str, dict[str, int]]:
    """Mean decode batch and mean prompt (or chunk) of an engine, as arguments of LlmCost.operator_table."""
    state, replica = lowered.state, lowered.replicas[e]
    batches: dict[str, dict[str, int]] = {}
    empty = {
        "num_tokens": 0,
        "num_sampled": 0,
        "num_decode": 0,
        "decode_context_sum": 0,
        "decode_context_max": 0,
        "num_prefill": 0,
        "prefill_token_pairs": 0,
        "prefill_context_sum": 0,
    }
    prefill_tokens, decode_tokens = int(state.total_prefill_tokens[e]), int(state.total_decode_tokens[e])
    if prefill_tokens and "prefill" in replica.engine.serves:
        served = state.row_engine == e
        mean_prompt = float(state.row_prompt[served].mean()) if served.any() else 1.0
        batching: Any = replica.engine.batching
        chunk = max(1, min(round(mean_prompt), batching.max_num_batched_tokens))
        batches["prefill"] = {
            **empty,
            "num_tokens": chunk,
            "num_sampled": 1,
            "num_prefill": 1,
            "prefill_token_pairs": chunk * (chunk + 1) // 2,
            "prefill_context_sum": chunk,
        }
    if decode_tokens:
        mean_batch = float(state.batch_integral_s[e] / max(state.busy_s[e], 1e-12))
        number = max(1, min(round(mean_batch), int(state.max_num_seqs[e])))
        context = round(int(state.total_decode_context[e]) / decode_tokens)
        batches["decode"] = {
            **empty,
            "num_tokens": number,
            "num_sampled": number,
            "num_decode": number,
            "decode_context_sum": number * context,
            "decode_context_max": context,
        }
    return batches
