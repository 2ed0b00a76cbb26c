"""Path search, held against NetworkX's on every pair of devices of every shipped cluster."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import networkx as nx
import pytest

from hermes_sim.hardware.quickest import Edge, NoPathError, quickest_path
from hermes_sim.hardware.topology import Topology
from hermes_sim.scenario.library import entries
from hermes_sim.scenario.load import load_scenario
from tests import scenarios


def graph(*edges: tuple[str, str, float]) -> dict[str, dict[str, Edge]]:
    made: dict[str, dict[str, Edge]] = {}
    for number, (tail, head, seconds) in enumerate(edges):
        made.setdefault(tail, {})[head] = Edge(number, seconds)
        made.setdefault(head, {})
    return made


def ids(path: list[Edge]) -> list[int | None]:
    return [edge.link_id for edge in path]


def test_the_quickest_not_the_shortest() -> None:
    ways = graph(("a", "d", 5.0), ("a", "b", 1.0), ("b", "c", 1.0), ("c", "d", 1.0))
    assert ids(quickest_path(ways, "a", "d")) == [1, 2, 3]
    assert ids(quickest_path(ways, "a", "a")) == []


def test_of_equal_ways_the_one_with_fewest_edges() -> None:
    ways = graph(("a", "b", 1.0), ("b", "c", 1.0), ("a", "c", 2.0), ("a", "e", 1.0), ("e", "c", 1.0))
    assert ids(quickest_path(ways, "a", "c")) == [2]
    without_direct = graph(("a", "b", 1.0), ("b", "c", 1.0), ("a", "e", 1.0), ("e", "c", 1.0))
    assert ids(quickest_path(without_direct, "a", "c")) == [0, 1]


def test_ends_forward_nothing() -> None:
    ways = graph(("a", "b", 1.0), ("b", "c", 1.0), ("a", "s", 4.0), ("s", "c", 4.0))
    assert ids(quickest_path(ways, "a", "c", ends={"a", "b", "c"})) == [2, 3]


@pytest.mark.parametrize(("start", "stop"), [("b", "a"), ("a", "nowhere"), ("nowhere", "a")])
def test_no_way(start: str, stop: str) -> None:
    with pytest.raises(NoPathError, match=f"no path from {start} to {stop}"):
        quickest_path(graph(("a", "b", 1.0)), start, stop)


@pytest.mark.parametrize("name", [entry.name for entry in entries("cluster")])
def test_as_quick_as_networkx(name: str) -> None:
    """Sums of the quickest paths between all devices, and which pairs have none."""
    scenario = load_scenario(name, scenarios.workload())
    topology = Topology(scenario.cluster.nodes, scenario.links, scenario.cluster.network)
    oracle: nx.DiGraph[str] = nx.DiGraph()
    for tail, heads in topology.graph.items():
        oracle.add_node(tail)
        oracle.add_edges_from((tail, head, {"seconds": edge.seconds}) for head, edge in heads.items())
    devices = [vertex for vertex in topology.graph if vertex.endswith("]") and ".nic[" not in vertex]
    assert len(devices) > 1
    for start, stop in permutations(devices[:12], 2):

        def seconds(tail: str, head: str, edge: dict[str, Any], start: str = start) -> float | None:
            return None if tail in topology.ends and tail != start else edge["seconds"]

        try:
            expected = nx.shortest_path_length(oracle, start, stop, weight=seconds)
        except nx.NetworkXNoPath:
            with pytest.raises(NoPathError):
                quickest_path(topology.graph, start, stop, topology.ends)
            continue
        path = quickest_path(topology.graph, start, stop, topology.ends)
        assert sum(edge.seconds for edge in path) == pytest.approx(expected, rel=1e-12)
