"""The network between nodes as switches: racks, rails, spines, how oversubscribed they are, which way flows go.

Leaf-spine and fat trees (Al-Fares, Loukissas, Vahdat, SIGCOMM 2008), rail-optimised ones too (NVIDIA DGX SuperPOD
reference architecture: NIC k of every node on leaf switch k). Without a description the network has full bisection.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Name, PositiveInt, Seconds


class FabricLevel(Description):
    """Switches of one level; the lowest joins nodes, each further one the switches of the level below."""

    name: Name
    """rack, pod, spine, data_centre ..."""
    nodes: PositiveInt | None = None
    """So many nodes, in the order of the file, are under one group of these switches; all of them on the last level."""
    switches: PositiveInt = 1
    """Equal switches that every switch of the level below has a link to; on the lowest, see `rails`."""
    oversubscription: float = Field(default=1.0, gt=0.0, le=1000.0)
    """What a switch of the level below gets from below, over what it can send up to this one; 1: full bisection."""
    latency_s: Seconds = Field(default=0.0, alias="latency")
    """Of passing one switch of this level."""


class Fabric(Description):
    """Levels of switches from the nodes upwards."""

    levels: tuple[FabricLevel, ...] = Field(min_length=1)
    rails: PositiveInt = 1
    """Leaf switches of each group of the lowest level: NIC k of every node hangs on switch k mod rails. As many as a
    node has uplinks: rail-optimised."""
    routing: Literal["ecmp", "static", "spray"] = "ecmp"
    """Which of several equal paths a flow takes: one by a hash of its number and ends; the one that belongs to its
    target (D-mod-k); a part on each."""

    @model_validator(mode="after")
    def _nested(self) -> Fabric:
        *lower, top = self.levels
        if top.nodes is not None:
            raise ValueError(f"the last level joins all nodes: leave `nodes` of {top.name!r} out")
        for level in lower:
            if level.nodes is None:
                raise ValueError(f"say how many `nodes` are under one {level.name!r}: only the last level joins all")
        for below, above in pairwise(lower):
            assert below.nodes is not None
            assert above.nodes is not None
            if above.nodes % below.nodes != 0 or above.nodes == below.nodes:
                raise ValueError(f"`nodes` of {above.name!r} must be a multiple of those of {below.name!r}")
        names = [level.name for level in self.levels]
        if len(set(names)) < len(names):
            raise ValueError("two levels of one name")
        first = self.levels[0]
        if first.switches != 1 or first.oversubscription != 1.0:
            raise ValueError(
                f"nodes hang on {first.name!r} by their own uplinks: its switches are `rails`, and what leaves it is "
                "limited by `oversubscription` of the level above"
            )
        if len(self.levels) == 1 and self.rails > 1:
            raise ValueError("rails are joined by a level above them: add one")
        return self

    @property
    def nodes_per_rack(self) -> int | None:
        """Nodes under one group of leaf switches; None where one joins all."""
        return self.levels[0].nodes
