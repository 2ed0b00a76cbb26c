"""What each device group of an engine that spans several did, drew and cost; the sums are the engine's."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.tables import DEVICE_GROUPS, Table
from hermes_sim.perf.operator_classes import CLASSES
from hermes_sim.perf.operator_rows import HOST
from hermes_sim.sim.collect_costs import electricity_usd_per_j
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.replicas import Replica
from hermes_sim.state.arrays import UNIT_J, EngineArrays


def array_row(
    replica: Replica, state: EngineArrays, e: int, on_s: float, duration_s: float, usd_per_j: float
) -> tuple[Any, ...]:
    """Of jobs on a device with an array: all of their operators are there."""
    host_w = float(replica.power_w[HOST]) - replica.idle_w
    lanes, busy_s = float(state.num_lanes[e]), float(state.unit_sums[e, 0])
    active_j = float(state.unit_sums[e, UNIT_J] + state.shares[e, HOST] * host_w / lanes)
    energy_j = active_j + replica.idle_w * on_s
    (group, *_) = replica.engine.placement
    return (
        replica.name,
        group,
        replica.device.name,
        "+".join(CLASSES),
        replica.num_devices,
        busy_s,
        busy_s / (lanes * duration_s) if duration_s > 0.0 else 0.0,
        active_j,
        energy_j,
        replica.price_usd_per_h * on_s / 3600.0 + energy_j * usd_per_j,
    )


def device_group_table(coordinator: Coordinator, duration_s: float) -> Table | None:
    """One row per engine and group; None where every engine runs on one kind of plain devices."""
    lowered, state = coordinator.lowered, coordinator.state
    on_s, usd_per_j = coordinator.on_s(duration_s), electricity_usd_per_j(lowered)
    rows: list[tuple[Any, ...]] = []
    for e, replica in enumerate(lowered.replicas):
        placement = replica.cost.placement if replica.cost is not None else None
        if replica.runs_jobs_on_arrays:
            rows.append(array_row(replica, state, e, float(on_s[e]), duration_s, float(usd_per_j[e])))
        if placement is None:
            continue
        pp, lanes = replica.engine.parallel.pp, float(state.num_lanes[e])
        for number, unit in enumerate(placement.units):
            busy_s, active_j = float(state.unit_sums[e, number]), float(state.unit_sums[e, UNIT_J + number])
            if number == 0:  # the host of the first group
                active_j += float(state.shares[e, HOST] * unit.active_w[HOST])
            price_usd_per_s = unit.device.usd_per_h * unit.tp * pp * unit.share_frac / 3600.0
            idle_j = unit.idle_w * pp * float(on_s[e])
            here = placement.classes(number)
            rows.append((
                replica.name,
                unit.group,
                unit.device.name,
                "+".join(name for name in CLASSES if name in here),
                unit.tp * pp,
                busy_s,
                busy_s / (lanes * duration_s) if duration_s > 0.0 else 0.0,
                active_j,
                active_j + idle_j,
                price_usd_per_s * float(on_s[e]) + (active_j + idle_j) * usd_per_j[e],
            ))  # fmt: skip
    if not rows:
        return None
    dtypes: dict[str, Any] = {"category": object, "int64": np.int64, "float64": np.float64}
    return {
        name: np.array([row[place] for row in rows], dtypes[dtype])
        for place, (name, dtype) in enumerate(DEVICE_GROUPS.items())
    }
