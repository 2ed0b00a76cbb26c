"""The cluster as a drawing: devices by the engine that has them, links by how busy they were."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Final

from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.human import percent
from hermes_sim.analysis.report.chart import COLORS
from hermes_sim.hardware.placement import PlacementError, Slots
from hermes_sim.hardware.topology import Topology

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.scenario.scenario import Scenario

MOST_NODES: Final = 8
"""Nodes that are drawn; the page says how many more there are."""
CELL: Final = 46
"""Pixels between two devices of a row."""
ROW: Final = 74
SIZE: Final = 30
"""Of a device."""
MARGIN: Final = 26
MOST_IN_A_ROW: Final = 8
SHORTEST_LABEL: Final = 2

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """One node: its corner and its size."""

    name: str
    x: float
    y: float
    width: float
    height: float


def cluster_svg(results: Results) -> str:
    """Nodes with their devices, switches and NICs, and the links between them, as inline SVG."""
    scenario = results.scenario
    cluster = scenario.cluster
    topology = Topology(cluster.nodes, scenario.links, cluster.network, cluster.fabric)
    owner = _owners(scenario)
    nodes = [f"{group.name}[{index}]" for group in cluster.nodes for index in range(group.count)]
    drawn = nodes[:MOST_NODES]
    boxes, places = _layout(drawn, [str(vertex) for vertex in topology.graph.nodes])
    used = _utilization(results)
    width = max((box.x + box.width for box in boxes), default=0.0) + MARGIN
    height = max((y for _, y in places.values()), default=0.0) + ROW
    parts = [f'<rect class="node" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="8"/>'
             f'<text class="node-name" x="{box.x + 8:g}" y="{box.y + 16:g}">{escape(box.name)}</text>'
             for box in boxes]  # fmt: skip
    parts += _edges(topology, places, used)
    parts += _devices(places, owner)
    more = len(nodes) - len(drawn)
    if more > 0:
        parts.append(f'<text class="more" x="{MARGIN}" y="{height - 8:g}">and {more:,} more nodes</text>')
    return (
        f'<svg class="cluster" viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px" role="img" '
        f'aria-label="Cluster {escape(cluster.name)}">{"".join(parts)}</svg>{_legend(owner)}'
    )


def _owners(scenario: Scenario) -> dict[str, str]:
    """Device -> the engines that have it, as one text."""
    slots = Slots(scenario.cluster.nodes, scenario.devices)
    found: dict[str, list[str]] = {}
    for engine in scenario.cluster.engines:
        wants = {name: (share.devices, share.cores) for name, share in engine.placement.items()}
        try:
            replicas = slots.allocate_replicas(engine.node, wants, engine.replicas)
        except PlacementError:
            continue
        for endpoints in replicas:
            for endpoint in endpoints:
                names = found.setdefault(str(endpoint), [])
                if engine.name not in names:
                    names.append(engine.name)
    return {device: ", ".join(names) for device, names in found.items()}


def _layout(nodes: Sequence[str], vertices: Sequence[str]) -> tuple[list[Box], dict[str, Point]]:
    """Nodes side by side, two rows of them where they are many; what is between nodes below all."""
    places: dict[str, Point] = {}
    boxes = []
    x, y, tallest = float(MARGIN), float(MARGIN), 0.0
    per_line = len(nodes) if len(nodes) <= 2 else math.ceil(len(nodes) / 2)
    for number, node in enumerate(nodes):
        if number and number % per_line == 0:
            x, y, tallest = float(MARGIN), y + tallest + MARGIN, 0.0
        rows = _rows(node, vertices)
        width = max(max(len(row) for row in rows) * CELL + MARGIN, 120.0) if rows else 120.0
        height = len(rows) * ROW + MARGIN
        for line, row in enumerate(rows):
            step = width / (len(row) + 1)
            for place, vertex in enumerate(row):
                places[vertex] = (x + step * (place + 1), y + MARGIN + ROW * (line + 0.5))
        boxes.append(Box(node, x, y, width, height))
        x, tallest = x + width + MARGIN, max(tallest, height)
    width = max((box.x + box.width for box in boxes), default=0.0)
    between = [vertex for vertex in vertices if not re.match(r"[^\[]+\[\d+\]\.", vertex)]
    shared = list(dict.fromkeys(_shown(vertex) for vertex in between))
    for place, vertex in enumerate(shared):
        places[vertex] = (width * (place + 1) / (len(shared) + 1), y + tallest + ROW * 0.6)
    return boxes, places


def _rows(node: str, vertices: Sequence[str]) -> list[list[str]]:
    """Devices of each group, switches and NICs of a node from top to bottom."""
    groups: dict[str, list[str]] = {}
    for vertex in vertices:
        if vertex.startswith(f"{node}."):
            shown = _shown(vertex)
            kind = re.sub(r"\[.*", "", shown[len(node) + 1 :])
            members = groups.setdefault(kind, [])
            if shown not in members:
                members.append(shown)
    order = sorted(groups, key=lambda kind: (kind == "nic", "switch" not in kind and len(groups[kind]) <= 2, kind))
    rows = []
    for kind in order:
        members = groups[kind]
        rows += [members[start : start + MOST_IN_A_ROW] for start in range(0, len(members), MOST_IN_A_ROW)]
    return rows


def _shown(vertex: str) -> str:
    """The two directions of a NIC or of a switch are one thing to see."""
    return re.sub(r"( in| out|\.send|\.receive|\.up|\.down| up| down)$", "", vertex)


def _utilization(results: Results) -> dict[str, float]:
    """Link -> share of its bandwidth that was in use over the run, of those that carried anything."""
    links = results.links
    names = [str(name) for name in links["link"]]
    return dict(zip(names, floats(links, "utilization_frac").tolist(), strict=True))


def _edges(topology: Topology, places: Mapping[str, Point], used: Mapping[str, float]) -> Iterator[str]:
    """Each pair of neighbours once, by its busier direction."""
    found: dict[tuple[str, str], tuple[float, list[str]]] = {}
    for source, target, data in topology.graph.edges(data=True):
        ends = tuple(sorted((_shown(str(source)), _shown(str(target)))))
        if ends[0] == ends[1] or any(end not in places for end in ends):
            continue
        link = None if data["link_id"] is None else topology.links[data["link_id"]]
        busy = used.get(link.name, 0.0) if link is not None else 0.0
        words = [] if link is None else [f"{link.name} ({link.profile}): {percent(busy)} of its bandwidth in use"]
        before = found.get((ends[0], ends[1]), (0.0, []))
        found[ends[0], ends[1]] = (max(before[0], busy), before[1] + words)
    for (first, second), (busy, words) in found.items():
        (x1, y1), (x2, y2) = places[first], places[second]
        level = 0 if busy <= 0.0 else 1 + min(int(busy * 4), 3)
        title = escape("\n".join(words))
        yield (
            f'<line class="link load-{level}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}">'
            f"<title>{title}</title></line>"
        )


def _devices(places: Mapping[str, Point], owner: Mapping[str, str]) -> Iterator[str]:
    styles = dict(zip(dict.fromkeys(owner.values()), cycle(COLORS), strict=False))
    for vertex, (x, y) in places.items():
        name = re.sub(r"^[^\[]+\[\d+\]\.", "", vertex)
        engines = owner.get(vertex)
        if engines is None:
            yield (
                f'<g class="switch"><rect x="{x - 30:.1f}" y="{y - 9:.1f}" width="60" height="18" rx="9"/>'
                f'<text x="{x:.1f}" y="{y + 3.5:.1f}">{escape(re.sub(r" of .*", "", name))}</text>'
                f"<title>{escape(vertex)}</title></g>"
            )
            continue
        letters = engines[:SHORTEST_LABEL]
        yield (
            f'<g class="device"><rect x="{x - SIZE / 2:.1f}" y="{y - SIZE / 2:.1f}" width="{SIZE}" height="{SIZE}" '
            f'rx="5" style="fill:{styles[engines]}"/><text x="{x:.1f}" y="{y + 4:.1f}">{escape(letters)}</text>'
            f'<text class="below" x="{x:.1f}" y="{y + SIZE / 2 + 11:.1f}">{escape(name)}</text>'
            f"<title>{escape(vertex)}: {escape(engines)}</title></g>"
        )


def _legend(owner: Mapping[str, str]) -> str:
    styles = dict(zip(dict.fromkeys(owner.values()), cycle(COLORS), strict=False))
    engines = "".join(
        f'<span><i style="background:{color}">{escape(name[:SHORTEST_LABEL])}</i>{escape(name)}</span>'
        for name, color in styles.items()
    )
    loads = "".join(
        f'<span><b class="load-{level}"></b>{words}</span>'
        for level, words in enumerate(("unused", "up to 25%", "up to 50%", "up to 75%", "more"))
    )
    return f'<p class="legend">{engines}</p><p class="legend">share of a link\'s bandwidth in use: {loads}</p>'
