"""Engine instances: where they stand, what their steps cost, what they draw and how they share devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import DynamicBatching, TokenBatching
from hermes_sim.core.errors import SimulationError
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.network import Endpoint, GroupLink, Network
from hermes_sim.hardware.placement import Slots
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import kv_bytes_per_token
from hermes_sim.perf.memory import MemoryPlan, memory_plan
from hermes_sim.perf.step_cost import LlmCost, build_llm_cost
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim.lengths import Lengths

FloatArray = npt.NDArray[np.float64]


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


def build_replicas(scenario: Scenario, network: Network, lengths: Lengths) -> tuple[Replica, ...]:
    """All engine instances, in the order of the cluster file."""
    slots = Slots(scenario.cluster.nodes, scenario.devices)
    replicas: list[Replica] = []
    costs: dict[tuple[str, GroupLink, GroupLink], tuple[MemoryPlan, LlmCost]] = {}
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
                pipeline_link = network.pp_link(endpoints, engine.parallel.tp)
                key = (engine.name, link, pipeline_link)  # a replica over two nodes has other links than its twins
                if key not in costs:
                    costs[key] = build_costs(engine, model, device, link, pipeline_link, lengths)
                plan, cost = costs[key]
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


def contention_groups(replicas: Sequence[Replica]) -> list[list[int]]:
    """Engines that share a device, together: they compete for its memory bandwidth. Others stand alone."""
    owner: dict[Endpoint, int] = {}
    members: dict[int, list[int]] = {}
    for e, replica in enumerate(replicas):
        found = sorted({owner[endpoint] for endpoint in replica.endpoints if endpoint in owner})
        target = found[0] if found else e
        for other in found[1:]:
            members[target] += members.pop(other)
        owner.update((endpoint, target) for endpoint in owner if owner[endpoint] in found)
        owner.update(dict.fromkeys(replica.endpoints, target))
        members.setdefault(target, []).append(e)
    return [sorted(members[key]) for key in sorted(members)]


def kv_transfer_bytes(replica: Replica, num_tokens: int) -> float:
    """KV cache of a prompt, all layers and shards, as this engine stores it."""
    assert replica.model is not None
    dtype = replica.engine.kv_cache.dtype or replica.model.kv_dtype
    return num_tokens * kv_bytes_per_token(replica.model, dtype)
