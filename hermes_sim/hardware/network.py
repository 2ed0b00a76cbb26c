"""Routes between devices: which links a transfer crosses, how fast it is alone, what a collective can use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, pairwise, permutations
from typing import Any

import networkx as nx

from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.fabric import Fabric
from hermes_sim.hardware.link import Link
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.hardware.topology import NETWORK_IN, NETWORK_OUT, Endpoint, NetworkError, PhysicalLink, Topology, Vertex

__all__ = ["Endpoint", "GroupLink", "Network", "NetworkError", "NoRouteError", "PhysicalLink", "Route", "through"]


Links = frozenset[int]
NO_LINKS: Links = frozenset()
EVERY_PATH = -1
MASK_64 = 2**64 - 1


class NoRouteError(NetworkError):
    """Two endpoints that have to talk are not connected; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Route:
    """The links a transfer crosses."""

    link_ids: tuple[int, ...]
    """Indices into `Network.links`; a link stands here once. Empty on one device."""
    share_frac: tuple[float, ...]
    """Share of the transfer's bytes that crosses each of them (1 on a route between two devices)."""
    latency_s: float
    bandwidth_bytes_per_s: float
    """Of the whole transfer when it is alone; infinite on one device."""
    ends: tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]] = ((), ())
    """Sources and targets of the part that the network has found."""
    flow_id: int = 0
    """By which it was put on one of several equal paths."""
    beyond: tuple[int, ...] = ()
    """Links behind that part (a store's own), which every way between its ends has."""

    def seconds(self, num_bytes: float) -> float:
        """Time of a transfer that has its links to itself: latency + bytes / bandwidth (cut-through at switches)."""
        return self.latency_s + num_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True, slots=True)
class GroupLink:
    """What the devices of one tensor- or pipeline-parallel group have to talk with each other."""

    bandwidth_bytes_per_s: float
    """Per device and direction, all devices sending at once; infinite for one device."""
    latency_s: float
    """One message between the slowest neighbours; for collectives inside a captured graph."""
    switched: bool
    """Inside each node the devices share a switch."""
    crosses_nodes: bool
    num_nodes: int = 1
    inside_bytes_per_s: float = math.inf
    """Across nodes: of one device among those of its node; infinite where each node has one."""
    inside_latency_s: float = 0.0
    across_bytes_per_s: float = math.inf
    """Across nodes: of all NICs that the group has in one node, and of the switches behind them."""
    exchange_bytes_per_s: float = math.inf
    """Per device and direction where every device sends to every other: across nodes through its own share of NICs."""
    peak_bytes_per_s: float = math.inf
    """Of one device's port inside a node, as `collectives` counts."""
    collectives: Mapping[KernelLibrary, Mapping[CollectiveKind, CollectiveEfficiency]] = field(
        default_factory=dict, compare=False
    )
    """Fitted to the links of this group; empty across nodes."""


def through(route: Route, link: PhysicalLink) -> Route:
    """The route and one more link, which all of the transfer crosses."""
    return replace(
        route,
        link_ids=(*route.link_ids, link.id),
        share_frac=(*route.share_frac, 1.0),
        latency_s=route.latency_s + link.latency_s,
        bandwidth_bytes_per_s=min(route.bandwidth_bytes_per_s, link.bandwidth_bytes_per_s),
        beyond=(*route.beyond, link.id),
    )


ON_DEVICE = Route(link_ids=(), share_frac=(), latency_s=0.0, bandwidth_bytes_per_s=math.inf)


