"""The graph of devices, switches and NICs: one directed edge per direction of every link.

- A link inside a device group: every device has a port to a switch (`switched`), or one link to each of its peers,
  of those that bridges join where the link says `devices_joined`.
- A link between two groups of a node: each device of the larger group is linked with one of the smaller, spread
  evenly and in order (GPU i of 8 hangs on CPU socket i * 2 // 8).
- The NICs of a node hang on its root group (the CPUs), spread the same way; a device uses the NIC at its own share
  of the order, so that eight GPUs with eight NICs use one each. Data goes over the device's own port to the root and
  on to the NIC, not through host memory (GPUDirect). The network between nodes has full bisection bandwidth, or the
  switches that the cluster describes (hardware/switches.py): they are not in this graph, a NIC's link to them is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import networkx as nx

from hermes_sim.core.errors import HermesError
from hermes_sim.hardware.fabric import Fabric
from hermes_sim.hardware.link import Link
from hermes_sim.hardware.node import NodeGroup, NodeLink
from hermes_sim.hardware.switches import Switch, Switches

ROUTING_MESSAGE_BYTES = 2.0**20
"""Message whose time is the weight of an edge: long enough that a fast link is preferred to a near one."""

Vertex = str
NETWORK_IN, NETWORK_OUT = "network in", "network out"
"""Two vertices, not one: a route inside a node never goes out and back."""

LARGEST_MESH = 64
"""Devices that links can join in pairs; beyond that every real machine has switches."""


class NetworkError(HermesError, ValueError):
    """The links of a cluster make no sense; the text says which."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One device of one node."""

    node_group: str
    node_index: int
    device_group: str
    device_index: int

    @property
    def node(self) -> str:
        return f"{self.node_group}[{self.node_index}]"

    def __str__(self) -> str:
        return f"{self.node}.{self.device_group}[{self.device_index}]"


@dataclass(frozen=True, slots=True)
class PhysicalLink:
    """One direction of one link: what transfers share."""

    id: int
    name: str
    """`dgx[0].gpu[3]->nvswitch`"""
    profile: str
    peak_bandwidth_bytes_per_s: float
    bandwidth_bytes_per_s: float
    """What large messages reach: peak x efficiency."""
    latency_s: float
    collective_latency_s: float
    """The same for collectives inside a captured graph."""
    energy_per_byte_j: float = 0.0


