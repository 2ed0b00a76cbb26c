"""Engines that are slow for a while: stragglers, clocks held down by heat or by a power cap, links that carry less.

What each resource limits in a step takes so much longer; where several causes meet, their factors multiply, but of
several clocks the lowest counts. A step in flight keeps its time. The split of a step's time is that at full speed: a
kernel at the edge of two limits moves from one to the other a little later than it would.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.network import Network
from hermes_sim.scenario.availability import RESOURCES
from hermes_sim.sim.replicas import Replica
from hermes_sim.state.arrays import EngineArrays

FloatArray = npt.NDArray[np.float64]
COMPUTE = RESOURCES.index("compute")


class Speeds:
    """Causes of slowness of all engines. The caller has brought an engine to the present before it changes one."""

    def __init__(self, state: EngineArrays, replicas: Sequence[Replica]) -> None:
        self._state = state
        self._replicas = replicas
        self._causes: dict[int, dict[Hashable, FloatArray]] = {}
        self._clocks: dict[int, dict[Hashable, float]] = {}
        self._full_power_w: FloatArray = state.power_w.copy()
        self._past_j = np.zeros(len(replicas))
        """Energy of the steps that ended before the engine's power last changed."""
        self._past_s: FloatArray = np.zeros((len(replicas), len(RESOURCES)))
        """Seconds of those steps, by what limits them."""

    def slow(self, e: int, cause: Hashable, slowdown: Mapping[str, float]) -> None:
        """From the next step on, times limited by these resources are so many times as long."""
        factors = np.array([slowdown.get(resource, 1.0) for resource in RESOURCES])
        self._causes.setdefault(e, {})[cause] = factors
        self._set(e)

    def restore(self, e: int, cause: Hashable) -> None:
        """The cause is gone."""
        if self._causes.get(e, {}).pop(cause, None) is not None:
            self._set(e)

    def set_clock(self, e: int, cause: Hashable, clock_frac: float | None) -> None:
        """From the next step on the devices run at this share of their clock at most; None: the cause is gone."""
        clocks = self._clocks.setdefault(e, {})
        clocks.pop(cause, None)
        if clock_frac is not None:
            clocks[cause] = clock_frac
        seconds = self._state.shares[e, : len(RESOURCES)]
        self._past_j[e] += float(((seconds - self._past_s[e]) * self._state.power_w[e]).sum())
        self._past_s[e] = seconds
        self._state.power_w[e] = self._full_power_w[e] * self._power_frac(e, min(clocks.values(), default=1.0))
        self._set(e)

    def _power_frac(self, e: int, clock_frac: float) -> FloatArray:
        """[4] power at a clock over that at the full one."""
        replica = self._replicas[e]
        idle_frac = np.minimum(replica.idle_w / np.maximum(replica.power_w, 1e-300), 1.0)
        dynamic_frac = clock_frac**replica.device.power.clock_exponent
        return np.asarray(idle_frac + (1.0 - idle_frac) * dynamic_frac)

    def _set(self, e: int) -> None:
        causes, clocks = self._causes.get(e, {}), self._clocks.get(e, {})
        slowdown = np.prod(list(causes.values()), axis=0) if causes else np.ones(len(RESOURCES))
        slowdown[COMPUTE] /= min(clocks.values(), default=1.0)
        self._state.is_slow[e] = bool((slowdown != 1.0).any())
        self._state.slowdown[e] = slowdown

    def busy_energy_j(self) -> FloatArray:
        """[num_engines] of all steps that have ended."""
        seconds = self._state.shares[:, : len(RESOURCES)]
        return np.asarray(self._past_j + ((seconds - self._past_s) * self._state.power_w).sum(axis=1))


def links_between(network: Network, replicas: Sequence[Replica]) -> frozenset[int]:
    """Links that the devices of one replica talk over: the routes of the ring through them, both ways round."""
    ends = [endpoint for replica in replicas for endpoint in replica.endpoints]
    if len(ends) < 2 or replicas[0].cost is None:
        return frozenset()
    neighbours = zip(ends, [*ends[1:], ends[0]], strict=True)
    both_ways = [pair for one, other in neighbours for pair in ((one, other), (other, one))]
    return frozenset(link_id for one, other in both_ways for link_id in network.route(one, other).link_ids)
