"""Money and carbon of a run: of each engine, and shared among the requests so that nothing is left over.

Rent, or capital written off, is paid for the time an engine is on. Owned devices pay their electricity beside it:
energy x PUE x price. Carbon is energy x PUE x intensity of the grid while it was used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.scenario.cluster import ClusterFile
from hermes_sim.scenario.grid import GridIntensity
from hermes_sim.sim.collect_stages import StageRows, per_request
from hermes_sim.sim.collect_timeline import Timeline
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.state.arrays import (
    ENERGY,
    ENGINE_TIME,
    TIMELINE_BUSY_S,
    TIMELINE_COMPUTE_S,
    TIMELINE_HOST_S,
)

FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

J_PER_KWH: Final = 3.6e6


def grid_intensity(cluster: ClusterFile) -> GridIntensity:
    """Of the cluster's electricity."""
    return GridIntensity(cluster.carbon_g_per_kwh, cluster.carbon_by_hour)


def electricity_usd_per_j(lowered: Lowered) -> FloatArray:
    """[num_engines] of the devices' energy, the facility's overhead included; 0 where a rent covers it."""
    cluster = lowered.scenario.cluster
    usd_per_j = cluster.electricity_usd_per_kwh * cluster.pue / J_PER_KWH
    return np.array([usd_per_j if replica.is_owned else 0.0 for replica in lowered.replicas])


def engine_costs(lowered: Lowered, timeline: Timeline, energy_j: FloatArray, on_s: FloatArray) -> Table:
    """cost_usd, of it electricity_usd, and carbon_g of each engine."""
    electricity_usd = energy_j * electricity_usd_per_j(lowered)
    rent_usd = np.array([replica.price_usd_per_h for replica in lowered.replicas]) * on_s / 3600.0
    return {
        "cost_usd": rent_usd + electricity_usd,
        "electricity_usd": electricity_usd,
        "carbon_g": _engine_carbon_g(lowered, timeline, energy_j),
    }


def _engine_carbon_g(lowered: Lowered, timeline: Timeline, energy_j: FloatArray) -> FloatArray:
    """[num_engines] the energy of each interval of the timeline at its mean intensity."""
    cluster = lowered.scenario.cluster
    grid = grid_intensity(cluster)
    if grid.is_constant:
        return energy_j * (cluster.pue / J_PER_KWH * cluster.carbon_g_per_kwh)
    counters, state = timeline.counters, lowered.state
    seconds = counters[:, :, TIMELINE_COMPUTE_S : TIMELINE_HOST_S + 1]
    busy_j = np.einsum("eir,er->ei", seconds, state.power_w)
    idle_s = np.maximum(timeline.lengths_s - counters[:, :, TIMELINE_BUSY_S] / state.num_lanes[:, None], 0.0)
    all_idle_s = idle_s.sum(axis=1, keepdims=True)
    idle_share = np.divide(idle_s, all_idle_s, out=np.zeros_like(idle_s), where=all_idle_s > 0.0)
    interval_j = busy_j + idle_share * np.maximum(energy_j - busy_j.sum(axis=1), 0.0)[:, None]
    total_j = interval_j.sum(axis=1)
    intensity = grid.mean_g_per_kwh(timeline.edges_s[:-1], timeline.edges_s[1:])
    mean = np.divide(interval_j @ intensity, total_j, out=np.zeros(len(total_j)), where=total_j > 0.0)
    return np.asarray(energy_j * mean * (cluster.pue / J_PER_KWH))


def link_carbon_g(cluster: ClusterFile, energy_j: FloatArray, duration_s: float) -> FloatArray:
    """Of transfers, at the mean intensity of the run: links are not watched over time."""
    mean = float(grid_intensity(cluster).mean_g_per_kwh(np.zeros(1), np.array([duration_s]))[0])
    return energy_j * (cluster.pue / J_PER_KWH * mean)


