"""Routes between devices: which links a transfer crosses, how fast it is alone, what a collective can use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, pairwise
from typing import Any

import networkx as nx

from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary
from hermes_sim.hardware.link import Link
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.hardware.topology import NETWORK_IN, NETWORK_OUT, Endpoint, NetworkError, PhysicalLink, Topology, Vertex

__all__ = ["Endpoint", "GroupLink", "Network", "NetworkError", "NoRouteError", "PhysicalLink", "Route"]


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
    exchange_bytes_per_s: float = math.inf
    """Per device and direction where every device sends to every other: across nodes through its own share of NICs."""
    peak_bytes_per_s: float = math.inf
    """Of one device's port inside a node, as `collectives` counts."""
    collectives: Mapping[KernelLibrary, Mapping[CollectiveKind, CollectiveEfficiency]] = field(
        default_factory=dict, compare=False
    )
    """Fitted to the links of this group; empty across nodes."""


ON_DEVICE = Route(link_ids=(), share_frac=(), latency_s=0.0, bandwidth_bytes_per_s=math.inf)


class Network:
    """All links of a cluster and the routes over them."""

    def __init__(self, nodes: Sequence[NodeGroup], links: Mapping[str, Link], network_link: str | None) -> None:
        """`links`: by the name the node groups use; `network_link`: uplink of nodes that name none.

        Raises NetworkError for links that cannot be.
        """
        self._topology = Topology(nodes, links, network_link)
        self._routes: dict[tuple[Endpoint, Endpoint], Route] = {}
        self.links: tuple[PhysicalLink, ...] = tuple(self._topology.links)

    def route(self, source: Endpoint, target: Endpoint) -> Route:
        """Quickest route for a message of a mebibyte, found once; raises NoRouteError if there is none."""
        if source == target:
            return ON_DEVICE
        key = (source, target)
        if key not in self._routes:
            links = [self.links[link_id] for link_id in self._find(source, target)]
            self._routes[key] = Route(
                link_ids=tuple(link.id for link in links),
                share_frac=(1.0,) * len(links),
                latency_s=sum(link.latency_s for link in links),
                bandwidth_bytes_per_s=min(link.bandwidth_bytes_per_s for link in links),
            )
        return self._routes[key]

    def group_route(self, sources: Sequence[Endpoint], targets: Sequence[Endpoint]) -> Route:
        """Route of a transfer that is split evenly over the shards of both sides, all at once.

        Shard i of max(len(sources), len(targets)) goes from its source to its target in order; a link that carries
        several shards has their summed share. Bandwidth = min over links of bandwidth / share; latency the longest.
        """
        num_shards = max(len(sources), len(targets))
        routes = [
            self.route(sources[shard * len(sources) // num_shards], targets[shard * len(targets) // num_shards])
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
        )

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
        bandwidth = min([*nics, *(link.bandwidth_bytes_per_s for link in inside)])
        return GroupLink(
            bandwidth_bytes_per_s=bandwidth,
            latency_s=max([self._collective_latency_s(hops), *(link.latency_s for link in inside)]),
            switched=all(link.switched for link in inside),
            crosses_nodes=True,
            exchange_bytes_per_s=min(
                self._exchange_bandwidth(nic, len(members), len(endpoints))
                for nic, members in zip(nics, by_node.values(), strict=True)
            ),
        )

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

    def _find(self, source: Endpoint, target: Endpoint) -> list[int]:
        """Ids of the links on the quickest way; between nodes through the NIC of each device."""
        for endpoint in (source, target):
            if str(endpoint) not in self._topology.graph:
                raise NoRouteError(f"there is no device {endpoint} in this cluster")
        try:
            if source.node == target.node:
                return self._path(str(source), str(target))
            out = self._path(str(source), self._topology.nic(source) + ".send", NETWORK_IN)
            return out + self._path(NETWORK_OUT, self._topology.nic(target) + ".receive", str(target))
        except (nx.NetworkXNoPath, nx.NodeNotFound) as missing:
            raise NoRouteError(f"no route from {source} to {target}: {self._advice(source, target)}") from missing

    def _path(self, *stops: Vertex) -> list[int]:
        """Ids of the links on the quickest path through these vertices, which no end device forwards."""
        graph, ends = self._topology.graph, self._topology.ends
        link_ids: list[int] = []
        for start, stop in pairwise(stops):

            def seconds(tail: Vertex, head: Vertex, edge: dict[str, Any], start: Vertex = start) -> float | None:
                return None if tail in ends and tail != start else edge["seconds"]

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


def _link_counts(routes: Sequence[Route]) -> Counter[int]:
    """How many of the routes cross each link."""
    return Counter(chain.from_iterable(route.link_ids for route in routes))
