"""KV stores of a cluster as a run uses them: instances, what they hold, the links to and from them, what they did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.network import Endpoint, Network, PhysicalLink, Route, through
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.scenario.kv_store import KvStore
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.replicas import Replica, kv_dtype, kv_transfer_bytes
from hermes_sim.stages.kv_retrieval import KvRetrieval
from hermes_sim.state.kv_chunks import Chunks, find_absent, new_chunks, write_chain

Keys = npt.NDArray[np.uint64]
Kinds = npt.NDArray[np.int32]
MEBIBYTE = 2.0**20
"""Message by which the nearest of several devices is found, as routes are."""


@dataclass(slots=True, eq=False)
class Instance:
    """One of a store: that of an engine replica, a node, a rack, or the cluster."""

    store: KvStore
    name: str
    """`host_dram[0]`"""
    index: int
    """Node or rack; 0 for the others."""
    chunks: Chunks
    read_link: PhysicalLink
    write_link: PhysicalLink
    evicts_to: Instance | None = None
    is_away: bool = False
    """Its node has failed: nobody can reach it."""
    num_losses: int = 0
    """How often it has lost all that it held."""
    num_asked_tokens: int = 0
    """Prompt tokens that were looked up here and were not in the engine's own cache."""
    num_hit_tokens: int = 0
    """Of these, tokens that were here and in no store asked before."""
    num_read_tokens: int = 0
    """Of these, tokens that were sent."""
    num_written_chunks: int = 0
    read_bytes: float = 0.0
    written_bytes: float = 0.0


@dataclass(slots=True)
class KvStores:
    """All instances, and the ways between them and the engines."""

    instances: list[Instance]
    of_engine: dict[tuple[str, int], Instance]
    """(store, engine) -> the instance that this engine uses."""
    kinds: dict[int, int]
    """Engine -> kind of its KV: engines of one model and precision can use each other's."""
    bytes_per_token: dict[tuple[str, int], float]
    """(store, engine), as stored."""
    row_link_energy_j: npt.NDArray[np.float64]
    """[num_visits] of the transfers that each visit was the cause of."""
    _places: Places
    _routes: dict[tuple[str, str, int], Route] = field(default_factory=dict)

    def read_route(self, instance: Instance, e: int) -> Route:
        """From a store to the devices of an engine."""
        return self._route(instance, e, instance.read_link, reads=True)

    def write_route(self, instance: Instance, e: int) -> Route:
        """From the devices of an engine to a store."""
        return self._route(instance, e, instance.write_link, reads=False)

    def _route(self, instance: Instance, e: int, link: PhysicalLink, *, reads: bool) -> Route:
        key = (instance.name, "read" if reads else "write", e)
        if key not in self._routes:
            ends = self._places.replicas[e].kv_endpoints
            stands = self._places.of(instance.store, instance.index, ends)
            sources, targets = (stands, ends) if reads else (ends, stands)
            self._routes[key] = through(self._places.network.group_route(sources, targets), link)
        return self._routes[key]

    def stands_in(self, instance: Instance) -> set[tuple[str, int]]:
        """(node group, index) of the nodes that hold an instance."""
        return self._places.stands_in(instance.store, instance.index)

    def down_route(self, instance: Instance, lower: Instance) -> Route:
        """From a store to the one that gets what gives way in it."""
        key = (instance.name, lower.name, -1)
        if key not in self._routes:
            sources = self._places.of(instance.store, instance.index, ())
            targets = self._places.of(lower.store, lower.index, sources)
            between = self._places.network.group_route(sources or targets, targets)
            self._routes[key] = through(through(between, instance.read_link), lower.write_link)
        return self._routes[key]

    def write(self, flows: Flows, instance: Instance, keys: Keys, e: int, row: int, time_s: float) -> None:
        """What of a visit's chunks is not there is sent to a store by its engine, and is there when it has come."""
        if instance.is_away:
            return
        kinds = np.array([self.kinds[e]], np.int32)
        number = int(find_absent(instance.chunks, keys, np.zeros(len(keys), np.bool_), time_s))
        if number == 0:
            self._arrived(flows, instance, keys, kinds, row, time_s)
            return
        num_bytes = number * float(instance.chunks.chunk_bytes[kinds[0]])
        self._count_written(instance, number, num_bytes)
        route = self.write_route(instance, e)
        self.row_link_energy_j[row] += flows.energy_j(route, num_bytes)
        num_losses = instance.num_losses

        def arrived(at_s: float) -> None:
            if not instance.is_away and instance.num_losses == num_losses:
                self._arrived(flows, instance, keys, kinds, row, at_s)

        flows.start(route, num_bytes, arrived)

    def _arrived(self, flows: Flows, instance: Instance, keys: Keys, kinds: Kinds, row: int, time_s: float) -> None:
        """Chunks are in; what gives way for them goes one store down, or is lost."""
        lower = instance.evicts_to
        sizes = instance.chunks.chunk_bytes
        most = 0 if lower is None else int(np.ceil(sizes[kinds].max() * len(keys) / sizes.min()))
        evicted = np.zeros(most, np.uint64)
        evicted_kinds = np.zeros(most, np.int32)
        number = int(write_chain(instance.chunks, keys, kinds, time_s, evicted, evicted_kinds))
        if lower is None or number == 0 or lower.is_away:
            return
        down, down_kinds = evicted[:number][::-1].copy(), evicted_kinds[:number][::-1].copy()
        absent = np.zeros(number, np.bool_)
        if find_absent(lower.chunks, down, absent, time_s) > 0:
            down, down_kinds = down[absent], down_kinds[absent]
            num_bytes = float(lower.chunks.chunk_bytes[down_kinds].sum())
            self._count_written(lower, len(down), num_bytes)
            route = self.down_route(instance, lower)
            self.row_link_energy_j[row] += flows.energy_j(route, num_bytes)
            num_losses = lower.num_losses

            def arrived(at_s: float) -> None:
                if not lower.is_away and lower.num_losses == num_losses:
                    self._arrived(flows, lower, down, down_kinds, row, at_s)

            flows.start(route, num_bytes, arrived)

    @staticmethod
    def _count_written(instance: Instance, num_chunks: int, num_bytes: float) -> None:
        instance.num_written_chunks += num_chunks
        instance.written_bytes += num_bytes