def request_carbon_g(
    coordinator: Coordinator, stages: Sequence[StageRows], engines: Table, joules: Table, finish_s: FloatArray
) -> FloatArray:
    """[num_requests] of all energy of each: at the intensity while it was served, the rest like its idle energy.

    joules: energy_j, idle_energy_j and link_energy_j of the requests. finish_s: [num_visits].
    """
    lowered, cluster = coordinator.lowered, coordinator.lowered.scenario.cluster
    grid = grid_intensity(cluster)
    if grid.is_constant:
        all_j = joules["energy_j"] + joules["idle_energy_j"] + joules["link_energy_j"]
        return all_j * (cluster.pue / J_PER_KWH * cluster.carbon_g_per_kwh)
    state, number = lowered.state, lowered.num_visits
    start_s = np.nan_to_num(state.row_start_s[:number])
    end_s = np.maximum(np.nan_to_num(finish_s), start_s)
    row_g = state.row_shares[:number, ENERGY] * grid.mean_g_per_kwh(start_s, end_s) * (cluster.pue / J_PER_KWH)
    taken_g = np.zeros(len(lowered.replicas) + 1)
    for stage in stages:
        taken_g += np.bincount(state.row_engine[stage.rows] + 1, row_g[stage.rows], len(taken_g))
    num_requests = lowered.requests.num_requests
    own_g = per_request(stages, row_g, np.add, out=np.zeros(num_requests))
    engine_s = state.row_shares[:, ENGINE_TIME]
    other_g = spread(stages, engines["carbon_g"] - taken_g[1:], state.row_engine, engine_s, num_requests)
    duration_s = float(engines["duration_s"][0])
    return own_g + other_g + link_carbon_g(cluster, joules["link_energy_j"], duration_s)


def request_cost_usd(
    coordinator: Coordinator, stages: Sequence[StageRows], engines: Table, other_j: FloatArray
) -> FloatArray:
    """[num_requests] rent by time on the engines; electricity of owned devices by energy.

    other_j: [num_engines] energy that no visit has taken.
    """
    lowered, state = coordinator.lowered, coordinator.lowered.state
    num_requests, engine_s = lowered.requests.num_requests, state.row_shares[:, ENGINE_TIME]
    usd_per_j = electricity_usd_per_j(lowered)
    amounts = engines["cost_usd"]
    if not usd_per_j.any():
        return spread(stages, amounts, state.row_engine, engine_s, num_requests)
    amounts = amounts - engines["electricity_usd"] + other_j * usd_per_j
    row_usd = state.row_shares[:, ENERGY] * np.append(usd_per_j, 0.0)[state.row_engine]
    own_usd = per_request(stages, row_usd, np.add, out=np.zeros(num_requests))
    return own_usd + spread(stages, amounts, state.row_engine, engine_s, num_requests)


def spread(
    stages: Sequence[StageRows], amounts: FloatArray, row_engine: Array, engine_s: FloatArray, num_requests: int
) -> FloatArray:
    """[num_requests] amounts of the engines by the time of the requests' steps there, so that the sum stays the same.

    Dummy steps of a data-parallel rank belong to nobody: those that it did serve pay for them. What an engine that has
    served none costs falls on all requests, by their time on any engine.
    """
    served_s = np.zeros(len(amounts) + 1)  # the first: visits that were never placed
    for stage in stages:
        served_s += np.bincount(row_engine[stage.rows] + 1, engine_s[stage.rows], len(served_s))
    total_s = float(served_s[1:].sum())
    by_all = float(amounts[served_s[1:] == 0].sum()) / total_s if total_s > 0 else 0.0
    rates = np.zeros(len(amounts) + 1)  # the last: visits that were never placed, by the index -1
    np.divide(amounts, served_s[1:], out=rates[:-1], where=served_s[1:] > 0)
    rates[:-1] += by_all
    found = np.zeros(num_requests)
    for stage in stages:
        found[stage.requests] += rates[row_engine[stage.rows]] * engine_s[stage.rows]
    return found


def other_energy_j(stages: Sequence[StageRows], energy_j: FloatArray, row_engine: Array, shares: Array) -> FloatArray:
    """[num_engines] energy of each engine beyond what its visits have taken of it."""
    taken_j = np.zeros(len(energy_j) + 1)
    for stage in stages:
        taken_j += np.bincount(row_engine[stage.rows] + 1, shares[stage.rows, ENERGY], len(taken_j))
    return energy_j - taken_j[1:]
