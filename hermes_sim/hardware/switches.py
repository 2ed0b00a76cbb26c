"""The switches between nodes as links, and the equal paths over them.

A switch of level i is (group, plane): the plane says through which switches of the levels below it is reached, so that
a path is chosen on the way up and mirrored on the way down, as in a fat tree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

from hermes_sim.hardware.fabric import Fabric

Plane = tuple[int, ...]
Switch = tuple[int, int, Plane]
"""(level, group, plane); on the lowest level the plane is the rail."""
AddLink = Callable[[str, str, float, float, float, float], int]
"""(name, level, peak, bandwidth, latency, energy per byte) -> id of the new link."""


@dataclass(slots=True)
class Capacity:
    """What comes into a switch from below."""

    peak_bytes_per_s: float = 0.0
    bandwidth_bytes_per_s: float = 0.0
    energy_per_byte_j: float = 0.0


class Switches:
    """All links between switches."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self._below: dict[Switch, Capacity] = {}
        self._links: dict[tuple[Switch, Switch], int] = {}

    def leaf(self, node_number: int, nic: int) -> Switch:
        """The lowest switch that a NIC hangs on."""
        return 0, self._group(0, node_number), (nic % self.fabric.rails,)

    def plug_in(self, node_number: int, nic: int, peak: float, bandwidth: float, energy_per_byte_j: float) -> None:
        """A NIC's link to its leaf, of so many bytes/s: what is above is sized by it."""
        below = self._below.setdefault(self.leaf(node_number, nic), Capacity())
        below.peak_bytes_per_s += peak
        below.bandwidth_bytes_per_s += bandwidth
        below.energy_per_byte_j = max(below.energy_per_byte_j, energy_per_byte_j)

    def build(self, add_link: AddLink) -> None:
        """Links up and down, level by level: capacity from below / (oversubscription x switches) each."""
        for level, above in list(enumerate(self.fabric.levels))[1:]:
            lower = [switch for switch in self._below if switch[0] == level - 1]
            for switch in sorted(lower):
                capacity = self._below[switch]
                share = 1.0 / (above.oversubscription * above.switches)
                for upper in self._above(switch, switch[1]):
                    ends = self._name(switch), self._name(upper)
                    half = 0.5 * capacity.energy_per_byte_j  # a transceiver at each end, as between a NIC and its leaf
                    for pair, (tail, head) in (((switch, upper), ends), ((upper, switch), ends[::-1])):
                        into = self.fabric.levels[pair[1][0]]
                        self._links[pair] = add_link(
                            f"{tail}->{head}",
                            above.name,
                            capacity.peak_bytes_per_s * share,
                            capacity.bandwidth_bytes_per_s * share,
                            into.latency_s,
                            half,
                        )
                    up = self._below.setdefault(upper, Capacity())
                    up.peak_bytes_per_s += capacity.peak_bytes_per_s * share
                    up.bandwidth_bytes_per_s += capacity.bandwidth_bytes_per_s * share
                    up.energy_per_byte_j = max(up.energy_per_byte_j, capacity.energy_per_byte_j)

    def paths(self, source: Switch, target: Switch) -> list[tuple[int, ...]]:
        """Ids of the links of every shortest path between two leaves; [()] for one leaf, none if nothing joins them."""
        if source == target:
            return [()]
        levels = self.fabric.levels
        for top in range(1, len(levels)):
            if self._group_above(top, source[1]) == self._group_above(top, target[1]):
                choices = product(*(range(levels[level].switches) for level in range(1, top + 1)))
                return [self._path(source, target, choice) for choice in choices]
        return []

    def _path(self, source: Switch, target: Switch, choice: Plane) -> tuple[int, ...]:
        up, down = [source], [target]
        for level in range(1, len(choice) + 1):
            for way, leaf in ((up, source), (down, target)):
                way.append((level, self._group_above(level, leaf[1]), choice[:level]))
        pairs = [*pairwise(up), *pairwise(down[::-1])]
        return tuple(self._links[pair] for pair in pairs)

    def _above(self, switch: Switch, group: int) -> list[Switch]:
        """The switches of the next level that a switch has links to."""
        level, _, plane = switch
        higher = level + 1
        lowest = group if level == 0 else group * self._racks_per(level)
        stem = () if level == 0 else plane
        number = self.fabric.levels[higher].switches
        return [(higher, self._group_above(higher, lowest), (*stem, choice)) for choice in range(number)]

    def _group(self, level: int, node_number: int) -> int:
        nodes = self.fabric.levels[level].nodes
        return 0 if nodes is None else node_number // nodes

    def _group_above(self, level: int, rack: int) -> int:
        """Group of a level that a rack is in."""
        nodes, per_rack = self.fabric.levels[level].nodes, self.fabric.nodes_per_rack
        return 0 if nodes is None or per_rack is None else rack * per_rack // nodes

    def _racks_per(self, level: int) -> int:
        """Racks in a group of a level that is not the last."""
        nodes, per_rack = self.fabric.levels[level].nodes, self.fabric.nodes_per_rack
        assert nodes is not None
        assert per_rack is not None
        return nodes // per_rack

    def _name(self, switch: Switch) -> str:
        level, group, plane = switch
        return f"{self.fabric.levels[level].name}[{group}].switch[{'.'.join(map(str, plane))}]"
