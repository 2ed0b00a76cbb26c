"""Quickest path through a graph of links (Dijkstra 1959).

The graphs are a few hundred edges at most, and a graph library takes longer to import than all searches of a run.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

Vertex = str


@dataclass(frozen=True, slots=True)
class Edge:
    """One direction of one link."""

    link_id: int | None
    """None inside a NIC, where nothing is shared."""
    seconds: float
    """>= 0; the weight of the search."""


Graph = Mapping[Vertex, Mapping[Vertex, Edge]]
"""Tail -> head -> edge; a vertex without edges has an empty mapping."""


class NoPathError(LookupError):
    """The two vertices are not connected, or one of them is not there."""


def quickest_path(graph: Graph, start: Vertex, stop: Vertex, ends: Container[Vertex] = ()) -> list[Edge]:
    """Edges of the path with the smallest sum of seconds.

    Of equal paths it is the one with the fewest edges, then the one found first. ends: vertices that forward nothing;
    a path may begin or stop at one but not cross it. Raises NoPathError.
    """
    pending: list[tuple[float, int, int, Vertex]] = [(0.0, 0, 0, start)]  # (seconds, edges, order found, vertex)
    came_by: dict[Vertex, tuple[Vertex, Edge]] = {}
    best: dict[Vertex, tuple[float, int]] = {start: (0.0, 0)}
    order = 0
    while pending:
        seconds, num_edges, _, tail = heappop(pending)
        if tail == stop:
            return _walk_back(came_by, start, stop)
        if (seconds, num_edges) > best[tail] or (tail in ends and tail != start):
            continue
        for head, edge in graph.get(tail, {}).items():
            reached = (seconds + edge.seconds, num_edges + 1)
            if head not in best or reached < best[head]:
                best[head] = reached
                came_by[head] = (tail, edge)
                order += 1
                heappush(pending, (*reached, order, head))
    raise NoPathError(f"no path from {start} to {stop}")


def _walk_back(came_by: Mapping[Vertex, tuple[Vertex, Edge]], start: Vertex, stop: Vertex) -> list[Edge]:
    edges: list[Edge] = []
    while stop != start:
        stop, edge = came_by[stop]
        edges.append(edge)
    return edges[::-1]
