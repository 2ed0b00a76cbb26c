"""Engine instances: where they stand, what their steps cost, what they draw and how they share devices."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.batching import DynamicBatching, TokenBatching
from hermes_sim.core.errors import SimulationError
from hermes_sim.core.schema import Dtype
from hermes_sim.core.units import format_quantity
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.network import Endpoint, GroupLink, Network, NoRouteError
from hermes_sim.hardware.placement import Slots
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import kv_bytes_per_token
from hermes_sim.perf.collective_coefficients import group_collectives
from hermes_sim.perf.memory import MemoryPlan
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.perf.unit import UnitLink, UnitPlacement
from hermes_sim.perf.worker import HOST
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.engine_device import engine_device
from hermes_sim.scenario.remote_drafts import DraftDevices
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.served_model import served_model
from hermes_sim.scenario.unit_placement import unit_placement
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.engine_costs import EngineCosts, Links, build_engine_costs, draft_model_name, most_blocks, uses_host
from hermes_sim.sim.lengths import Lengths
from hermes_sim.sim.remote_drafts import RemoteDrafts, build_remote_drafts, drafting_cost

FloatArray = npt.NDArray[np.float64]

MOST_KEPT_BATCHES = 3
"""Sequences whose KV is kept while their requests are away, at most, in full batches."""

LONGEST_SEQUENCE = 1 << 31
"""No model holds more tokens."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine instance: a replica of an engine of the cluster file, or one data-parallel rank of a replica."""

    name: str
    """llm[0], or llm[0].dp1"""
    engine: Engine
    number: int
    """Of the replica."""
    rank: int
    endpoints: tuple[Endpoint, ...]
    """Its own devices, not those of other ranks."""
    device: Device
    num_cores: int
    """Of all its devices together."""
    link: GroupLink
    model: ModelArchitecture | None
    costs: EngineCosts | None
    """Of a token engine."""
    remote_drafts: RemoteDrafts | None
    """Where devices of their own make its drafts."""
    idle_w: float
    power_w: FloatArray
    """[4] while limited by compute, memory, network, host."""
    price_usd_per_h: float
    """Rent, or capital written off, of its devices."""
    is_owned: bool
    """Its electricity is paid for beside the price."""

    @property
    def kv_endpoints(self) -> tuple[Endpoint, ...]:
        """Devices that hold the KV cache."""
        if self.engine.operators_on is None:
            return self.endpoints
        group = self.engine.operators_on.group_of("attention")
        return tuple(endpoint for endpoint in self.endpoints if endpoint.device_group == group)

    @property
    def num_devices(self) -> int:
        return len(self.endpoints)

    @property
    def runs_jobs_on_arrays(self) -> bool:
        """Its jobs' products are in compute-in-memory cells, which count energy by operation."""
        return self.costs is None and self.device.array is not None

    @property
    def num_draft_devices(self) -> int:
        return 0 if self.remote_drafts is None else self.remote_drafts.num_devices

    @property
    def plan(self) -> MemoryPlan | None:
        return None if self.costs is None else self.costs.plan

    @property
    def cost(self) -> LlmCost | None:
        return None if self.costs is None else self.costs.cost