class Network:
    """All links of a cluster and the routes over them."""

    def __init__(
        self,
        nodes: Sequence[NodeGroup],
        links: Mapping[str, Link],
        network_link: str | None,
        fabric: Fabric | None = None,
    ) -> None:
        """`links`: by the name the node groups use; `network_link`: uplink of nodes that name none; `fabric`: the
        switches between nodes, full bisection if not given.

        Raises NetworkError for links that cannot be.
        """
        self._topology = Topology(nodes, links, network_link, fabric)
        self._routes: dict[tuple[Endpoint, Endpoint, int, Links], Route] = {}
        self._fabric = fabric
        self.links: tuple[PhysicalLink, ...] = tuple(self._topology.links)

    @property
    def has_choices(self) -> bool:
        """Whether transfers between the same ends may go different ways."""
        return self._fabric is not None and self._fabric.routing == "ecmp"

    def route(self, source: Endpoint, target: Endpoint, flow_id: int = 0, dead: Links = NO_LINKS) -> Route:
        """Quickest route for a message of a mebibyte, found once; raises NoRouteError if there is none.

        flow_id: chooses among equal paths over switches. dead: links that it must not take.
        """
        if source == target:
            return ON_DEVICE
        return self._route(source, target, self._choice(source, target, flow_id), dead)

    def _route(self, source: Endpoint, target: Endpoint, choice: int, dead: Links) -> Route:
        """On the equal path of that number, or spread over all (EVERY_PATH)."""
        key = (source, target, choice, dead)
        if key not in self._routes:
            shares = self._find(source, target, choice, dead)
            links = [self.links[link_id] for link_id in shares]
            rates = [link.bandwidth_bytes_per_s / shares[link.id] for link in links]
            self._routes[key] = Route(
                link_ids=tuple(shares),
                share_frac=tuple(shares.values()),
                latency_s=sum(link.latency_s * shares[link.id] for link in links),
                bandwidth_bytes_per_s=min(rates),
                ends=((source,), (target,)),
            )
        return self._routes[key]

    def _choice(self, source: Endpoint, target: Endpoint, flow_id: int) -> int:
        """Number by which one of several equal paths is taken; 0 where there are no switches to choose from."""
        if self._fabric is None or source.node == target.node:
            return 0
        if self._fabric.routing == "spray":
            return EVERY_PATH
        if self._fabric.routing == "static":
            return target.node_index * self._topology.nodes[target.node_group].uplinks_per_node + (
                self._topology.nic_index(target)
            )
        ends = (source.node_index, source.device_index, target.node_index, target.device_index)
        return path_hash((flow_id, *ends))

    def group_route(
        self, sources: Sequence[Endpoint], targets: Sequence[Endpoint], flow_id: int = 0, dead: Links = NO_LINKS
    ) -> Route:
        """Route of a transfer that is split evenly over the shards of both sides, all at once.

        Shard i of max(len(sources), len(targets)) goes from its source to its target in order; a link that carries
        several shards has their summed share. Bandwidth = min over links of bandwidth / share; latency the longest.
        """
        num_shards = max(len(sources), len(targets))
        routes = [
            self.route(
                sources[shard * len(sources) // num_shards],
                targets[shard * len(targets) // num_shards],
                flow_id + shard,
                dead,
            )
            for shard in range(num_shards)
        ]
        counts = _link_counts(routes)
        shares = {link_id: counts[link_id] / num_shards for link_id in sorted(counts)}
        rates = (self.links[link_id].bandwidth_bytes_per_s / share for link_id, share in shares.items())
        return Route(
            link_ids=tuple(shares),
            share_frac=tuple(shares.values()),
            latency_s=max(route.latency_s for route in routes),
            bandwidth_bytes_per_s=min(rates, default=math.inf),
            ends=(tuple(sources), tuple(targets)),
            flow_id=flow_id,
        )

    def way_round(self, route: Route, dead: Links) -> Route | None:
        """Between the same ends without these links; None if there is no way."""
        try:
            return self.group_route(*route.ends, route.flow_id, dead)
        except NoRouteError:
            return None

    def tp_link(self, endpoints: Sequence[Endpoint]) -> GroupLink:
        """Bandwidth per device and latency of collectives over these devices, in ring order.

        Ports of a switch, and links that several hops of the ring share: bandwidth / number of hops over the link.
        Full mesh of n devices without a switch: the n - 1 links of a device work at once (reduce-scatter and
        all-gather straight to every peer). Across nodes: as many rings as a node has NICs in use, so the sum of its
        NICs, but no more than inside the node (NCCL's rings, one per NIC). Raises NoRouteError.
        """
        if len(endpoints) == 1:
            return GroupLink(math.inf, 0.0, switched=True, crosses_nodes=False)
        by_node: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            by_node.setdefault(endpoint.node, []).append(endpoint)
        inside = [self._link_inside(members) for members in by_node.values() if len(members) > 1]
        if len(by_node) == 1:
            return inside[0]
        hops = self._ring([members[0] for members in by_node.values()])
        nics = [self._nic_bandwidth(members) for members in by_node.values()]
        groups = list(by_node.values())
        ring = self._fabric_bandwidth((groups[n - 1], groups[n], 1.0) for n in range(len(groups)))
        exchange = self._fabric_bandwidth(
            (tail, head, len(tail) * len(head) / (len(endpoints) - 1.0)) for tail, head in permutations(groups, 2)
        )
        bandwidth = min([ring, *nics, *(link.bandwidth_bytes_per_s for link in inside)])
        return GroupLink(
            bandwidth_bytes_per_s=bandwidth,
            latency_s=max([self._collective_latency_s(hops), *(link.latency_s for link in inside)]),
            switched=all(link.switched for link in inside),
            crosses_nodes=True,
            num_nodes=len(groups),
            inside_bytes_per_s=min((link.bandwidth_bytes_per_s for link in inside), default=math.inf),
            inside_latency_s=max((link.latency_s for link in inside), default=0.0),
            across_bytes_per_s=min(ring, *nics),
            exchange_bytes_per_s=min(
                exchange,
                *(
                    self._exchange_bandwidth(nic, len(members), len(endpoints))
                    for nic, members in zip(nics, groups, strict=True)
                ),
            ),
        )

    def ring_loads(self, endpoints: Sequence[Endpoint]) -> dict[int, float]:
        """Link -> bytes over it for each byte that a ring over these devices sends out of one of them.

        Full mesh without a switch: each link a part. Across nodes one ring for each NIC, spread over all equal paths
        between them.
        """
        by_node: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            by_node.setdefault(endpoint.node, []).append(endpoint)
        groups = list(by_node.values())
        found: dict[int, float] = {}
        for members in groups:
            pairs = [self.route(source, target) for source, target in permutations(members, 2)]
            if pairs and all(len(route.link_ids) == 1 for route in pairs):
                _add_loads(found, pairs, 1.0 / (len(members) - 1))
            elif pairs:
                ring = self._ring(members)
                _add_loads(found, ring if len(groups) == 1 else ring[:-1], 1.0)
        for number, tails in enumerate(groups if len(groups) > 1 else ()):
            heads = groups[(number + 1) % len(groups)]
            num_pairs = max(len(tails), len(heads))
            ends = ((tails[n * len(tails) // num_pairs], heads[n * len(heads) // num_pairs]) for n in range(num_pairs))
            _add_loads(found, [self._route(*pair, self._spread, NO_LINKS) for pair in ends], 1.0 / num_pairs)
        return found

    def exchange_loads(self, own: Sequence[Endpoint], endpoints: Sequence[Endpoint]) -> dict[int, float]:
        """Link -> bytes over it for each byte that every device of `endpoints` sends out to all others alike: links out
        of and into `own` devices, by one other device of their node and one of another, as stand-ins for all."""
        found: dict[int, float] = {}
        others = len(endpoints) - 1.0
        for device in own:
            inside = [end for end in endpoints if end.node == device.node and end != device]
            outside = [end for end in endpoints if end.node != device.node]
            for ends in (inside, outside):
                for end in ends[:1]:
                    ways = [self._route(device, end, self._spread, NO_LINKS)]
                    ways += [self._route(end, device, self._spread, NO_LINKS)]
                    _add_loads(found, ways, len(ends) / others)
        return found

    @property
    def _spread(self) -> int:
        """Collectives open many channels, so that they are on every path."""
        return EVERY_PATH if self._fabric is not None else 0

    def pp_link(self, endpoints: Sequence[Endpoint], tp: int) -> GroupLink:
        """What consecutive pipeline stages of `tp` devices each have to hand activations on, the slowest of them.

        Every device of a stage sends to its partner in the next at the same time. Raises NoRouteError.
        """
        stages = [endpoints[start : start + tp] for start in range(0, len(endpoints), tp)]
        hops = [self.group_route(stage, following) for stage, following in pairwise(stages)]
        return GroupLink(
            bandwidth_bytes_per_s=min((hop.bandwidth_bytes_per_s / tp for hop in hops), default=math.inf),
            latency_s=max((hop.latency_s for hop in hops), default=0.0),
            switched=all(map(self._topology.is_switched, endpoints)),
            crosses_nodes=len({endpoint.node for endpoint in endpoints}) > 1,
        )

    def _link_inside(self, members: Sequence[Endpoint]) -> GroupLink:
        """The group inside one node."""
        pairs = [self.route(source, target) for source, target in combinations(members, 2)]
        if all(len(route.link_ids) == 1 for route in pairs):
            bandwidth = min(route.bandwidth_bytes_per_s for route in pairs) * (len(members) - 1)
            return self._with_fitted(GroupLink(bandwidth, self._collective_latency_s(pairs), False, False), pairs)
        hops = self._ring(members)
        bandwidth = min(self.links[link].bandwidth_bytes_per_s / count for link, count in _link_counts(hops).items())
        switched = all(self._topology.is_switched(endpoint) for endpoint in members)
        return self._with_fitted(GroupLink(bandwidth, self._collective_latency_s(hops), switched, False), hops)

    def _with_fitted(self, link: GroupLink, hops: Sequence[Route]) -> GroupLink:
        """The group with what was fitted to the ports of its devices, where all of them are of one kind."""
        used = [self.links[hop.link_ids[0]] for hop in hops]
        profiles = {one.profile for one in used}
        link = replace(link, exchange_bytes_per_s=link.bandwidth_bytes_per_s)
        if len(profiles) != 1:
            return link
        peak = min(one.peak_bandwidth_bytes_per_s for one in used)
        return replace(link, peak_bytes_per_s=peak, collectives=self._topology.profile(profiles.pop()).collectives)

    def _fabric_bandwidth(self, traffic: Iterable[tuple[Sequence[Endpoint], Sequence[Endpoint], float]]) -> float:
        """Rate at which the first switch link is full where nodes send `rate` x weight to each other, over all their
        NICs and all equal paths (libraries open many channels); infinite with full bisection."""
        if self._fabric is None:
            return math.inf
        loads: dict[int, float] = {}
        switches = self._topology.switches
        assert switches is not None
        for tails, heads, weight in traffic:
            num_pairs = max(len(tails), len(heads))
            for n in range(num_pairs):
                tail, head = tails[n * len(tails) // num_pairs], heads[n * len(heads) // num_pairs]
                paths = switches.paths(self._topology.leaf(tail), self._topology.leaf(head))
                for path in paths:
                    for link_id in path:
                        loads[link_id] = loads.get(link_id, 0.0) + weight / num_pairs / len(paths)
        rates = (self.links[link_id].bandwidth_bytes_per_s / load for link_id, load in loads.items())
        return min(rates, default=math.inf)

    @staticmethod
    def _exchange_bandwidth(nic_bytes_per_s: float, num_inside: int, num_devices: int) -> float:
        """Of one device of a node in an all-to-all: what goes to other nodes waits for its share of the NICs.

        Of p - 1 equal messages p - m leave a node of m devices: bandwidth = NICs / m x (p - 1) / (p - m).
        """
        return nic_bytes_per_s / num_inside * (num_devices - 1) / (num_devices - num_inside)

    def _collective_latency_s(self, hops: Sequence[Route]) -> float:
        """The longest of these hops, as kernels inside a captured graph see it."""
        return max(sum(self.links[link_id].collective_latency_s for link_id in hop.link_ids) for hop in hops)

    def _ring(self, members: Sequence[Endpoint]) -> list[Route]:
        return [self.route(source, target) for source, target in pairwise([*members, members[0]])]

    def _nic_bandwidth(self, members: Sequence[Endpoint]) -> float:
        """Of all NICs these devices of one node use."""
        uplinks = {
            link_id for nic in map(self._topology.nic, members) for link_id in self._path(f"{nic}.send", NETWORK_IN)
        }
        return sum(self.links[link_id].bandwidth_bytes_per_s for link_id in uplinks)

    def _find(self, source: Endpoint, target: Endpoint, choice: int, dead: Links) -> dict[int, float]:
        """Link -> share of the bytes, on the quickest way; between nodes through the NIC of each device."""
        for endpoint in (source, target):
            if str(endpoint) not in self._topology.graph:
                raise NoRouteError(f"there is no device {endpoint} in this cluster")
        try:
            if source.node == target.node:
                return dict.fromkeys(self._path(str(source), str(target), dead=dead), 1.0)
            out = self._path(str(source), self._topology.nic(source) + ".send", NETWORK_IN, dead=dead)
            back = self._path(NETWORK_OUT, self._topology.nic(target) + ".receive", str(target), dead=dead)
        except (nx.NetworkXNoPath, nx.NodeNotFound) as missing:
            raise NoRouteError(f"no route from {source} to {target}: {self._advice(source, target)}") from missing
        between = self._between(source, target, choice, dead)
        return dict.fromkeys(out, 1.0) | between | dict.fromkeys(back, 1.0)

    def _between(self, source: Endpoint, target: Endpoint, choice: int, dead: Links) -> dict[int, float]:
        """Link -> share of the bytes, over the switches between two nodes."""
        switches = self._topology.switches
        if switches is None:
            return {}
        paths = [
            path
            for path in switches.paths(self._topology.leaf(source), self._topology.leaf(target))
            if dead.isdisjoint(path)
        ]
        if not paths:
            raise NoRouteError(f"no route from {source} to {target}: every path over the switches is dead")
        if choice != EVERY_PATH:
            return dict.fromkeys(paths[choice % len(paths)], 1.0)
        counts = Counter(chain.from_iterable(paths))
        return {link_id: count / len(paths) for link_id, count in counts.items()}

    def _path(self, *stops: Vertex, dead: Links = NO_LINKS) -> list[int]:
        """Ids of the links on the quickest path through these vertices, which no end device forwards."""
        graph, ends = self._topology.graph, self._topology.ends
        link_ids: list[int] = []
        for start, stop in pairwise(stops):

            def seconds(tail: Vertex, head: Vertex, edge: dict[str, Any], start: Vertex = start) -> float | None:
                is_closed = (tail in ends and tail != start) or edge["link_id"] in dead
                return None if is_closed else edge["seconds"]

            path = nx.shortest_path(graph, start, stop, weight=seconds)
            edges = (graph.edges[edge]["link_id"] for edge in pairwise(path))
            link_ids += [link_id for link_id in edges if link_id is not None]
        return link_ids

    def _advice(self, source: Endpoint, target: Endpoint) -> str:
        nodes = self._topology.nodes
        if source.node == target.node:
            groups = f"[{source.device_group}, {target.device_group}]"
            return f"node '{source.node_group}' needs a link {{between: {groups}, profile: ...}}"
        for name in (source.node_group, target.node_group):
            if self._topology.uplink(nodes[name]) is None:
                return f"node '{name}' has no `uplink`, and the cluster no `network`"
        return "a device has no link to the rest of its node"


def path_hash(numbers: Sequence[int]) -> int:
    """One number of several, the same on every machine: 64-bit FNV-1a, then a finaliser (MurmurHash3's fmix64)."""
    value = 0xCBF29CE484222325
    for number in numbers:
        value = ((value ^ (number & MASK_64)) * 0x100000001B3) & MASK_64
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        value = ((value ^ (value >> shift)) * factor) & MASK_64
    return value ^ (value >> 33)


def _add_loads(loads: dict[int, float], routes: Sequence[Route], weight: float) -> None:
    """What crosses these routes, so many bytes each."""
    for route in routes:
        for link_id, share in zip(route.link_ids, route.share_frac, strict=True):
            loads[link_id] = loads.get(link_id, 0.0) + weight * share


def _link_counts(routes: Sequence[Route]) -> dict[int, float]:
    """How many of the routes cross each link; of one that is spread over equal paths, parts."""
    counts: dict[int, float] = {}
    _add_loads(counts, routes, 1.0)
    return counts
