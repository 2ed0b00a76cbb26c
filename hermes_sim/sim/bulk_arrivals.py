"""Arrivals that nothing in the run can change, pushed thousands at a time by compiled code.

Where all arrivals are known before the run and every request is one prompt with its decode in one engine, behind jobs
that follow each other if there are any, nobody outside waits for anything: no event is needed for an arrival, nor for a
job's end. What happens is the same, arrival by arrival and end by end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.routing.in_loop import IN_LOOP
from hermes_sim.sim.advance import hand_on_all, push_arrivals
from hermes_sim.sim.lower import ARRIVALS_AT_A_TIME, Lowered
from hermes_sim.sim.plans import PipelinePlan, StagePlan
from hermes_sim.state.arrays import WATCHED
from hermes_sim.state.sequences import final_outputs

IntArray = npt.NDArray[np.int64]


def can_be_laid_out(lowered: Lowered, longest: list[int]) -> bool:
    """Whether no arrival depends on the run and no visit needs a hand-over. `longest`: tokens each engine can hold."""
    requests, state = lowered.requests, lowered.state
    if requests.num_requests == 0 or requests.closed_loop is not None or np.isnan(requests.arrival_s).any():
        return False
    if lowered.skipped.any() or state.python_policy.any() or state.num_watched.any():
        return False
    if not all(_is_chain(plan) for plan in lowered.pipelines):
        return False
    jobs_of = np.array([num_jobs(plan) for plan in lowered.pipelines])
    places = lowered.row_stage.astype(np.int64)
    is_job = places < jobs_of[lowered.request_pipeline[state.row_request[: len(places)]]]
    if (state.row_flags[: len(places)][~is_job] & WATCHED).any():
        return False
    prompts = [head_rows(lowered, number) for number in range(len(lowered.pipelines))]
    rows = np.concatenate(prompts)
    if len(rows) == 0:
        return True
    num_tokens = (state.row_prompt[rows] + np.maximum(final_outputs(state, rows) - 1, 0)).max()
    heads = (plan.stages[num_jobs(plan)] for plan in lowered.pipelines if num_jobs(plan) < len(plan.stages))
    candidates = {int(e) for head in heads for e in head.candidates}
    return bool(num_tokens <= min(longest[e] for e in candidates))


def num_jobs(plan: PipelinePlan) -> int:
    """Stages before the prompt."""
    return sum(stage.stage.runs_on == "jobs" for stage in plan.stages)


def head_rows(lowered: Lowered, pipeline: int) -> IntArray:
    """Visits of a pipeline that compute prompts."""
    plan = lowered.pipelines[pipeline]
    place = num_jobs(plan)
    members = lowered.first_row[:-1][lowered.request_pipeline == pipeline]
    return np.asarray(members + place if place < len(plan.stages) else members[:0], np.int64)


def _is_chain(plan: PipelinePlan) -> bool:
    """Jobs one after the other, then a prompt and at most its decode in the same engine; compiled routers only."""
    jobs = num_jobs(plan)
    if any(stage.stage.runs_on != "jobs" for stage in plan.stages[:jobs]) or plan.roots != (0,):
        return False
    if any(stage.predecessors != (place - 1,) for place, stage in enumerate(plan.stages) if place > 0):
        return False
    if jobs == len(plan.stages):
        return _are_routed_in_loop(plan.stages)
    head = plan.stages[jobs]
    if (
        head.stage.runs_on != "tokens"
        or head.may_split
        or head.encoded_by
        or any(stage.written_by for stage in plan.stages)
    ):
        return False
    return len(plan.stages) - jobs <= (1 if head.decode is None else 2) and _are_routed_in_loop(plan.stages[: jobs + 1])


def _are_routed_in_loop(stages: Sequence[StagePlan]) -> bool:
    return all(len(one.candidates) == 1 or any(one.router is router for router in IN_LOOP) for one in stages)


def push_all_arrivals(
    lowered: Lowered,
    report: Callable[[], None],
    *,
    at_a_time: int = ARRIVALS_AT_A_TIME,
    pushed: Callable[[float], None] | None = None,
) -> None:
    """Every arrival in order of time, ties in order of the requests, and what follows from it.

    at_a_time: no more than ARRIVALS_AT_A_TIME. pushed(time_s): called behind each lot, with the time of its last.
    """
    state, requests = lowered.state, lowered.requests
    first_plans = np.cumsum([0, *(len(plan.stages) for plan in lowered.pipelines)])[:-1]
    for number, plan in enumerate(lowered.pipelines):
        jobs = num_jobs(plan)
        for place, stage in enumerate(plan.stages[: jobs + 1]):
            entry = int(first_plans[number]) + place
            state.plan_num_candidates[entry] = len(stage.candidates)
            state.plan_candidates[entry, : len(stage.candidates)] = stage.candidates
            state.plan_router[entry] = next((n for n, router in enumerate(IN_LOOP) if router is stage.router), 0)
            state.plan_reads_loads[entry] = stage.router.reads_loads
            state.plan_options[entry] = stage.options
            state.plan_queues[entry, list(stage.queues)] = list(stage.queues.values())
    if lowered.num_chain_rows > 0:
        stages = lowered.row_stage.astype(np.int64)
        of_request = first_plans[lowered.request_pipeline[state.row_request[: lowered.num_visits]]]
        state.row_plan[: lowered.num_visits] = of_request + stages
        state.row_draw[: lowered.num_visits] = lowered.draws
    for first in range(0, requests.num_requests, at_a_time):
        chosen = slice(first, min(first + at_a_time, requests.num_requests))
        rows = lowered.first_row[chosen]
        number = len(rows)
        state.bulk_row[:number] = rows
        state.bulk_time_s[:number] = requests.arrival_s[chosen]
        state.bulk_plan[:number] = first_plans[lowered.request_pipeline[chosen]]
        state.bulk_draw[:number] = lowered.draws[rows]
        push_arrivals(state.handle, 0, number)
        report()
        if pushed is not None:
            pushed(float(requests.arrival_s[chosen.stop - 1]))
    if lowered.num_chain_rows > 0:
        hand_on_all(state.handle)