class ReplicaBuilder:
    """Places engines and prices them; equal engines over equal links share their tables."""

    def __init__(self, scenario: Scenario, network: Network, lengths: Lengths) -> None:
        self._scenario = scenario
        self._network = network
        self._longest_sequence = lengths.longest_sequence
        self._nodes = {node.name: node for node in scenario.cluster.nodes}
        self._known: dict[tuple[str, Links, float], EngineCosts] = {}
        self._beside_bytes: dict[Endpoint, float] = {}
        self._draft_endpoints: dict[str, list[list[Endpoint]]] = {}
        self._draft_costs: dict[str, LlmCost] = {}

    def build(self) -> Iterator[Replica]:
        """All engine instances, in the order of the cluster file; the ranks of a replica one after the other."""
        slots = Slots(self._scenario.cluster.nodes, self._scenario.devices)
        placed = []
        for engine in self._scenario.cluster.engines:
            wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
            placed.append((engine, slots.allocate_replicas(engine.node, wants, engine.replicas)))
            if (on := draft_devices(engine)) is not None:
                drafting = slots.allocate_replicas(on.node, {on.device: (on.count, None)}, engine.replicas)
                self._draft_endpoints[engine.name] = drafting
        self._beside_bytes = bytes_of_jobs(self._scenario, placed)
        for engine, replicas in placed:
            for number, endpoints in enumerate(replicas):
                for rank in range(engine.parallel.dp):
                    yield self._rank(engine, number, rank, endpoints)

    def _rank(self, engine: Engine, number: int, rank: int, endpoints: Sequence[Endpoint]) -> Replica:
        """One rank of a replica on these devices, or all of a replica that has only one."""
        if engine.operators_on is not None:
            return self._spanning(engine, number, endpoints)
        num_ranks = engine.parallel.dp
        size = len(endpoints) // num_ranks
        own = tuple(endpoints[rank * size : (rank + 1) * size])
        device = self._device(own[0])
        cores = engine.placement[own[0].device_group].cores or device.num_cores * len(endpoints)
        share = cores / (device.num_cores * len(endpoints))
        costs = self._costs(engine, own, endpoints) if isinstance(engine.batching, TokenBatching) else None
        drafts = self._remote_drafts(engine, number, own)
        power = device.power
        bound = np.array(
            [power.compute_bound_frac, power.memory_bound_frac, power.network_bound_frac, power.host_bound_frac]
        )
        return Replica(
            name=f"{engine.name}[{number}]" + (f".dp{rank}" if num_ranks > 1 else ""),
            engine=engine,
            number=number,
            rank=rank,
            endpoints=own,
            device=device,
            num_cores=cores // num_ranks,
            link=self._link(engine, own),
            model=served_model(engine, self._scenario.models),
            costs=costs,
            remote_drafts=drafts,
            idle_w=power.idle_w * len(own) * share,
            power_w=costs.cost.power_w
            if costs is not None
            else _power_w(device, power.tdp_w * bound) * len(own) * share,
            price_usd_per_h=device.usd_per_h * len(own) * share,
            is_owned=device.ownership is not None,
        )

    def _spanning(self, engine: Engine, number: int, endpoints: Sequence[Endpoint]) -> Replica:
        """A replica with operators on several device groups."""
        assert engine.operators_on is not None
        by_group = {name: _of_group(endpoints, name) for name in engine.operators_on.groups}
        costs = self._costs(engine, by_group[engine.operators_on.group_of("attention")], endpoints)
        placement = costs.cost.placement
        assert placement is not None
        first = placement.units[0]
        return Replica(
            name=f"{engine.name}[{number}]",
            engine=engine,
            number=number,
            rank=0,
            endpoints=tuple(endpoints),
            device=first.device,
            num_cores=first.device.num_cores * first.tp,
            link=self._network.tp_link(by_group[first.group]),
            model=costs.cost.model,
            costs=costs,
            idle_w=costs.cost.idle_w,
            power_w=costs.cost.power_w,
            price_usd_per_h=sum(unit.device.usd_per_h * unit.tp * unit.share_frac for unit in placement.units),
            is_owned=any(unit.device.ownership is not None for unit in placement.units),
            remote_drafts=None,
        )

    def _placement(self, engine: Engine, endpoints: Sequence[Endpoint], links: Links) -> UnitPlacement | None:
        """Device groups as the cost model takes them, with the links inside each of them."""
        whole = {endpoint.device_group: self._device(endpoint) for endpoint in endpoints}
        devices = {group: engine_device(device, engine.placement[group]) for group, device in whole.items()}
        placement = unit_placement(engine, devices, dict(links.between_units))
        if placement is None:
            return None
        inside = links.inside_units or (links.tensor,)
        units = [
            replace(
                unit,
                share_frac=unit.device.num_cores / whole[unit.group].num_cores,
                bandwidth_bytes_per_s=link.bandwidth_bytes_per_s,
                latency_s=link.latency_s,
                collectives=group_collectives(link, link, engine.parallel.kernels, engine.parallel.collectives),
            )
            for unit, link in zip(placement.units, inside, strict=True)
        ]
        return replace(placement, units=tuple(units))

    def _unit_links(self, engine: Engine, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
        """Links between and inside the device groups of an engine that spans several."""
        if engine.operators_on is None:
            return {}
        groups = [_of_group(endpoints, name) for name in engine.operators_on.groups]
        between = []
        for source, target in permutations(range(len(groups)), 2):
            route = self._network.group_route(groups[source], groups[target])
            energy_j = sum(
                frac * self._network.links[link].energy_per_byte_j
                for link, frac in zip(route.link_ids, route.share_frac, strict=True)
            )
            between.append(((source, target), UnitLink(route.bandwidth_bytes_per_s, route.latency_s, energy_j)))
        return {
            "between_units": tuple(between),
            "inside_units": tuple(self._network.tp_link(group) for group in groups),
        }

    def _remote_drafts(self, engine: Engine, number: int, own: Sequence[Endpoint]) -> RemoteDrafts | None:
        model = draft_model_name(engine)
        if engine.name not in self._draft_endpoints or model is None:
            return None
        endpoints = self._draft_endpoints[engine.name][number]
        device = self._device(endpoints[0])
        if engine.name not in self._draft_costs:
            self._draft_costs[engine.name] = drafting_cost(engine, self._scenario.models[model], device)
        return build_remote_drafts(engine, self._draft_costs[engine.name], device, self._network, endpoints, own[0])

    def _link(self, engine: Engine, own: Sequence[Endpoint]) -> GroupLink:
        """Of a tensor-parallel group; of all devices of a job engine, which may also work each for itself, unlinked."""
        if isinstance(engine.batching, TokenBatching):
            return self._network.tp_link(own[: engine.parallel.tp])
        try:
            return self._network.tp_link(own)
        except NoRouteError:
            return self._network.tp_link(own[:1])

    def _costs(self, engine: Engine, own: Sequence[Endpoint], endpoints: Sequence[Endpoint]) -> EngineCosts:
        model = served_model(engine, self._scenario.models)
        if model is None:
            raise SimulationError(f"engine '{engine.name}' serves tokens but names no model")
        assert isinstance(engine.batching, TokenBatching)
        tp = engine.parallel.tp if engine.operators_on is None else len(own)
        tensor = self._network.tp_link(own[:tp])
        links = Links(
            tensor=tensor,
            pipeline=self._network.pp_link(own, tp),
            experts=tensor if engine.parallel.dp == 1 else self._network.tp_link(endpoints),
            host_bytes_per_s=self._host_bandwidth(engine, own) if uses_host(engine) else 0.0,
            adapters_bytes_per_s=self._adapters_bandwidth(engine, own),
            **self._unit_links(engine, endpoints),
        )
        beside_bytes = max(self._beside_bytes.get(endpoint, 0.0) for endpoint in own)
        key = (engine.name, links, beside_bytes)  # a replica over two nodes has other links than its twins
        if key not in self._known:
            draft = draft_model_name(engine)
            whole = self._device(own[0])
            device = engine_device(whole, engine.placement[own[0].device_group])
            costs = build_engine_costs(
                engine,
                model,
                self._scenario.models[draft] if draft is not None else None,
                device,
                links,
                self._longest_sequence,
                beside_bytes,
                self._placement(engine, endpoints, links),
            )
            share = device.memory.bandwidth_bytes_per_s / whole.memory.bandwidth_bytes_per_s
            self._known[key] = replace(costs, memory_share_frac=share)
        costs = self._known[key]
        if beside_bytes > 0.0 and costs.plan.num_blocks < 1:
            kept = format_quantity(beside_bytes, "bytes")
            raise SimulationError(f"engine '{engine.name}': {kept} of indexes and encoders beside it leave no KV block")
        return costs

    def _device(self, endpoint: Endpoint) -> Device:
        return self._scenario.devices[self._nodes[endpoint.node_group].devices[endpoint.device_group].profile]

    def _adapters_bandwidth(self, engine: Engine, endpoints: Sequence[Endpoint]) -> float:
        """From where the adapters lie to each device [bytes/s]; the slowest's. 0 without adapters."""
        if engine.lora is None:
            return 0.0
        group = engine.lora.adapters_on
        return min(self._way_to_host(engine, endpoint, group) for endpoint in endpoints)

    def _host_bandwidth(self, engine: Engine, endpoints: Sequence[Endpoint]) -> float:
        """What each device reaches to the host's memory [bytes/s]: its best way to a CPU of its node; the slowest's."""
        return min(self._way_to_host(engine, endpoint) for endpoint in endpoints)

    def _way_to_host(self, engine: Engine, endpoint: Endpoint, wanted: str | None = None) -> float:
        """To the best processor of its node, or device of the group `wanted`."""
        if self._device(endpoint).kind == "cpu":
            return self._device(endpoint).memory.bandwidth_bytes_per_s
        ways = []
        for name, group in self._nodes[endpoint.node_group].devices.items():
            if name != wanted and (wanted is not None or self._scenario.devices[group.profile].kind != "cpu"):
                continue
            for index in range(group.count):
                host = Endpoint(endpoint.node_group, endpoint.node_index, name, index)
                try:
                    ways.append(self._network.route(endpoint, host).bandwidth_bytes_per_s)
                except NoRouteError:
                    continue
        if not ways:
            raise SimulationError(
                f"engine '{engine.name}' wants the host's memory, but no CPU of node '{endpoint.node_group}' is linked "
                f"with its '{endpoint.device_group}'"
            )
        return max(ways)


def _power_w(device: Device, power_w: FloatArray) -> FloatArray:
    """[4] of a device for jobs; with an array idle power but for the host, and what operations draw beside it."""
    if device.array is None:
        return power_w
    own_w = np.full(4, device.power.idle_w)
    own_w[HOST] = max(power_w[HOST], device.power.idle_w)
    return own_w


def _of_group(endpoints: Sequence[Endpoint], name: str) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in endpoints if endpoint.device_group == name)


