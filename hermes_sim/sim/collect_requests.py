"""One row per request: its tokens, its moments as the client sees them, its share of energy and rent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.sim.collect_costs import other_energy_j, request_carbon_g, request_cost_usd, spread
from hermes_sim.sim.collect_media import media_columns
from hermes_sim.sim.collect_passes import Written, written
from hermes_sim.sim.collect_stages import BY_LANGUAGE_MODEL, StageRows, per_request
from hermes_sim.sim.collect_visits import named, of_all_samples
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.passes import route_outcomes
from hermes_sim.sim.status import NAMES, REASONS
from hermes_sim.stages.guard import REFUSE, Guard
from hermes_sim.state.arrays import ENERGY, ENGINE_TIME

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def request_table(coordinator: Coordinator, stages: Sequence[StageRows], engines: Table, finish_s: FloatArray) -> Table:
    """One row per request. Tokens, energy and engine time are those of all its samples together.

    finish_s: [num_visits] the end of each visit. Columns that are the same number throughout, or the same as another,
    may share its memory.
    """
    lowered, state = coordinator.lowered, coordinator.state
    requests = lowered.requests
    number = requests.num_requests

    def largest(values: Array, *kinds: str) -> IntArray:
        return per_request(stages, values, np.maximum, out=np.zeros(number, np.int64), kinds=kinds)

    def total(values: Array) -> IntArray:
        zeros = np.zeros(number, np.int64)
        return per_request(stages, values, np.add, out=zeros) if values.any() else zeros

    def total_of(values: FloatArray) -> FloatArray:
        return per_request(stages, values, np.add, out=np.zeros(number))

    wrote = written(coordinator, stages, finish_s)
    num_seen_tokens = wrote.num_tokens["answer"] + wrote.num_tokens["thought"]
    shares = state.row_shares  # a sample that ends adds its own to its visit
    engine_s = shares[:, ENGINE_TIME]
    other_j = other_energy_j(stages, engines["energy_j"], state.row_engine, shares)
    joules: Table = {
        "energy_j": total_of(shares[:, ENERGY]),
        "idle_energy_j": spread(stages, other_j, state.row_engine, engine_s, number),
        "link_energy_j": total_of(coordinator.row_link_energy_j),
    }
    return {
        "request": np.arange(number, dtype=np.int64),
        "pipeline": pipeline_names(lowered),
        "status": np.array(NAMES, object)[coordinator.status],
        "reason": texts(REASONS, coordinator.ends.reason),
        "service_class": class_names(lowered),
        "session": requests.session,
        "client": constant(-1, number) if requests.client is None else requests.client,
        "adapter": constant(-1, number) if requests.adapter is None else requests.adapter,
        "arrival_s": coordinator.arrival_s,
        **request_moments_s(coordinator, stages, finish_s, wrote),
        "num_prompt_tokens": largest(np.where(lowered.skipped, 0, state.row_prompt[: lowered.num_visits]), "prefill"),
        "num_image_tokens": constant(0, number) if requests.num_image_tokens is None else requests.num_image_tokens,
        **media_columns(lowered, stages),
        "num_output_tokens": num_seen_tokens,
        "num_thought_tokens": wrote.num_tokens["thought"],
        "num_note_tokens": wrote.num_tokens["note"],
        "num_passes": wrote.num_passes,
        "num_samples": num_samples(lowered, state.row_request),
        "num_longest_sample_tokens": wrote.num_longest_sample_tokens,
        **search_counts(coordinator, wrote),
        **shortened(coordinator),
        "num_cached_tokens": total(of_branches(lowered, state.row_cached)),
        "num_reloaded_tokens": reloaded(coordinator, total, number),
        "num_refusals": refusals(lowered, stages),
        "num_clipped_tokens": lowered.num_clipped,
        "num_retries": coordinator.retries.num_retries,
        "num_hedges": constant(0, number) if coordinator.hedges is None else coordinator.hedges.num_hedges,
        "num_preemptions": total(of_all_samples(lowered, state.row_preemptions, np.add)),
        **joules,
        "engine_s": total_of(engine_s),
        "quality": wrote.quality,
        "cost_usd": request_cost_usd(coordinator, stages, engines, other_j),
        "carbon_g": request_carbon_g(coordinator, stages, engines, joules, finish_s),
    }


def request_moments_s(
    coordinator: Coordinator, stages: Sequence[StageRows], finish_s: FloatArray, wrote: Written
) -> Table:
    """First tokens and end of each request: at the engine, and one message later at the client.

    An engine's first token is the end of the step that computed the last part of the prompt. The client gets it, and
    the last one, when its detokeniser has sent it. Tokens that the client never sees do not count.
    """
    number = len(wrote.first_s)
    last_s = per_request(stages, finish_s, np.fmax, out=np.full(number, -np.inf))
    never = (wrote.num_passes == 0) | ~np.isfinite(wrote.first_s)
    finished_s = last_s
    if coordinator.front_end.detokenize_s.any():
        finished_s = last_s + last_message_s(coordinator, stages, finish_s, last_s)
    finished_s[coordinator.is_rejected | ~np.isfinite(last_s)] = np.nan
    return {
        "first_token_s": np.where(never, np.nan, wrote.seen_first_s),
        "engine_first_token_s": np.where(never, np.nan, wrote.first_s),
        "first_answer_token_s": np.where(never | np.isinf(wrote.first_answer_s), np.nan, wrote.first_answer_s),
        "decode_s": wrote.decode_s,
        "finish_s": finished_s,
    }


def last_message_s(
    coordinator: Coordinator, stages: Sequence[StageRows], finish_s: FloatArray, last_s: FloatArray
) -> FloatArray:
    """[num_requests] of the message that brings the end, where it is a language model's; last_s: ends without it."""
    message_s = np.append(coordinator.front_end.detokenize_s, 0.0)
    row_engine = coordinator.state.row_engine
    found = np.zeros(len(last_s))
    for stage in stages:
        if stage.kind in BY_LANGUAGE_MODEL:
            to_client_s = message_s[row_engine[stage.rows]]
            of_last_s = np.where(finish_s[stage.rows] == last_s[stage.requests], to_client_s, 0.0)
            found[stage.requests] = np.maximum(found[stage.requests], of_last_s)
    return found


