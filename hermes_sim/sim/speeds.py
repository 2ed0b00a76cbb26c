"""Engines that are slow for a while: stragglers, clocks held down by heat, links that carry less between their devices.

What each resource limits in a step takes so much longer; where several causes meet, their factors multiply. A step in
flight keeps its time. The split of a step's time is that at full speed: a kernel at the edge of two limits moves
from one to the other a little later than it would.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.network import Network
from hermes_sim.scenario.availability import RESOURCES
from hermes_sim.sim.replicas import Replica
from hermes_sim.state.arrays import EngineArrays

NETWORK = RESOURCES.index("network")


class Speeds:
    """Causes of slowness of all engines. The caller has brought an engine to the present before it changes one."""

    def __init__(self, state: EngineArrays) -> None:
        self._state = state
        self._causes: dict[int, dict[Hashable, npt.NDArray[np.float64]]] = {}

    def slow(self, e: int, cause: Hashable, slowdown: Mapping[str, float]) -> None:
        """From the next step on, times limited by these resources are so many times as long."""
        factors = np.array([slowdown.get(resource, 1.0) for resource in RESOURCES])
        self._causes.setdefault(e, {})[cause] = factors
        self._set(e)

    def restore(self, e: int, cause: Hashable) -> None:
        """The cause is gone."""
        if self._causes.get(e, {}).pop(cause, None) is not None:
            self._set(e)

    def _set(self, e: int) -> None:
        causes = self._causes[e]
        self._state.is_slow[e] = bool(causes)
        self._state.slowdown[e] = np.prod(list(causes.values()), axis=0) if causes else 1.0


def links_between(network: Network, replicas: Sequence[Replica]) -> frozenset[int]:
    """Links that the devices of one replica talk over: the routes of the ring through them, both ways round."""
    ends = [endpoint for replica in replicas for endpoint in replica.endpoints]
    if len(ends) < 2 or replicas[0].cost is None:
        return frozenset()
    neighbours = zip(ends, [*ends[1:], ends[0]], strict=True)
    both_ways = [pair for one, other in neighbours for pair in ((one, other), (other, one))]
    return frozenset(link_id for one, other in both_ways for link_id in network.route(one, other).link_ids)