def draft_devices(engine: Engine) -> DraftDevices | None:
    """Devices of their own that make the drafts of an engine."""
    return None if engine.speculative is None else engine.speculative.on


def bytes_of_jobs(
    scenario: Scenario, placed: Sequence[tuple[Engine, Sequence[Sequence[Endpoint]]]]
) -> dict[Endpoint, float]:
    """Device -> what the job engines on it keep there: weights of encoders and indexes, spread over a replica."""
    stages = [stage for pipeline in scenario.workload.pipelines for stage in pipeline.stages if stage.runs_on == "jobs"]
    found: dict[Endpoint, float] = {}
    for engine, replicas in placed:
        kept = sum(stage.resident_bytes(scenario.models) for stage in stages if stage_kind(stage) in engine.serves)
        for endpoints in replicas:
            for endpoint in endpoints:
                found[endpoint] = found.get(endpoint, 0.0) + kept / len(endpoints)
    return found


def num_slots(engine: Engine, num_samples: int, *, loads_kv: bool) -> int:
    """Sequences that may hold blocks: running ones, as many whose KV is on its way, and their waiting samples.

    loads_kv: KV comes from stores too, not only from engines that compute prompts for this one.
    """
    batching = engine.batching
    if not isinstance(batching, TokenBatching):
        return 1
    both = {"prefill", "decode"} <= set(engine.serves)
    kept = MOST_KEPT_BATCHES if engine.kv_cache.while_waiting in ("keep", "auto") else 0
    return batching.max_num_seqs * ((1 if both and not loads_kv else 2) + num_samples - 1 + kept)