def search_counts(coordinator: Coordinator, wrote: Written) -> Table:
    """Candidates that verifiers have scored, and tokens of those that no path has kept, lookahead included."""
    trees, number = coordinator.lowered.trees, len(wrote.num_passes)
    if trees.number == 0 and not trees.num_candidates.any():
        return {"num_candidates": constant(0, number), "num_discarded_tokens": constant(0, number)}
    rejected = coordinator.is_rejected
    discarded = wrote.num_searched_tokens - trees.num_kept_tokens
    return {
        "num_candidates": np.where(rejected, 0, trees.num_candidates),
        "num_discarded_tokens": np.where(rejected, 0, discarded),
    }


def shortened(coordinator: Coordinator) -> Table:
    """Tokens that reductions and early exits have left unwritten, and those of trial answers on the way."""
    lowered = coordinator.lowered
    return {
        "num_saved_tokens": np.where(coordinator.is_rejected, 0, lowered.num_saved),
        "num_probe_tokens": np.where(coordinator.is_rejected, 0, lowered.num_probe),
    }


def of_branches(lowered: Lowered, values: Array) -> Array:
    """[num_visits] a column of the rows, with what the branches of searches add to their visits."""
    number, trees = lowered.num_visits, lowered.trees
    if trees.number == 0:
        return values[:number]
    visits = values[:number].copy()
    np.add.at(visits, trees.parent, values[trees.first : trees.first + trees.number])
    return visits


def reloaded(coordinator: Coordinator, total: Callable[[Array], IntArray], num_requests: int) -> IntArray:
    """[num_requests] prompt tokens whose KV came from stores, or back from the host."""
    if coordinator.retrievals is None:
        loaded = coordinator.state.row_loaded[: coordinator.lowered.num_visits]
        return total(loaded) if loaded.any() else constant(0, num_requests)
    return total(coordinator.retrievals.row_tokens)


def refusals(lowered: Lowered, stages: Sequence[StageRows]) -> IntArray:
    """[num_requests] guards that a request has passed through and been refused by."""
    number = lowered.requests.num_requests
    guards = [stage for stage in stages if isinstance(stage.plan.stage, Guard)]
    if not guards:
        return constant(0, number)
    total = np.zeros(number, np.int64)
    for stage in guards:
        guard = stage.plan.stage
        assert isinstance(guard, Guard)
        if REFUSE not in guard.outcomes:
            continue
        drawn, refused = guard_outcomes(lowered, stage, guard), list(guard.outcomes).index(REFUSE)
        passed = ~lowered.skipped[stage.rows]
        total[stage.requests] += (drawn[stage.requests] == refused) & passed
    return total


def guard_outcomes(lowered: Lowered, stage: StageRows, guard: Guard) -> IntArray:
    """[num_requests] place of each request's outcome."""
    plan = stage.plan
    name = plan.name if plan.round == 0 else f"{plan.name} {plan.round}"
    drawn = route_outcomes(lowered.pipelines[stage.pipeline].name, name, guard, lowered.requests, lowered.scenario.seed)
    assert drawn is not None
    return drawn


def constant(value: int, number: int) -> IntArray:
    """[number] one value throughout, without memory for each; cannot be written to."""
    return np.broadcast_to(np.int64(value), number)


def pipeline_names(lowered: Lowered) -> Array:
    """[num_requests]"""
    names = [plan.name for plan in lowered.pipelines]
    if len(names) == 1:
        return np.full(lowered.requests.num_requests, names[0], object)
    return named(names, lowered.request_pipeline)


def texts(names: Sequence[str], index: Array) -> Array:
    """[num_requests] names by number; one for all where nothing happened."""
    if not index.any():
        return np.full(len(index), names[0], object)
    return np.asarray(np.array(names, object)[index])


def class_names(lowered: Lowered) -> Array:
    """[num_requests] empty where the workload has no classes."""
    names = [one.name for one in lowered.scenario.workload.classes] or [""]
    return texts(names, lowered.request_class)


def num_samples(lowered: Lowered, row_request: Array) -> IntArray:
    """[num_requests] answers to each request."""
    first, number = lowered.num_visits, lowered.requests.num_requests
    last = lowered.trees.first
    if first == last:
        return constant(1, number)
    return 1 + np.bincount(row_request[first:last], minlength=number)
