"""One row per request: its tokens, its moments as the client sees them, its share of energy and rent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.sim.collect_visits import named, of_all_samples
from hermes_sim.sim.coordinator import REJECTED, Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.state.arrays import ENERGY, ENGINE_TIME
from hermes_sim.workload.requests import RequestTable

FloatArray = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
STATUS = np.array(["finished", "rejected", "unfinished"], object)


def per_request(lowered: Lowered, values: Array, reduce: np.ufunc) -> Array:
    """Reduce a column of visits over each request's stages."""
    if len(values) == 0:
        return values
    return np.asarray(reduce.reduceat(values, lowered.first_row[:-1]))


def request_table(coordinator: Coordinator, engines: Table, visits: Table) -> Table:
    """One row per request. Tokens, energy and engine time are those of all its samples together."""
    lowered, state = coordinator.lowered, coordinator.state
    requests = lowered.requests
    number = len(lowered.row_stage)
    rejected = coordinator.status == REJECTED
    by_language_model = (visits["kind"] == "prefill") | (visits["kind"] == "decode")
    longest = per_request(lowered, np.where(by_language_model, state.row_generated[:number], 0), np.maximum)
    generated = of_all_samples(lowered, state.row_generated, np.add)
    num_generated = per_request(lowered, np.where(by_language_model, generated, 0), np.maximum)
    prompt = per_request(lowered, np.where(visits["kind"] == "prefill", state.row_prompt[:number], 0), np.maximum)
    moments = request_moments_s(coordinator, visits, (num_generated > 0) & ~rejected)
    shares = state.row_shares[:number]  # a sample that ends adds its own to its visit
    row_cost = shares[:, ENGINE_TIME] * cost_rates(engines, state.row_engine[:number], shares[:, ENGINE_TIME])
    preemptions = of_all_samples(lowered, state.row_preemptions, np.add)
    return {
        "request": np.arange(requests.num_requests, dtype=np.int64),
        "pipeline": named([plan.name for plan in lowered.pipelines], lowered.request_pipeline),
        "status": STATUS[coordinator.status],
        "session": requests.session.astype(np.int64),
        "client": given(requests, requests.client, -1),
        "arrival_s": coordinator.arrival_s,
        **moments,
        "num_prompt_tokens": prompt.astype(np.int64),
        "num_image_tokens": given(requests, requests.num_image_tokens, 0),
        "num_output_tokens": np.where(rejected, 0, num_generated).astype(np.int64),
        "num_samples": num_samples(lowered, state.row_request),
        "num_longest_sample_tokens": np.where(rejected, 0, longest).astype(np.int64),
        "num_cached_tokens": per_request(lowered, state.row_cached[:number], np.add).astype(np.int64),
        "num_clipped_tokens": lowered.num_clipped,
        "num_preemptions": per_request(lowered, preemptions, np.add).astype(np.int64),
        "energy_j": per_request(lowered, shares[:, ENERGY], np.add),
        "engine_s": per_request(lowered, shares[:, ENGINE_TIME], np.add),
        "cost_usd": per_request(lowered, row_cost, np.add),
    }


def request_moments_s(coordinator: Coordinator, visits: Table, has_token: Array) -> Table:
    """First token and end of each request: at the engine, and one message later at the client.

    An engine's first token is the end of the step that computed the last part of the prompt. The client gets it, and
    the last one, when its detokeniser has sent it.
    """
    lowered = coordinator.lowered
    kind, finish_s = visits["kind"], visits["finish_s"]
    to_client_s = np.append(coordinator.front_end.detokenize_s, 0.0)[coordinator.state.row_engine[: len(kind)]]
    ended_s = np.where(np.isnan(finish_s), -np.inf, finish_s)
    last_s = per_request(lowered, ended_s, np.maximum)
    prefilled_s = np.where(kind == "prefill", finish_s, np.inf)
    first_s = per_request(lowered, prefilled_s, np.fmin)
    seen_s = per_request(lowered, prefilled_s + to_client_s, np.fmin)
    is_last = (ended_s == np.repeat(last_s, np.diff(lowered.first_row))) & ((kind == "prefill") | (kind == "decode"))
    finished_s = last_s + per_request(lowered, np.where(is_last, to_client_s, 0.0), np.maximum)
    has_token = has_token & np.isfinite(first_s)
    return {
        "first_token_s": np.where(has_token, seen_s, np.nan),
        "engine_first_token_s": np.where(has_token, first_s, np.nan),
        "finish_s": np.where((coordinator.status == REJECTED) | ~np.isfinite(last_s), np.nan, finished_s),
    }


def given(requests: RequestTable, column: Array | None, otherwise: int) -> Array:
    """[num_requests] a column that the traffic may have."""
    return np.full(requests.num_requests, otherwise, np.int64) if column is None else column.astype(np.int64)


def num_samples(lowered: Lowered, row_request: Array) -> Array:
    """[num_requests] answers to each request."""
    number, parents = len(lowered.row_stage), lowered.row_parent
    further = np.bincount(row_request[number : number + len(parents)], minlength=lowered.requests.num_requests)
    return 1 + further[: lowered.requests.num_requests].astype(np.int64)


def cost_rates(engines: Table, row_engine: Array, engine_s: FloatArray) -> FloatArray:
    """[num_visits] USD per second of step time, so that the whole rent of an engine falls on what it served.

    Dummy steps of a data-parallel rank belong to nobody: those that it did serve pay for them.
    """
    num_engines = len(engines["cost_usd"])
    placed = row_engine >= 0
    served_s = np.bincount(row_engine[placed], engine_s[placed], minlength=num_engines)
    rates = np.divide(engines["cost_usd"], served_s, out=np.zeros(num_engines), where=served_s > 0)
    return np.append(rates, 0.0)[row_engine]
