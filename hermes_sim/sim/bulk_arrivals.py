"""Arrivals that nothing in the run can change, pushed thousands at a time by compiled code.

Where all arrivals are known before the run and every request is one prompt with its decode in one engine, nobody waits
for anything: no event is needed for an arrival. What happens is the same, arrival by arrival.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hermes_sim.routing.in_loop import IN_LOOP
from hermes_sim.sim.advance import push_arrivals
from hermes_sim.sim.lower import ARRIVALS_AT_A_TIME, Lowered
from hermes_sim.sim.plans import PipelinePlan
from hermes_sim.state.sequences import final_outputs


def can_be_laid_out(lowered: Lowered, longest: list[int]) -> bool:
    """Whether no arrival depends on the run and no visit needs a hand-over. `longest`: tokens each engine can hold."""
    requests, state = lowered.requests, lowered.state
    if requests.num_requests == 0 or requests.closed_loop is not None or np.isnan(requests.arrival_s).any():
        return False
    if lowered.skipped.any() or state.python_policy.any():
        return False
    if not all(_is_one_sequence(plan) for plan in lowered.pipelines):
        return False
    rows = lowered.first_row[:-1]
    num_tokens = (state.row_prompt[rows] + np.maximum(final_outputs(state, rows) - 1, 0)).max()
    candidates = {int(e) for plan in lowered.pipelines for e in plan.stages[0].candidates}
    return bool(num_tokens <= min(longest[e] for e in candidates))


def _is_one_sequence(plan: PipelinePlan) -> bool:
    """A prompt, and at most its decode in the same engine; the router is one of the compiled ones."""
    stage = plan.stages[0]
    if plan.roots != (0,) or len(plan.stages) > (1 if stage.decode is None else 2):
        return False
    compiled_router = any(stage.router is router for router in IN_LOOP) or len(stage.candidates) == 1
    return stage.stage.runs_on == "tokens" and not stage.may_split and compiled_router


def push_all_arrivals(lowered: Lowered, report: Callable[[], None]) -> None:
    """Every arrival in order of time, ties in order of the requests."""
    state, requests = lowered.state, lowered.requests
    for place, plan in enumerate(lowered.pipelines):
        stage = plan.stages[0]
        state.plan_num_candidates[place] = len(stage.candidates)
        state.plan_candidates[place, : len(stage.candidates)] = stage.candidates
        state.plan_router[place] = next((n for n, router in enumerate(IN_LOOP) if router is stage.router), 0)
        state.plan_reads_loads[place] = stage.router.reads_loads
        state.plan_options[place] = stage.options
    for first in range(0, requests.num_requests, ARRIVALS_AT_A_TIME):
        chosen = slice(first, min(first + ARRIVALS_AT_A_TIME, requests.num_requests))
        rows = lowered.first_row[chosen]
        number = len(rows)
        state.bulk_row[:number] = rows
        state.bulk_time_s[:number] = requests.arrival_s[chosen]
        state.bulk_plan[:number] = lowered.request_pipeline[chosen]
        state.bulk_draw[:number] = lowered.draws[rows]
        push_arrivals(state.handle, 0, number)
        report()
