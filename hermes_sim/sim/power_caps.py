"""Power caps on the clock: which clock the devices of each node, or of the cluster, keep to, and since when.

P = idle + dynamic x (f / f0)^3: dynamic power is C V^2 f, and the voltage goes with the frequency (Rabaey, Digital
Integrated Circuits, section 5.5). It gives 1.31 times the compute-limited time for an H100 held to half its power,
where Splitwise (ISCA 2024, section on power capping) saw 1.3. What memory, network and host limit keeps its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.core.errors import SimulationError
from hermes_sim.core.units import format_quantity
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.topology import Endpoint
from hermes_sim.scenario.power_cap import PowerCap, clock_frac
from hermes_sim.scenario.targets import parts_of
from hermes_sim.sim.advance import pull_all
from hermes_sim.sim.ranks import CONTROL, FAILURE

if TYPE_CHECKING:
    from hermes_sim.sim.coordinator import Coordinator


class PowerCaps:
    """All caps of a run."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._lowered = coordinator.lowered

    def start(self) -> None:
        """Put them on the clock. Raises SimulationError where no clock keeps to one."""
        for number, cap in enumerate(self._lowered.scenario.cluster.power_caps):
            for node, devices in self._scopes(cap):
                clock = self._clock(cap, node, devices)
                engines = [
                    e for e, one in enumerate(self._lowered.replicas) if not devices.keys().isdisjoint(one.endpoints)
                ]
                if clock == 1.0 or not engines:
                    continue
                self._at(cap.at_s, FAILURE, engines[0], partial(self._set, engines, (number, node), clock))
                if cap.lasts_s is not None:
                    self._at(
                        cap.at_s + cap.lasts_s, CONTROL, engines[0], partial(self._set, engines, (number, node), None)
                    )

    def _scopes(self, cap: PowerCap) -> Iterator[tuple[str, dict[Endpoint, Device]]]:
        """What has the cap: (node, its devices), or (nothing, all devices)."""
        everything: dict[Endpoint, Device] = {}
        for group in self._lowered.scenario.cluster.nodes:
            for index in range(group.count):
                devices = {
                    Endpoint(group.name, index, name, place): self._lowered.scenario.devices[some.profile]
                    for name, some in group.devices.items()
                    for place in range(some.count)
                }
                everything.update(devices)
                if cap.node is not None and parts_of(cap.node)[0].covers(group.name, index):
                    yield f"{group.name}[{index}]", devices
        if cap.node is None:
            yield "", everything

    def _clock(self, cap: PowerCap, node: str, devices: dict[Endpoint, Device]) -> float:
        """The same for all devices of engines; the others idle."""
        working = {endpoint for replica in self._lowered.replicas for endpoint in replica.endpoints}
        idle_w = sum(device.power.idle_w for device in devices.values())
        at_work = [device for endpoint, device in devices.items() if endpoint in working]
        dynamic_w = sum(largest_w(device) - device.power.idle_w for device in at_work)
        exponent = max((device.power.clock_exponent for device in at_work), default=1.0)
        clock = clock_frac(cap.cap_w, idle_w, dynamic_w, exponent)
        lowest = max((device.power.lowest_clock_frac for device in at_work), default=0.0)
        if clock < lowest:
            least = format_quantity(idle_w + dynamic_w * lowest**exponent, "power")
            where = f"node '{node}'" if node else "the cluster"
            shown = format_quantity(cap.cap_w, "power")
            raise SimulationError(f"{where} cannot keep to {shown}: at their lowest clock its devices may draw {least}")
        return clock

    def _at(self, time_s: float, rank: int, engine: int, act: Any) -> None:
        def on_time(event: Any) -> None:
            if self._coordinator.ends.num_open > 0:
                act(time_s, rank)

        self._coordinator.clock.at(time_s, rank, on_time, kind=1, engine=engine)

    def _set(self, engines: list[int], cause: tuple[int, str], clock: float | None, time_s: float, rank: int) -> None:
        pull_all(self._coordinator.handle, np.array(engines), time_s, rank)
        for e in engines:
            self._coordinator.speeds.set_clock(e, cause, clock)


def largest_w(device: Device) -> float:
    """What a device may draw."""
    power = device.power
    return power.tdp_w * max(power.compute_bound_frac, power.memory_bound_frac)