class Places:
    """Where stores stand."""

    def __init__(self, network: Network, nodes: Sequence[NodeGroup], replicas: Sequence[Replica]) -> None:
        self.network = network
        self.replicas = replicas
        self._groups = {node.name: node for node in nodes}
        starts = np.concatenate(([0], np.cumsum([node.count for node in nodes]))).tolist()
        self._first_node = dict(zip(self._groups, starts, strict=False))
        self._of_number = [(node.name, index) for node in nodes for index in range(node.count)]

    def index_for(self, store: KvStore, e: int) -> int:
        """Which instance an engine uses."""
        end = self.replicas[e].kv_endpoints[0]
        number = self._first_node[end.node_group] + end.node_index
        if store.shared_by == "rack":
            assert store.nodes_per_rack is not None
            return int(number // store.nodes_per_rack)
        if store.shared_by == "engine":
            own = self.replicas[e]
            twins = dict.fromkeys((one.engine.name, one.number) for one in self.replicas if one.cost is not None)
            return list(twins).index((own.engine.name, own.number))
        return int(number) if store.shared_by == "node" else 0

    def of(self, store: KvStore, index: int, ends: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Devices that an instance is reached through from these ends: in their own node the nearest to each."""
        if store.attached_to is None:
            return tuple(ends)
        if store.node is not None:
            nodes = [index] if store.shared_by == "rack" else range(self._groups[store.node].count)
            return tuple(end for node in nodes for end in self._devices(store.node, node, store.attached_to))
        if not ends:  # all of the node's, for what comes from another store
            group, node = self._of_number[index] if store.shared_by == "node" else self._node_of_engine(index)
            return tuple(self._devices(group, node, store.attached_to))
        nearest = (self._nearest(end, store.attached_to) for end in ends)
        return tuple(dict.fromkeys(nearest))

    def stands_in(self, store: KvStore, index: int) -> set[tuple[str, int]]:
        """Nodes that hold an instance."""
        if store.node is not None:
            nodes = [index] if store.shared_by == "rack" else range(self._groups[store.node].count)
            return {(store.node, node) for node in nodes}
        return {self._of_number[index] if store.shared_by == "node" else self._node_of_engine(index)}

    def _node_of_engine(self, index: int) -> tuple[str, int]:
        own = [one for one in self.replicas if one.cost is not None]
        twins = dict.fromkeys((one.engine.name, one.number) for one in own)
        name, number = list(twins)[index]
        end = next(one.endpoints[0] for one in own if (one.engine.name, one.number) == (name, number))
        return end.node_group, end.node_index

    def _nearest(self, end: Endpoint, group: str) -> Endpoint:
        devices = self._devices(end.node_group, end.node_index, group)
        return min(devices, key=lambda device: self.network.route(device, end).seconds(MEBIBYTE))

    def _devices(self, node_group: str, node_index: int, group: str) -> list[Endpoint]:
        count = self._groups[node_group].devices[group].count
        return [Endpoint(node_group, node_index, group, device) for device in range(count)]


def build_kv_stores(lowered: Lowered, flows: Flows, row_link_energy_j: npt.NDArray[np.float64]) -> KvStores | None:
    """Instances for every engine that a stage of this workload retrieves KV for; None if there is no such stage."""
    users = dict(_users(lowered))
    if not users:
        return None
    cluster, replicas = lowered.scenario.cluster, lowered.replicas
    places = Places(lowered.network, cluster.nodes, replicas)
    stores = {store.name: store for store in cluster.kv_stores}
    engines = sorted({e for used in users.values() for e in used})
    layouts = {e: (model_name(replicas[e]), kv_dtype(replicas[e])) for e in engines}
    known = list(dict.fromkeys(layouts.values()))
    kinds = {e: known.index(layout) for e, layout in layouts.items()}
    built = KvStores([], {}, kinds, {}, row_link_energy_j, places)
    made: dict[tuple[str, int], Instance] = {}
    for name in _with_lower(users, stores):
        store = stores[name]
        for e in engines:
            stored_frac = store.stored_frac(kv_dtype(replicas[e]))
            built.bytes_per_token[name, e] = kv_transfer_bytes(replicas[e], 1) * stored_frac
        for e in engines:
            index = places.index_for(store, e)
            if (name, index) not in made:
                sizes = np.zeros(len(known))
                for other in engines:
                    sizes[kinds[other]] = store.chunk_tokens * built.bytes_per_token[name, other]
                made[name, index] = _instance(lowered, flows, store, index, sizes)
                built.instances.append(made[name, index])
            built.of_engine[name, e] = made[name, index]
    for (name, e), instance in built.of_engine.items():
        lower = stores[name].evict_to
        instance.evicts_to = None if lower is None else built.of_engine[lower, e]
    return built


def model_name(replica: Replica) -> str:
    """Of a token engine."""
    assert replica.model is not None
    return replica.model.name


def _users(lowered: Lowered) -> Iterator[tuple[str, set[int]]]:
    """(store, engines whose prompts are looked up in it), of all stages."""
    found: dict[str, set[int]] = {}
    for plan in lowered.pipelines:
        for stage in plan.stages:
            if isinstance(stage.stage, KvRetrieval) and stage.prefill is not None:
                engines = {int(e) for e in plan.stages[stage.prefill].candidates}
                last = stage.last_of_pass
                if last is not None:
                    engines |= {int(e) for e in plan.stages[last].candidates}
                for name in stage.stage.stores:
                    found.setdefault(name, set()).update(engines)
    yield from found.items()


def _with_lower(users: dict[str, set[int]], stores: dict[str, KvStore]) -> list[str]:
    """Stores that are asked, and those that get what gives way in them."""
    found = list(users)
    for name in found:  # grows while it is walked
        lower = stores[name].evict_to
        if lower is not None and lower not in found:
            found.append(lower)
    return found


def _instance(
    lowered: Lowered, flows: Flows, store: KvStore, index: int, chunk_bytes: npt.NDArray[np.float64]
) -> Instance:
    state, number = lowered.state, lowered.num_visits
    most = int(((state.row_prompt[:number].astype(np.int64) + state.row_output[:number]) // store.chunk_tokens).sum())
    ttl_s = np.inf if store.ttl_s is None else store.ttl_s
    name = f"{store.name}[{index}]"
    links = [
        flows.add_link(
            PhysicalLink(
                id=len(flows.links),
                name=f"{name} {verb}",
                profile=store.name,
                peak_bandwidth_bytes_per_s=bandwidth,
                bandwidth_bytes_per_s=bandwidth,
                latency_s=store.latency_s,
                collective_latency_s=store.latency_s,
                energy_per_byte_j=0.0,
            )
        )
        for place, (verb, bandwidth) in enumerate(
            (("read", store.read_bandwidth_bytes_per_s), ("write", store.write_bandwidth_bytes_per_s))
        )
    ]
    chunks = new_chunks(most, chunk_bytes, store.capacity_bytes, float(ttl_s), lfu=store.eviction == "lfu")
    return Instance(store, name, index, chunks, links[0], links[1])
