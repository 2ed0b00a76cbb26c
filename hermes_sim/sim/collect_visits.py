"""One row per request and stage: where a request was, since when, and what its time there went to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.sim.collect_speculation import draft_wait_s
from hermes_sim.sim.collect_stages import StageRows
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.state.arrays import ENERGY, HELD_BY_BATCH, HELD_BY_BUDGET, HELD_BY_KV, EngineArrays

FloatArray = npt.NDArray[np.float64]


def named(names: list[str], index: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Strings by index; -1 is the empty string."""
    return np.asarray(np.array([*names, ""], object)[index])


def of_all_samples(lowered: Lowered, values: npt.NDArray[Any], reduce: np.ufunc) -> npt.NDArray[Any]:
    """[num_visits, ...] a column of the rows, with what the further samples of a decode add to its visit."""
    number, parents = lowered.num_visits, lowered.row_parent
    visits = values[:number]
    if len(parents) == 0:
        return visits
    visits = visits.copy()
    reduce.at(visits, parents, values[number : number + len(parents)])
    return visits


def visit_table(coordinator: Coordinator, stages: Sequence[StageRows]) -> Table:
    """One row per request and stage. Columns may be views of the state at the end of the run.

    Samples of one decode run side by side: the visit's service is that of its first (and longest), and it ends with
    the last of them.
    """
    lowered, state = coordinator.lowered, coordinator.state
    number = lowered.num_visits
    finish_s = of_all_samples(lowered, state.row_finish_s, np.fmax)
    arrival_s = state.row_arrival_s[:number]
    unserved = np.isnan(finish_s)
    compute_s, memory_s, network_s, host_s = (
        where_served(state.row_shares[:number, resource], unserved) for resource in range(4)
    )
    preempted_s = where_served(state.row_preempted_s[:number], unserved)
    service_s = compute_s + memory_s
    service_s += network_s
    service_s += host_s
    queue_s = finish_s - arrival_s
    queue_s -= service_s
    queue_s -= preempted_s
    drafts_s = draft_wait_s(lowered)
    queue_s -= drafts_s
    names, kinds = ([getattr(stage, text) for stage in stages] for text in ("name", "kind"))
    stage_names = of_stages(stages, names, number)
    return {
        "request": state.row_request[:number].astype(np.int64),
        "stage": stage_names,
        "round": rounds(stages, number),
        "kind": stage_names if kinds == names else of_stages(stages, kinds, number),
        "engine": engine_names(coordinator),
        "arrival_s": arrival_s,
        "start_s": state.row_start_s[:number],
        "finish_s": finish_s,
        "transfer_s": coordinator.row_transfer_s,
        "tokenize_s": tokenize_s(coordinator),
        "queue_s": np.maximum(queue_s, 0.0, out=queue_s),
        **line_waits_s(state, number, unserved),
        "service_s": service_s,
        "compute_s": compute_s,
        "memory_s": memory_s,
        "network_s": network_s,
        "host_s": host_s,
        "preempted_s": preempted_s,
        "draft_wait_s": drafts_s,
        "energy_j": state.row_shares[:number, ENERGY],
    }


def line_waits_s(state: EngineArrays, number: int, unserved: npt.NDArray[np.bool_]) -> dict[str, FloatArray]:
    """Columns of what held a visit in the line of a token engine; 0 where nothing did, and in other engines."""
    names = {"kv_wait_s": HELD_BY_KV, "batch_wait_s": HELD_BY_BATCH, "budget_wait_s": HELD_BY_BUDGET}
    return {name: where_served(state.row_held_s[:number, cause], unserved) for name, cause in names.items()}


def engine_names(coordinator: Coordinator) -> npt.NDArray[Any]:
    """[num_visits] the engine that a visit was in; of a KV retrieval the store that most of its tokens came from."""
    lowered, retrievals = coordinator.lowered, coordinator.retrievals
    names = [replica.name for replica in lowered.replicas]
    engine = coordinator.state.row_engine[: lowered.num_visits]
    if retrievals is not None:
        of_store = retrievals.row_store >= 0
        engine = np.where(of_store, len(names) + retrievals.row_store, engine)
        names += [instance.name for instance in retrievals.stores.instances]
    return named(names, engine)


def of_stages(stages: Sequence[StageRows], texts: Sequence[str], num_visits: int) -> npt.NDArray[Any]:
    """[num_visits] the text of each visit's stage."""
    column = np.empty(num_visits, object)
    for stage, text in zip(stages, texts, strict=True):
        column[stage.rows] = text
    return column


def rounds(stages: Sequence[StageRows], num_visits: int) -> npt.NDArray[np.int64]:
    """[num_visits] round of each visit's stage."""
    if not any(stage.plan.round for stage in stages):
        return np.broadcast_to(np.int64(0), num_visits)
    column = np.zeros(num_visits, np.int64)
    for stage in stages:
        column[stage.rows] = stage.plan.round
    return column


def where_served(values: FloatArray, unserved: npt.NDArray[np.bool_]) -> FloatArray:
    """[num_visits] NaN where a visit was not served; no copy where all were."""
    return np.where(unserved, np.nan, values) if unserved.any() else values


def tokenize_s(coordinator: Coordinator) -> FloatArray:
    """[num_visits] in the front end before the engine, waiting included."""
    front_end = coordinator.front_end
    return front_end.tokenize_queue_s + front_end.tokenize_s if front_end.any_tokenizers else front_end.tokenize_s
