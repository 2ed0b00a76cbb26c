"""Outages, failures and autoscaling against the engines, nodes, devices and links they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.hardware.network import Network
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.scenario.availability import Incident
from hermes_sim.scenario.cluster import ClusterFile, Engine
from hermes_sim.scenario.targets import Part, cable_of, means_cable, parts_of

Finding = tuple[tuple[str | int, ...], str]


def check_availability(cluster: ClusterFile) -> Iterator[Finding]:
    """Key path in the cluster file, and what is wrong there."""
    for path, incident in incidents(cluster):
        yield from _check_target(cluster, path, incident)
    for index, cap in enumerate(cluster.power_caps):
        if cap.node is not None:
            wrong = _check_node(cluster, parts_of(cap.node)[0])
            yield from ((("power_caps", index, "node"), message) for message in wrong)
    for index, engine in enumerate(cluster.engines):
        yield from ((("engines", index, "autoscaling", *path), message) for path, message in _scaling(cluster, engine))


def check_links(cluster: ClusterFile, network: Network) -> Iterator[Finding]:
    """Links that incidents name and the cluster has not."""
    cables = {cable_of(link.name) for link in network.links}
    for path, incident in incidents(cluster):
        if incident.link is not None and not any(means_cable(incident.link, cable) for cable in cables):
            ends = sorted({end for cable in cables for end in cable})
            yield (*path, "link"), f"no link is, or ends at, {incident.link!r}.{did_you_mean(incident.link, ends)}"


def incidents(cluster: ClusterFile) -> Iterator[tuple[tuple[str | int, ...], Incident]]:
    """All that can happen, with their key paths."""
    for index, outage in enumerate(cluster.availability.outages):
        yield ("availability", "outages", index), outage
    for index, failures in enumerate(cluster.availability.failures):
        yield ("availability", "failures", index), failures


def _check_target(cluster: ClusterFile, path: tuple[str | int, ...], incident: Incident) -> Iterator[Finding]:
    if incident.engine is not None:
        engines = {engine.name: engine for engine in cluster.engines}
        engine = engines.get(incident.engine)
        if engine is None:
            yield (*path, "engine"), _unknown("engine", incident.engine, engines)
        elif incident.replica is not None and incident.replica >= engine.replicas:
            yield (*path, "replica"), f"engine {engine.name!r} has replicas 0 to {engine.replicas - 1}"
    if incident.node is not None:
        parts = parts_of(incident.node)
        if len(parts) > 1:
            yield (*path, "node"), f"{incident.node!r} names more than a node: write {parts[0].name!r}, or use device"
        else:
            yield from (((*path, "node"), message) for message in _check_node(cluster, parts[0]))
    if incident.device is not None:
        parts = parts_of(incident.device)
        if len(parts) != 2:
            yield (*path, "device"), f"{incident.device!r} is no node and device such as 'dgx[0].gpu[3]' or 'dgx.gpu'"
        else:
            yield from (((*path, "device"), message) for message in _check_device(cluster, *parts))


def _check_node(cluster: ClusterFile, part: Part) -> Iterator[str]:
    nodes = {node.name: node for node in cluster.nodes}
    if part.name not in nodes:
        yield _unknown("node", part.name, nodes)
    elif part.number is not None and part.number >= nodes[part.name].count:
        yield f"there are nodes {part.name}[0] to {part.name}[{nodes[part.name].count - 1}]"


def _check_device(cluster: ClusterFile, node: Part, device: Part) -> Iterator[str]:
    wrong = list(_check_node(cluster, node))
    yield from wrong
    if wrong:
        return
    group: NodeGroup = next(one for one in cluster.nodes if one.name == node.name)
    if device.name not in group.devices:
        yield _unknown("device group", device.name, group.devices)
    elif device.number is not None and device.number >= group.devices[device.name].count:
        last = group.devices[device.name].count - 1
        yield f"node {node.name!r} has {device.name}[0] to {device.name}[{last}]"


def _unknown(noun: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    return f"there is no {noun} {name!r} ({listed(names)}).{did_you_mean(name, names)}"


def _scaling(cluster: ClusterFile, engine: Engine) -> Iterator[Finding]:
    scaling = engine.autoscaling
    if scaling is None:
        return
    start = scaling.min_replicas if scaling.start_replicas is None else scaling.start_replicas
    if scaling.min_replicas > engine.replicas:
        yield ("min_replicas",), f"is more than the {engine.replicas} replicas of engine {engine.name!r}"
    elif not scaling.min_replicas <= start <= engine.replicas:
        yield ("start_replicas",), f"must lie between min_replicas and replicas ({engine.replicas}), got {start}"
    for index, one in enumerate(scaling.schedule):
        if one.replicas > engine.replicas:
            yield ("schedule", index, "replicas"), f"is more than the {engine.replicas} of engine {engine.name!r}"
    groups = {name for node in cluster.nodes for name in node.devices}
    if scaling.weights_on is not None and scaling.weights_on not in groups:
        near = did_you_mean(scaling.weights_on, sorted(groups))
        yield ("weights_on",), f"no node has devices {scaling.weights_on!r} ({listed(sorted(groups))}).{near}"