def num_lanes(engine: Engine) -> int:
    """Steps in flight: pipeline stages or asynchronous steps of a token engine, workers of a job engine."""
    if isinstance(engine.batching, DynamicBatching):
        return engine.batching.num_workers
    return 2 if engine.batching.async_scheduling else engine.parallel.pp


def engine_groups(replicas: Sequence[Replica], links: Sequence[Collection[int]] = ()) -> list[list[int]]:
    """Engines that move together: those that share a device or a link compete for it, ranks keep in step.

    links: [num_engines] that tie each to others; none if not given.
    """
    owner: dict[Hashable, int] = {}
    members: dict[int, list[int]] = {}
    for e, replica in enumerate(replicas):
        ties: list[Hashable] = [*replica.endpoints, (replica.engine.name, replica.number)]
        ties += links[e] if links else ()
        found = sorted({owner[tie] for tie in ties if tie in owner})
        target = found[0] if found else e
        for other in found[1:]:
            members[target] += members.pop(other)
        if len(found) > 1:
            owner.update((tie, target) for tie in owner if owner[tie] in found)
        owner.update(dict.fromkeys(ties, target))
        members.setdefault(target, []).append(e)
    return [sorted(members[key]) for key in sorted(members)]


def most_tokens(replica: Replica) -> int:
    """Longest sequence that the blocks of a token engine can hold; 0 for other engines."""
    if replica.plan is None:
        return 0
    low, high = 0, 1
    while most_blocks(replica.engine, replica.plan, high) <= replica.plan.num_blocks and high < LONGEST_SEQUENCE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if most_blocks(replica.engine, replica.plan, middle) <= replica.plan.num_blocks:
            low = middle
        else:
            high = middle
    return low


def kv_transfer_bytes(replica: Replica, num_tokens: int) -> float:
    """KV cache of a prompt, all layers and shards, as this engine stores it."""
    assert replica.model is not None
    return num_tokens * kv_bytes_per_token(replica.model, kv_dtype(replica))


def kv_dtype(replica: Replica) -> Dtype:
    """Precision of the KV cache of a token engine."""
    assert replica.model is not None
    return replica.engine.kv_cache.dtype or replica.model.kv_dtype
