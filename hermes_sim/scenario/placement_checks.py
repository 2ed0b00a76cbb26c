"""Where a cluster's engines go: names that exist, devices and cores enough for all replicas, links among them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from itertools import permutations

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.network import Endpoint, Network, NoRouteError
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.hardware.placement import PlacementError, Slots
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.document import KeyPath
from hermes_sim.scenario.names import Hardware

Finding = tuple[KeyPath, str]
Replicas = list[list[Endpoint]]
"""[num_replicas][num_devices]"""

MOST_DEVICES = 100_000
"""Of one cluster: each is a vertex of the network, and each replica an engine."""


class Layout:
    """A cluster with its engines put into place."""

    def __init__(self, hardware: Hardware) -> None:
        self.cluster = hardware.cluster
        self._devices = hardware.devices
        self._links = hardware.links
        self.replicas: dict[str, Replicas] = {}
        """Engine name -> the devices of its replicas; complete if `check` has found nothing."""
        self.drafts: dict[str, Replicas] = {}
        """The same of devices that draft for an engine."""

    @cached_property
    def network(self) -> Network:
        return Network(self.cluster.nodes, self._links, self.cluster.network, self.cluster.fabric)

    def check(self) -> Iterator[Finding]:
        """All that is wrong with the places; each step only where the one before has found nothing."""
        ways = (self._links_inside, self._ways_to_host, self._ways_to_drafts, self._ways_to_adapters)
        for step in (self._names, self._sizes, self._place, self._shared, self._memory, *ways):
            found = list(step())
            yield from found
            if found:
                return

    def _names(self) -> Iterator[Finding]:
        yield from self._node_names()
        nodes = [node.name for node in self.cluster.nodes]
        for index, engine in enumerate(self.cluster.engines):
            if engine.name in [other.name for other in self.cluster.engines[:index]]:
                yield ("engines", index, "name"), f"a second engine named {engine.name!r}"
            if engine.node is not None and engine.node not in nodes:
                near = did_you_mean(engine.node, nodes)
                yield ("engines", index, "node"), f"there is no node {engine.node!r} ({listed(nodes)}).{near}"
            else:
                yield from self._group_names(index, engine)

    def _node_names(self) -> Iterator[Finding]:
        for index, node in enumerate(self.cluster.nodes):
            if node.name in [other.name for other in self.cluster.nodes[:index]]:
                yield ("nodes", index, "name"), f"a second node named {node.name!r}"
            for i, link in enumerate(node.links):
                for j, name in enumerate(link.between):
                    if name not in node.devices:
                        near = did_you_mean(name, node.devices)
                        path = ("nodes", index, "links", i, "between", j)
                        yield path, f"node {node.name!r} has no {name!r} ({listed(node.devices)}).{near}"

    def _group_names(self, index: int, engine: Engine) -> Iterator[Finding]:
        groups = list(dict.fromkeys(name for node in self._nodes_of(engine) for name in node.devices))
        for name, placement in engine.placement.items():
            path = ("engines", index, "placement", name)
            if name not in groups:
                where = f"node {engine.node!r} has no" if engine.node else "no node has"
                yield path, f"{where} {name!r} ({listed(groups)}).{did_you_mean(name, groups)}"
            elif placement.cores is not None and placement.cores < placement.devices:
                yield path, f"{placement.cores} cores are fewer than the {placement.devices} devices they are on"

    def _nodes_of(self, engine: Engine) -> list[NodeGroup]:
        return [node for node in self.cluster.nodes if engine.node in (None, node.name)]

    def _sizes(self) -> Iterator[Finding]:
        """Numbers of which nothing could be made in reasonable time."""
        num_devices = 0
        for index, node in enumerate(self.cluster.nodes):
            num_devices += node.count * (node.uplinks_per_node + sum(group.count for group in node.devices.values()))
            if num_devices > MOST_DEVICES:
                yield ("nodes", index, "count"), f"more than {MOST_DEVICES:,} devices and uplinks in all"
                return
        for index, engine in enumerate(self.cluster.engines):
            wanted = engine.replicas * max(placement.devices for placement in engine.placement.values())
            if wanted > MOST_DEVICES:
                most = f"wants {wanted:,} devices, a cluster has at most {MOST_DEVICES:,}"
                yield ("engines", index, "replicas"), most

    def _place(self) -> Iterator[Finding]:
        """Every replica gets its devices and cores, in the order of the file."""
        slots = Slots(self.cluster.nodes, self._devices)
        for index, engine in enumerate(self.cluster.engines):
            wants = {name: (placement.devices, placement.cores) for name, placement in engine.placement.items()}
            try:
                node = slots.node_group(engine.node, wants)
            except PlacementError as error:
                yield ("engines", index, "placement"), f"engine {engine.name!r}: {error}"
                continue
            try:
                self.replicas[engine.name] = slots.allocate_replicas(node.name, wants, engine.replicas)
            except PlacementError as error:
                short = next((name for name in wants if f" {name}, " in str(error)), next(iter(wants)))
                path = ("nodes", self.cluster.nodes.index(node), "devices", short, "count")
                yield path, f"engine {engine.name!r} {error}"
                continue
            yield from self._place_drafts(slots, index, engine)

    def _place_drafts(self, slots: Slots, index: int, engine: Engine) -> Iterator[Finding]:
        """Devices of their own that draft for the engine, behind its own."""
        on = engine.speculative.on if engine.speculative is not None else None
        if on is None:
            return
        try:
            wants = {on.device: (on.count, None)}
            self.drafts[engine.name] = slots.allocate_replicas(on.node, wants, engine.replicas)
        except PlacementError as error:
            yield ("engines", index, "speculative", "draft", "on"), f"drafts of engine {engine.name!r}: {error}"

    def _shared(self) -> Iterator[Finding]:
        """DP ranks step together: nobody else may hold up one of them."""
        owners: dict[Endpoint, set[str]] = {}
        for name, replicas in self.replicas.items():
            for endpoint in (endpoint for endpoints in replicas for endpoint in endpoints):
                owners.setdefault(endpoint, set()).add(name)
        yield from self._shared_arrays(owners)
        for index, engine in enumerate(self.cluster.engines):
            if engine.parallel.dp == 1:
                continue
            own = [endpoint for endpoints in self.replicas[engine.name] for endpoint in endpoints]
            others = sorted(set().union(*(owners[endpoint] for endpoint in own)) - {engine.name})
            if others or len(set(own)) < len(own):
                with_whom = listed(repr(other) for other in others) or "another replica"
                words = f"DP ranks step together and share no device: {engine.name!r} shares some with {with_whom}"
                yield ("engines", index, "parallel", "dp"), words

    def _shared_arrays(self, owners: Mapping[Endpoint, Collection[str]]) -> Iterator[Finding]:
        """A language model has all cells of its devices; jobs have as many of them as of the cores."""
        nodes = {node.name: node for node in self.cluster.nodes}
        token_engines = {engine.name for engine in self.cluster.engines if engine.model is not None}
        for index, engine in enumerate(self.cluster.engines):
            if engine.model is not None:
                continue
            own = [endpoint for endpoints in self.replicas[engine.name] for endpoint in endpoints]
            for endpoint in dict.fromkeys(own):
                device = self._devices[nodes[endpoint.node_group].devices[endpoint.device_group].profile]
                others = sorted(token_engines & set(owners[endpoint]))
                if device.array is not None and others:
                    shares = f"shares the array of {endpoint} with {listed(repr(other) for other in others)}"
                    yield ("engines", index, "placement"), f"{engine.name!r} {shares}: give it devices of its own"
                    break

    def _memory(self) -> Iterator[Finding]:
        """Engines of tokens on one device have no more than its memory, all together."""
        wanted: dict[Endpoint, float] = {}
        for index, engine in enumerate(self.cluster.engines):
            if engine.model is None:
                continue
            fraction = engine.kv_cache.memory_fraction
            for endpoint in (endpoint for endpoints in self.replicas[engine.name] for endpoint in endpoints):
                wanted[endpoint] = wanted.get(endpoint, 0.0) + fraction
                if wanted[endpoint] > 1.0 + 1e-9:
                    words = f"with the engines before it {wanted[endpoint]:.0%} of the memory of {endpoint} are wanted"
                    yield ("engines", index, "kv_cache", "memory_fraction"), words
                    break

    def _links_inside(self) -> Iterator[Finding]:
        """The devices of a replica that computes one model together can talk with each other."""
        for index, engine in enumerate(self.cluster.engines):
            if engine.operators_on is not None:
                yield from self._links_between_groups(index, engine)
            elif engine.parallel.num_devices > 1:
                try:
                    self.network.tp_link(self.replicas[engine.name][0])
                except NoRouteError as error:
                    yield ("engines", index, "placement"), f"the devices of a replica are not linked: {error}"

    def _links_between_groups(self, index: int, engine: Engine) -> Iterator[Finding]:
        """Devices of a group share operators, groups send each other activations."""
        assert engine.operators_on is not None
        own = self.replicas[engine.name][0]
        groups = [
            [endpoint for endpoint in own if endpoint.device_group == name] for name in engine.operators_on.groups
        ]
        if not all(groups):  # a name that the placement does not have has been said
            return
        try:
            for group in groups:
                self.network.tp_link(group)
            for source, target in permutations(groups, 2):
                self.network.group_route(source, target)
        except NoRouteError as error:
            yield ("engines", index, "operators_on"), f"the devices of a replica are not linked: {error}"

    def _ways_to_adapters(self) -> Iterator[Finding]:
        """Every device of an engine with adapters reaches those in the memory of its node."""
        for index, engine in enumerate(self.cluster.engines):
            if engine.lora is None:
                continue
            group = engine.lora.adapters_on
            for endpoint in dict.fromkeys(one for replica in self.replicas[engine.name] for one in replica):
                if not self._reaches_host(endpoint, group):
                    wanted = f"device group {group!r}" if group is not None else "CPU"
                    yield (
                        ("engines", index, "lora", "adapters_on"),
                        f"no {wanted} of node {endpoint.node_group!r} is linked with its {endpoint.device_group!r}, so "
                        "adapters cannot be loaded",
                    )
                    break

    def _ways_to_host(self) -> Iterator[Finding]:
        """What is swapped goes to the memory of a processor of the same node; only decodes are swapped."""
        for index, engine in enumerate(self.cluster.engines):
            if getattr(engine.batching, "preemption", "") == "swap" and "decode" in engine.serves:
                for endpoint in dict.fromkeys(one for replica in self.replicas[engine.name] for one in replica):
                    if not self._reaches_host(endpoint):
                        yield (
                            ("engines", index, "batching", "preemption"),
                            f"swap copies KV to the host, but no CPU of node {endpoint.node_group!r} is linked with "
                            f"its {endpoint.device_group!r}: link one, or take recompute",
                        )
                        break

    def _ways_to_drafts(self) -> Iterator[Finding]:
        """Drafts travel to the engine, results back."""
        numbers = {engine.name: index for index, engine in enumerate(self.cluster.engines)}
        for name, replicas in self.drafts.items():
            for drafting, own in zip(replicas, self.replicas[name], strict=True):
                for source, target in ((drafting[-1], own[0]), (own[0], drafting[-1])):
                    try:
                        self.network.route(source, target)
                    except NoRouteError as error:
                        yield ("engines", numbers[name], "speculative", "draft", "on"), str(error)
                        return

    def _reaches_host(self, endpoint: Endpoint, wanted: str | None = None) -> bool:
        """The device is a CPU, or has a way to one of its node; or to a device of the group `wanted`."""
        node = next(node for node in self.cluster.nodes if node.name == endpoint.node_group)
        cpus = [
            Endpoint(endpoint.node_group, endpoint.node_index, name, index)
            for name, group in node.devices.items()
            if (self._devices[group.profile].kind == "cpu" if wanted is None else name == wanted)
            for index in range(group.count)
        ]
        return any(cpu == endpoint or self._route(endpoint, cpu) for cpu in cpus)

    def _route(self, source: Endpoint, target: Endpoint) -> bool:
        try:
            self.network.route(source, target)
        except NoRouteError:
            return False
        return True
