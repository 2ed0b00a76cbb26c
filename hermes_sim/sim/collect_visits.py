"""One row per request and stage: where a request was, since when, and what its time there went to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.state.arrays import EngineArrays


def named(names: list[str], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Strings by index; -1 is the empty string."""
    return np.asarray(np.array([*names, ""], object)[index])


def of_all_samples(lowered: Lowered, values: npt.NDArray[Any], reduce: np.ufunc) -> npt.NDArray[Any]:
    """[num_visits, ...] a column of the rows, with what the further samples of a decode add to its visit."""
    number, parents = len(lowered.row_stage), lowered.row_parent
    visits = values[:number]
    if len(parents) == 0:
        return visits
    visits = visits.copy()
    reduce.at(visits, parents, values[number : number + len(parents)])
    return visits


def visit_finish_s(lowered: Lowered, state: EngineArrays) -> npt.NDArray[Any]:
    """[num_visits] the end of a visit: of the last of its samples, for a decode."""
    return of_all_samples(lowered, state.row_finish_s, np.fmax)


def visit_table(coordinator: Coordinator) -> Table:
    """One row per request and stage.

    Samples of one decode run side by side: the visit's service is that of its first (and longest), and it ends with
    the last of them.
    """
    lowered, state = coordinator.lowered, coordinator.state
    number = len(lowered.row_stage)
    row_request = state.row_request[:number].astype(np.int64)
    pipeline = lowered.request_pipeline[row_request]
    names = [[stage.stage.name for stage in plan.stages] for plan in lowered.pipelines]
    kinds = [[stage_kind(stage.stage) for stage in plan.stages] for plan in lowered.pipelines]
    offset = np.concatenate(([0], np.cumsum([len(stages) for stages in names]))).astype(np.int64)
    place = offset[pipeline] + lowered.row_stage
    finish_s = visit_finish_s(lowered, state)
    arrival_s = state.row_arrival_s[:number]
    service = state.row_shares[:number, :4]
    served = ~np.isnan(finish_s)
    service_s = np.where(served, service.sum(axis=1), np.nan)
    preempted_s = np.where(served, state.row_preempted_s[:number], np.nan)
    queue_s = np.maximum(finish_s - arrival_s - service_s - preempted_s, 0.0)
    return {
        "request": row_request,
        "stage": named([name for stages in names for name in stages], place),
        "kind": named([kind for stages in kinds for kind in stages], place),
        "engine": named([replica.name for replica in lowered.replicas], state.row_engine[:number]),
        "arrival_s": arrival_s,
        "start_s": state.row_start_s[:number],
        "finish_s": finish_s,
        "transfer_s": coordinator.row_transfer_s,
        "tokenize_s": coordinator.front_end.tokenize_queue_s + coordinator.front_end.tokenize_s,
        "queue_s": queue_s,
        "service_s": service_s,
        "compute_s": np.where(served, service[:, 0], np.nan),
        "memory_s": np.where(served, service[:, 1], np.nan),
        "network_s": np.where(served, service[:, 2], np.nan),
        "host_s": np.where(served, service[:, 3], np.nan),
        "preempted_s": preempted_s,
    }
