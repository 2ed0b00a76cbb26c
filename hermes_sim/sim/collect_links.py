"""What the links between devices carried."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.sim.collect_costs import link_carbon_g
from hermes_sim.sim.coordinator import Coordinator


def link_table(coordinator: Coordinator, duration_s: float) -> Table:
    """One row per direction of a link that carried a transfer (collectives are part of steps)."""
    used = [number for number, use in enumerate(coordinator.flows.uses) if use.num_transfers > 0]
    links = [coordinator.flows.links[number] for number in used]
    uses = [coordinator.flows.uses[number] for number in used]
    moved = np.array([use.num_bytes for use in uses])
    capacity = np.array([link.bandwidth_bytes_per_s for link in links]) * duration_s
    energy_j = moved * np.array([link.energy_per_byte_j for link in links])
    return {
        "link": np.array([link.name for link in links], object),
        "bytes": moved,
        "num_transfers": np.array([use.num_transfers for use in uses], np.int64),
        "energy_j": energy_j,
        "carbon_g": link_carbon_g(coordinator.lowered.scenario.cluster, energy_j, duration_s),
        "busy_s": np.array([use.busy_s for use in uses]),
        "utilization_frac": np.divide(moved, capacity, out=np.zeros(len(links)), where=capacity > 0),
    }


def link_timeline_table(coordinator: Coordinator, edges_s: npt.NDArray[np.float64]) -> Table | None:
    """One row per link of link_table and interval, whose bytes add up to it; None where no link carried a transfer.

    edges_s: [num_intervals + 1], those of the engines' timeline.
    """
    flows = coordinator.flows
    used = [number for number, use in enumerate(flows.uses) if use.num_transfers > 0]
    if not used:
        return None
    carried = flows.log.bytes_over_time(len(flows.links), edges_s)[used]
    links = [flows.links[number] for number in used]
    bandwidth = np.array([link.bandwidth_bytes_per_s for link in links])[:, None]
    capacity = bandwidth * np.diff(edges_s)
    return {
        "link": np.repeat(np.array([link.name for link in links], object), len(edges_s) - 1),
        "start_s": np.tile(edges_s[:-1], len(links)),
        "end_s": np.tile(edges_s[1:], len(links)),
        "bytes": carried.ravel(),
        "utilization_frac": np.divide(carried, capacity, out=np.zeros_like(carried), where=capacity > 0).ravel(),
    }
