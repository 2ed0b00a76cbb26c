"""Totals of every engine over the run, and the same amounts over time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.hardware.device import Device
from hermes_sim.sim.collect_costs import engine_costs
from hermes_sim.sim.collect_numbers import mean_numbers
from hermes_sim.sim.collect_speculation import (
    draft_columns,
    drafting_cost_usd,
    drafting_energy_j,
    speculation_speedup,
)
from hermes_sim.sim.collect_timeline import Timeline, over, share
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.replicas import Replica
from hermes_sim.state.arrays import (
    TIMELINE_ACCEPTED,
    TIMELINE_BATCH_INTEGRAL_S,
    TIMELINE_BLOCKS_INTEGRAL_S,
    TIMELINE_BUSY_S,
    TIMELINE_COMPUTE_S,
    TIMELINE_DRAFTED,
    TIMELINE_HIT_BLOCKS,
    TIMELINE_HOST_S,
    TIMELINE_LOOKED_UP_BLOCKS,
    TIMELINE_MEMORY_S,
    TIMELINE_NETWORK_S,
    TIMELINE_PREEMPTIONS,
    TIMELINE_STEPS,
    TIMELINE_TOKENS,
    UNIT_J,
)

FloatArray = npt.NDArray[np.float64]


def engine_table(coordinator: Coordinator, timeline: Timeline) -> Table:
    """One row per engine instance; every rank of a data-parallel replica is one."""
    lowered = coordinator.lowered
    state, replicas = lowered.state, lowered.replicas
    duration_s = float(timeline.edges_s[-1])
    flops, moved = timeline.flops.sum(axis=1), timeline.bytes.sum(axis=1)
    lanes = state.num_lanes.astype(float)
    busy_s, seconds = state.busy_s, state.shares[:, :4]
    on_s = coordinator.on_s(duration_s)
    idle_s = np.maximum(on_s - busy_s / lanes, 0.0)
    busy_j = coordinator.speeds.busy_energy_j() + state.unit_sums[:, UNIT_J:].sum(axis=1)
    idle_j = idle_s * np.array([replica.idle_w for replica in replicas])
    energy_j = busy_j + idle_j + drafting_energy_j(lowered, on_s)
    costs = engine_costs(lowered, timeline, energy_j, on_s)
    costs["cost_usd"] = costs["cost_usd"] + drafting_cost_usd(lowered, on_s)
    drafted, accepted = state.total_drafted, state.total_accepted
    looked_up, hit = state.total_looked_up_blocks, state.total_hit_blocks
    decodes = (state.total_decode_tokens - drafted).astype(float)
    tokenizers, detokenizers = worker_utilization(coordinator, duration_s)
    return {
        "engine": engine_names(lowered),
        "kind": np.array(["llm" if replica.cost is not None else "batch" for replica in replicas], object),
        "serves": np.array(["+".join(replica.engine.serves) for replica in replicas], object),
        "devices": np.array([devices_of(replica) for replica in replicas], object),
        "num_devices": np.array([replica.num_devices for replica in replicas], np.int64),
        "num_steps": state.num_steps.copy(),
        "busy_s": busy_s.copy(),
        "compute_s": seconds[:, 0].copy(),
        "memory_s": seconds[:, 1].copy(),
        "network_s": seconds[:, 2].copy(),
        "host_s": seconds[:, 3].copy(),
        "duration_s": np.full(len(replicas), duration_s),
        "on_s": on_s,
        "up_frac": over(coordinator.up_s(timeline.edges_s).sum(axis=1), np.full(len(replicas), duration_s)),
        "utilization_frac": over(busy_s, lanes * duration_s),
        "flops": flops,
        "bytes": moved,
        "mfu_frac": over(flops, peak_flops_per_s(lowered) * duration_s),
        "mbu_frac": over(moved, peak_bytes_per_s(lowered) * duration_s),
        "num_prompt_tokens": state.total_prefill_tokens.copy(),
        "num_output_tokens": np.rint(timeline.output_tokens.sum(axis=1)),
        "num_recomputed_tokens": state.total_recomputed_tokens.copy(),
        "num_cached_tokens": state.total_cached_tokens.copy(),
        "num_preemptions": state.total_preemptions.copy(),
        "num_looked_up_blocks": looked_up.copy(),
        "num_hit_blocks": hit.copy(),
        "prefix_hit_frac": share(hit, looked_up),
        "num_swapped_blocks": state.total_swapped_blocks.copy(),
        "num_copied_blocks": state.total_copied_blocks.copy(),
        "num_adapter_loads": state.total_adapter_loads.copy(),
        "num_adapter_hits": state.total_adapter_hits.copy(),
        "adapter_hit_frac": share(state.total_adapter_hits, state.total_adapter_hits + state.total_adapter_loads),
        "num_kept_waits": state.total_kept.copy(),
        "num_dropped_waits": state.total_dropped.copy(),
        "num_offloaded_waits": state.total_offloaded.copy(),
        "kept_block_s": state.kept_block_s.copy(),
        "num_drafted_tokens": drafted.copy(),
        "num_accepted_tokens": accepted.copy(),
        "acceptance_frac": share(accepted, drafted),
        "tokens_per_decode": share(decodes + accepted, decodes),
        "speculation_speedup": speculation_speedup(lowered),
        "num_blocks": state.num_blocks.copy(),
        "mean_batch": over(state.batch_integral_s, busy_s),
        "mean_kv_used_frac": over(state.blocks_integral_s, busy_s * state.num_blocks),
        "peak_kv_used_frac": over(state.peak_used_blocks.astype(float), state.num_blocks.astype(float)),
        "tokenizer_utilization_frac": tokenizers,
        "detokenizer_utilization_frac": detokenizers,
        **draft_columns(lowered, on_s),
        "energy_j": energy_j,
        **costs,
    }


def devices_of(replica: Replica) -> str:
    """`8 x h100_sxm`, `1 x h100_sxm + 2 x xeon_8480plus`."""
    placement = replica.cost.placement if replica.cost is not None else None
    if placement is None or len(placement.units) == 1:
        return f"{replica.num_devices} x {replica.device.name}"
    return " + ".join(f"{unit.tp} x {unit.device.name}" for unit in placement.units)


def worker_utilization(coordinator: Coordinator, duration_s: float) -> tuple[FloatArray, FloatArray]:
    """[num_engines] share of the run in which the tokenisers, and the detokenisers, of an engine worked."""
    front_end = coordinator.front_end
    tokenizers = front_end.tokenizer_utilization_frac(duration_s)
    if not front_end.detokenize_s.any():  # messages need not be counted
        return tokenizers, np.full(len(tokenizers), np.nan)
    return tokenizers, front_end.detokenizer_utilization_frac(coordinator.state, duration_s)


def timeline_table(coordinator: Coordinator, timeline: Timeline) -> Table:
    """One row per engine and interval; sums over the intervals are the totals of engine_table."""
    lowered, state = coordinator.lowered, coordinator.state
    num_engines, num_intervals = timeline.flops.shape
    counters, lengths_s = timeline.counters, timeline.lengths_s
    busy_s = counters[:, :, TIMELINE_BUSY_S]
    hit, looked_up = counters[:, :, TIMELINE_HIT_BLOCKS], counters[:, :, TIMELINE_LOOKED_UP_BLOCKS]
    drafted, accepted = counters[:, :, TIMELINE_DRAFTED], counters[:, :, TIMELINE_ACCEPTED]
    numbers = mean_numbers(state, timeline.edges_s)
    columns = {
        "start_s": np.broadcast_to(timeline.edges_s[:-1], (num_engines, num_intervals)),
        "end_s": np.broadcast_to(timeline.edges_s[1:], (num_engines, num_intervals)),
        "up_frac": over(coordinator.up_s(timeline.edges_s), np.broadcast_to(lengths_s, busy_s.shape)),
        "busy_s": busy_s,
        "compute_s": counters[:, :, TIMELINE_COMPUTE_S],
        "memory_s": counters[:, :, TIMELINE_MEMORY_S],
        "network_s": counters[:, :, TIMELINE_NETWORK_S],
        "host_s": counters[:, :, TIMELINE_HOST_S],
        "utilization_frac": over(busy_s, state.num_lanes[:, None] * lengths_s),
        "mfu_frac": over(timeline.flops, peak_flops_per_s(lowered)[:, None] * lengths_s),
        "mbu_frac": over(timeline.bytes, peak_bytes_per_s(lowered)[:, None] * lengths_s),
        "mean_batch": over(counters[:, :, TIMELINE_BATCH_INTEGRAL_S], busy_s),
        "mean_kv_used_frac": over(counters[:, :, TIMELINE_BLOCKS_INTEGRAL_S], busy_s * state.num_blocks[:, None]),
        **numbers._asdict(),
        "num_steps": counters[:, :, TIMELINE_STEPS],
        "num_tokens": counters[:, :, TIMELINE_TOKENS],
        "num_output_tokens": timeline.output_tokens,
        "num_preemptions": counters[:, :, TIMELINE_PREEMPTIONS],
        "num_looked_up_blocks": looked_up,
        "num_hit_blocks": hit,
        "prefix_hit_frac": share(hit, looked_up),
        "num_drafted_tokens": drafted,
        "num_accepted_tokens": accepted,
        "acceptance_frac": share(accepted, drafted),
    }
    names = np.repeat(engine_names(lowered), num_intervals)
    return {"engine": names, **{name: values.ravel() for name, values in columns.items()}}


def engine_names(lowered: Lowered) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """`llm[0]`, `llm[1]` ..."""
    return np.array([replica.name for replica in lowered.replicas], object)


def peak_flops_per_s(lowered: Lowered) -> FloatArray:
    """[num_engines] dense peak of the dtype each engine computes in, all devices."""
    return np.array([replica_peak_flops_per_s(replica) for replica in lowered.replicas])


def peak_bytes_per_s(lowered: Lowered) -> FloatArray:
    """[num_engines] memory bandwidth, all devices."""
    return np.array([replica_bytes_per_s(replica) for replica in lowered.replicas])


def replica_bytes_per_s(replica: Replica) -> float:
    """Memory bandwidth of all its devices."""
    placement = replica.cost.placement if replica.cost is not None else None
    if placement is None or len(placement.units) == 1:
        return replica.device.memory.bandwidth_bytes_per_s * replica.num_devices
    return sum(unit.device.memory.bandwidth_bytes_per_s * unit.tp for unit in placement.units)


def replica_peak_flops_per_s(replica: Replica) -> float:
    """Dense peak of the dtype the engine computes in, all devices."""
    dtype = replica.model.activation_dtype if replica.model is not None else None
    placement = replica.cost.placement if replica.cost is not None else None
    if placement is not None and len(placement.units) > 1:
        held = [unit.device.peak_flops_per_s for unit in placement.units]
        most = [peaks[dtype] if dtype in peaks else max(peaks.values()) for peaks in held]
        return sum(peak * unit.tp for peak, unit in zip(most, placement.units, strict=True))
    peaks = replica.device.peak_flops_per_s
    peak = peaks.get(dtype, max(peaks.values())) if dtype is not None else best_float_peak(replica.device)
    return peak * replica.num_devices


def best_float_peak(device: Device) -> float:
    """The peak that encoders and index scans are held against: bf16 where there is one."""
    for dtype in ("bf16", "fp16", "fp32"):
        if dtype in device.peak_flops_per_s:
            return float(device.peak_flops_per_s[dtype])
    return float(max(device.peak_flops_per_s.values()))
