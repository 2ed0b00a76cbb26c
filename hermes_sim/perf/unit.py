"""A device group as part of an engine that spans several: its device, how many share the work, what joins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hermes_sim.hardware.device import Device
from hermes_sim.perf.collective_coefficients import FROM_BANDWIDTH, Collectives
from hermes_sim.perf.operator_classes import OperatorClass

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """Equal devices of one group; each holds its share of every matrix and head of the operators placed there."""

    group: str
    device: Device
    """As it computes: with the bandwidth inside the memory where units at the banks do the work."""
    tp: int
    """Devices of the group."""
    share_frac: float = 1.0
    """Of the devices' cores that are the engine's, for their rent; numbers of `device` are of this share already."""
    bandwidth_bytes_per_s: float = float("inf")
    """Between them, per device and direction."""
    latency_s: float = 0.0
    collectives: Collectives = field(default=FROM_BANDWIDTH, compare=False)

    @property
    def idle_w(self) -> float:
        """Of all devices, or of the engine's cores of them."""
        return self.device.power.idle_w * self.tp

    @property
    def active_w(self) -> FloatArray:
        """[4] above idle while limited by compute, memory, network, host; never below zero."""
        power = self.device.power
        fracs = [power.compute_bound_frac, power.memory_bound_frac, power.network_bound_frac, power.host_bound_frac]
        return np.maximum(power.tdp_w * np.array(fracs) - power.idle_w, 0.0) * self.tp


@dataclass(frozen=True, slots=True)
class UnitLink:
    """What one unit has to send activations to another, all devices of both at once."""

    bandwidth_bytes_per_s: float
    latency_s: float
    energy_per_byte_j: float = 0.0


@dataclass(frozen=True, slots=True)
class UnitPlacement:
    """Which unit has which operators, and what joins the units. The first has the matrices: `linear`."""

    units: tuple[Unit, ...]
    unit_of: Mapping[OperatorClass, int] = field(hash=False)
    links: Mapping[tuple[int, int], UnitLink] = field(hash=False)
    """(from, to) -> link, for units that differ."""
    interleave_from_seqs: int | None = None
    """Attention of one part of the batch beside everything else of the other, where so many decode; None: never."""

    def of(self, operator_class: OperatorClass) -> Unit:
        return self.units[self.unit_of[operator_class]]

    def classes(self, unit: int) -> frozenset[OperatorClass]:
        """What lies there."""
        return frozenset(operator_class for operator_class, place in self.unit_of.items() if place == unit)

    @property
    def idle_w(self) -> float:
        """Of all devices."""
        return sum(unit.idle_w for unit in self.units)

    @property
    def power_w(self) -> FloatArray:
        """[4] of all devices while each resource limits, without what their operators draw above idle.

        While the host limits, the first unit's power for that.
        """
        power_w = np.full(4, self.idle_w)
        power_w[3] += self.units[0].active_w[3]
        return power_w