class Topology:
    """Builds the graph. Edges carry `link_id` (None inside a NIC) and `seconds`, the weight of path search."""

    def __init__(
        self,
        nodes: Sequence[NodeGroup],
        links: Mapping[str, Link],
        network_link: str | None,
        fabric: Fabric | None = None,
    ) -> None:
        """`links`: by the name the node groups use; `network_link`: uplink of nodes that name none.

        Raises NetworkError for links that cannot be.
        """
        self.nodes = {group.name: group for group in nodes}
        self.switches = Switches(fabric) if fabric is not None else None
        self.graph: nx.DiGraph[Vertex] = nx.DiGraph()
        self.links: list[PhysicalLink] = []
        self.ends: set[Vertex] = set()
        """Devices that forward nothing: all but those of root groups."""
        self._profiles = links
        self._network_link = network_link
        self._node_numbers: dict[str, int] = {}
        """In the order of the file, by which racks are filled."""
        for group in nodes:
            for node_index in range(group.count):
                node = f"{group.name}[{node_index}]"
                self._node_numbers[node] = len(self._node_numbers)
                self._add_node(group, node)
        if self.switches is not None:
            self.switches.build(self._add_switch_link)

    def uplink(self, group: NodeGroup) -> Link | None:
        """What connects nodes of this group with the network between nodes."""
        name = group.uplink or self._network_link
        return None if name is None else self._profiles[name]

    def profile(self, name: str) -> Link:
        """The link profile of that name: its own, whatever the cluster's file calls it."""
        return next(link for link in self._profiles.values() if link.name == name)

    def nic(self, endpoint: Endpoint) -> Vertex:
        """The NIC that a device sends and receives through."""
        return f"{endpoint.node}.nic[{self.nic_index(endpoint)}]"

    def nic_index(self, endpoint: Endpoint) -> int:
        """Which of its node's."""
        group = self.nodes[endpoint.node_group]
        return endpoint.device_index * group.uplinks_per_node // group.devices[endpoint.device_group].count

    def leaf(self, endpoint: Endpoint) -> Switch:
        """The switch that the device's NIC hangs on, where the cluster describes its switches."""
        assert self.switches is not None
        return self.switches.leaf(self._node_numbers[endpoint.node], self.nic_index(endpoint))

    def is_switched(self, endpoint: Endpoint) -> bool:
        """The device has a port to a switch that its group shares."""
        pair = (endpoint.device_group, endpoint.device_group)
        links = self.nodes[endpoint.node_group].links
        return any(link.between == pair and self._profiles[link.profile].switched for link in links)

    def _add_node(self, group: NodeGroup, node: str) -> None:
        root = _root_group(group)
        for name, devices in group.devices.items():
            vertices = [f"{node}.{name}[{index}]" for index in range(devices.count)]
            self.graph.add_nodes_from(vertices)
            if name != root:
                self.ends.update(vertices)
        for link in group.links:
            missing = [name for name in link.between if name not in group.devices]
            if missing:
                raise NetworkError(f"node '{group.name}' links '{missing[0]}', which is not one of its device groups")
            if link.between[0] == link.between[1]:
                self._link_devices(group, node, link)
            else:
                self._link_groups(group, node, link)
        uplink = self.uplink(group)
        if uplink is not None and root is not None:
            self._add_nics(group, node, root, uplink)

    def _link_devices(self, group: NodeGroup, node: str, link: NodeLink) -> None:
        profile = self._profiles[link.profile]
        name = link.between[0]
        devices = [f"{name}[{index}]" for index in range(group.devices[name].count)]
        if not profile.switched:
            if len(devices) > LARGEST_MESH and link.devices_joined is None:
                raise NetworkError(
                    f"node '{group.name}' links {len(devices)} '{name}' in pairs: beyond {LARGEST_MESH} it takes a "
                    f"switched link, which '{link.profile}' is not"
                )
            joined = link.devices_joined or len(devices)
            for start in range(0, len(devices), joined):
                for first, second in combinations(devices[start : start + joined], 2):
                    self._connect(node, first, second, profile, link.count)
            return
        switch = "nvswitch" if profile.kind == "nvlink" else f"{profile.kind}-switch"
        for device in devices:
            self._connect(node, device, switch, profile, link.count, of_group=name)

    def _link_groups(self, group: NodeGroup, node: str, link: NodeLink) -> None:
        larger, smaller = sorted(link.between, key=lambda name: -group.devices[name].count)
        num_larger, num_smaller = group.devices[larger].count, group.devices[smaller].count
        for index in range(num_larger):
            partner = f"{smaller}[{index * num_smaller // num_larger}]"
            self._connect(node, f"{larger}[{index}]", partner, self._profiles[link.profile], link.count)

    def _connect(
        self, node: str, first: str, second: str, profile: Link, count: int, of_group: str | None = None
    ) -> None:
        """Both directions between two parts of a node; `of_group`: the second is a switch of this device group."""
        first_vertex = f"{node}.{first}"
        second_vertex = f"{node}.{second}" if of_group is None else f"{node}.{second} of {of_group}"
        latency_share = 1.0 if of_group is None else 0.5  # two ports of a switch make one way
        self._add_link(first_vertex, second_vertex, f"{node}.{first}->{second}", profile, count, latency_share)
        self._add_link(second_vertex, first_vertex, f"{node}.{second}->{first}", profile, count, latency_share)

    def _add_nics(self, group: NodeGroup, node: str, root: str, uplink: Link) -> None:
        num_roots, num_nics = group.devices[root].count, group.uplinks_per_node
        for index in range(num_nics):
            nic = f"{node}.nic[{index}]"
            roots = {index * num_roots // num_nics}
            roots |= {device for device in range(num_roots) if device * num_nics // num_roots == index}
            for device in sorted(roots):
                self.graph.add_edge(f"{node}.{root}[{device}]", f"{nic}.send", link_id=None, seconds=0.0)
                self.graph.add_edge(f"{nic}.receive", f"{node}.{root}[{device}]", link_id=None, seconds=0.0)
            leaf_s = 0.0
            if self.switches is not None:
                leaf_s = self.switches.fabric.levels[0].latency_s
                peak = uplink.bandwidth_bytes_per_s
                self.switches.plug_in(
                    self._node_numbers[node], index, peak, peak * uplink.efficiency_frac, uplink.energy_per_byte_j
                )
            self._add_link(f"{nic}.send", NETWORK_IN, f"{nic}->network", uplink, 1, 0.5, leaf_s)
            self._add_link(NETWORK_OUT, f"{nic}.receive", f"network->{nic}", uplink, 1, 0.5)

    def _add_switch_link(
        self, name: str, level: str, peak: float, bandwidth: float, latency_s: float, energy_per_byte_j: float
    ) -> int:
        link = PhysicalLink(len(self.links), name, level, peak, bandwidth, latency_s, latency_s, energy_per_byte_j)
        self.links.append(link)
        return link.id

    def _add_link(
        self,
        source: Vertex,
        target: Vertex,
        name: str,
        profile: Link,
        count: int,
        latency_share: float,
        switch_s: float = 0.0,
    ) -> None:
        """Of several links between the same two parts the quickest is used. switch_s: of the switch it leads into."""
        peak = profile.bandwidth_bytes_per_s * count
        collective_latency_s = (
            profile.latency_s if profile.collective_latency_s is None else profile.collective_latency_s
        )
        link = PhysicalLink(
            id=len(self.links),
            name=name,
            profile=profile.name,
            peak_bandwidth_bytes_per_s=peak,
            bandwidth_bytes_per_s=peak * profile.efficiency_frac,
            latency_s=profile.latency_s * latency_share + switch_s,
            collective_latency_s=collective_latency_s * latency_share + switch_s,
            energy_per_byte_j=profile.energy_per_byte_j * latency_share,
        )
        self.links.append(link)
        seconds = link.latency_s + ROUTING_MESSAGE_BYTES / link.bandwidth_bytes_per_s
        if not self.graph.has_edge(source, target) or seconds < self.graph.edges[source, target]["seconds"]:
            self.graph.add_edge(source, target, link_id=link.id, seconds=seconds)


def _root_group(group: NodeGroup) -> str | None:
    """The device group the NICs hang on: the only one, else the smallest that is linked with another group."""
    if len(group.devices) == 1:
        return next(iter(group.devices))
    linked = {name for link in group.links if link.between[0] != link.between[1] for name in link.between}
    roots = [name for name in group.devices if name in linked]
    return min(roots, key=lambda name: group.devices[name].count, default=None)
