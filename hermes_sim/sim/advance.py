"""Moving engines to a horizon, and everything that reaches into them from outside: pushes, loads, reservations.

`advance` moves a group of engines, `run_until` all that somebody watches; the safety rule is theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.batching.decided import carry_out
from hermes_sim.batching.line import stand_in_line
from hermes_sim.batching.while_waiting import take_up
from hermes_sim.core.compiled import compiled, compiled_entry
from hermes_sim.routing.in_loop import choose_by_number
from hermes_sim.sim.abandon import abandon
from hermes_sim.sim.lockstep import begin_ranks
from hermes_sim.sim.ranks import ARRIVAL, HAND_OFF, SCHEDULING, STEP_DONE
from hermes_sim.sim.samples import fork_samples, push_branches
from hermes_sim.sim.settle import charge_ticks
from hermes_sim.sim.steps import begin_step, end_step, launch, set_next_start
from hermes_sim.sim.stretch import end_tick, stretch
from hermes_sim.sim.token_steps import grant_reservations, reserve_now
from hermes_sim.sim.withdraw import withdraw
from hermes_sim.state.arrays import (
    HAS_KV,
    JOBS,
    LOADED,
    TOKENS,
    WAIT_LRU,
    WATCHED,
)
from hermes_sim.state.blocks import release, seal
from hermes_sim.state.clients import client_enters
from hermes_sim.state.queues import push_back, push_in_place, push_new
from hermes_sim.state.sequences import final_output

IntArray = npt.NDArray[np.int64]

NO_ENGINES: IntArray = np.zeros(0, np.int64)


@compiled
def find_start(state: Any, group: int) -> Any:
    """(time, engine) of the group's earliest possible begin."""
    first = state.group_first[group]
    best_s = np.inf
    best = -1
    for place in range(first, first + state.group_size[group]):
        e = state.group_members[place]
        if state.next_start_s[e] < best_s:
            best_s = state.next_start_s[e]
            best = e
    return best_s, best


@compiled
def find_end(state: Any, group: int) -> Any:
    """(time, engine, lane) of the group's earliest end of a step in flight."""
    first = state.group_first[group]
    best_s = np.inf
    best = -1
    best_lane = -1
    for place in range(first, first + state.group_size[group]):
        e = state.group_members[place]
        if state.num_in_flight[e] == 0:
            continue
        for lane in range(state.num_lanes[e]):
            if state.lane_end_s[e, lane] < best_s:
                best_s = state.lane_end_s[e, lane]
                best = e
                best_lane = lane
    return best_s, best, best_lane


@compiled
def advance(state: Any, group: int, horizon_s: float, rank: int, limit_in_flight_s: float, limit_idle_s: float) -> None:
    """Move a group up to a horizon (time, rank), or to its first outward event.

    A step may begin before horizon_s only, before any feeder's step in flight ends (limit_in_flight_s) and not after
    an idle feeder could begin one (limit_idle_s): the safety rule. A step may end by then, no later: what a feeder
    puts out may look at the loads here.
    """
    alone = state.group_size[group] == 1
    while state.outbox_count[0] == 0:
        end_s, e, lane = find_end(state, group)
        start_s, starter = find_start(state, group)
        if e >= 0 and end_s <= start_s:
            if not (end_s < horizon_s or (end_s == horizon_s and rank > STEP_DONE)):
                return
            if end_s > limit_in_flight_s or end_s > limit_idle_s:
                return
            if state.stretch_in_flight[e] != 0:
                end_tick(state, e)
            else:
                end_step(state, e, lane)
            continue
        if starter < 0 or not (start_s < horizon_s and start_s < limit_in_flight_s and start_s <= limit_idle_s):
            return
        may_run_on = alone and state.engine_kind[starter] == TOKENS and state.num_lanes[starter] == 1
        if may_run_on and stretch(state, starter, start_s, horizon_s, rank, limit_in_flight_s, limit_idle_s):
            continue
        begin(state, group, starter, start_s)


@compiled
def begin(state: Any, group: int, e: int, time_s: float) -> None:
    """Begin a step of one engine, or of all ranks of a data-parallel replica."""
    if state.group_lockstep[group] != 0:
        begin_ranks(state, group, time_s)
    else:
        begin_step(state, e, time_s)


@compiled
def is_watched(state: Any, group: int) -> bool:
    """Whether anybody outside waits for something this group will do."""
    first = state.group_first[group]
    for place in range(first, first + state.group_size[group]):
        if state.num_watched[state.group_members[place]] > 0:
            return True
    return False


@compiled
def earliest_outputs(state: Any, group: int) -> Any:
    """(strict bound from steps in flight, bound from steps that could begin) on the outputs of a group's feeders.

    A feeder that nobody watches puts nothing out before something is pushed to it, and may lag behind.
    """
    in_flight_s = np.inf
    idle_s = np.inf
    for other in range(state.group_first.size):
        if other != group and state.feeds[other, group] != 0 and is_watched(state, other):
            end_s, _, _ = find_end(state, other)
            start_s, _ = find_start(state, other)
            in_flight_s = min(in_flight_s, end_s)
            idle_s = min(idle_s, start_s)
    return in_flight_s, idle_s


@compiled
def steps_and_flights(state: Any, group: int) -> int:
    """A number that grows with every begin and every end in the group."""
    first = state.group_first[group]
    total = np.int64(0)
    for place in range(first, first + state.group_size[group]):
        e = state.group_members[place]
        total += 2 * state.num_steps[e] + state.num_in_flight[e]
    return total


@compiled
def pull(state: Any, e: int, time_s: float, rank: int) -> None:
    """Bring an engine to the present, before somebody reads or changes it. All its feeders are there already."""
    advance(state, state.group_of[e], time_s, rank, np.inf, np.inf)


@compiled
def add_visit(state: Any, e: int, queue: int, row: int, time_s: float) -> None:
    """A visit joins the queue of an engine that has been pulled."""
    has_kv = state.row_flags[row] & HAS_KV != 0
    state.row_engine[row] = e
    state.row_arrival_s[row] = time_s
    is_loaded = state.row_flags[row] & LOADED != 0
    comes_back = state.while_waiting[e] != WAIT_LRU and state.row_came_from[row] >= 0
    if comes_back:
        state.row_order[row] = state.row_order[state.row_came_from[row]]
    elif not is_loaded:
        take_number(state, e, row)
    if not has_kv:  # else it counts since its blocks were asked for
        add_load(state, e, row)
    if state.row_flags[row] & WATCHED:
        state.num_watched[e] += 1
    after = state.row_continues_as[row]
    while after >= 0:
        if state.row_flags[after] & WATCHED:
            state.num_watched[e] += 1
        after = state.row_continues_as[after]
    if state.engine_kind[e] == JOBS:
        push_back(state, queue, row)
        if state.queue_length[queue] == state.max_batch_size[e]:
            state.queue_full_s[queue] = time_s
    else:
        charge_ticks(state, e)
        client_enters(state, e, row)
        stand_in_line(state, e, row, time_s)
        if is_loaded or comes_back:
            push_in_place(state, e, queue, row)
        else:
            push_new(state, e, queue, row)
        if has_kv:
            slot = np.int64(state.row_slot[row])
            seal(state, e, slot, np.int64(state.slot_computed[e, slot]))
            if state.row_num_samples[row] > 1:
                fork_samples(state, e, slot, row, time_s, False)
        elif comes_back:
            take_up(state, e, row, time_s)
        elif state.row_num_branches[row] > 1:
            push_branches(state, e, queue, row, time_s)
    wake(state, e, time_s)


@compiled
def take_number(state: Any, e: int, row: int) -> None:
    """When the visit came to this engine, among all that did."""
    state.row_order[row] = state.num_pushed[e]
    state.num_pushed[e] += 1


@compiled
def add_load(state: Any, e: int, row: int) -> None:
    """The visit is this engine's from now on, and routers see it: what is left to compute and to generate."""
    state.load_requests[e] += 1
    if state.engine_kind[e] == JOBS:
        state.load_tokens[e] += np.int64(state.row_units[row])
        return
    num_left = final_output(state, row) - state.row_generated[row]
    state.load_output_tokens[e] += num_left
    if state.row_generated[row] > 0:  # the KV of its prompt comes from elsewhere
        state.load_tokens[e] += num_left
    else:
        state.load_tokens[e] += state.row_prompt[row] + max(num_left - 1, 0)


@compiled
def wake(state: Any, e: int, time_s: float) -> None:
    """Something changed at time_s: the engine may be able to begin a step."""
    if np.isinf(state.next_start_s[e]) or state.engine_kind[e] == JOBS or state.draft_devices[e] > 0:
        state.now_s[e] = max(state.now_s[e], time_s)
        set_next_start(state, e)


@compiled
def next_action(state: Any, group: int) -> Any:
    """(time, 1 if it is a begin) of the group's next step end or begin, for one event a step."""
    end_s, _, _ = find_end(state, group)
    start_s, _ = find_start(state, group)
    if end_s <= start_s:
        return end_s, 0
    return start_s, 1


@compiled
def only_watched(state: Any) -> int:
    """The one group that anybody outside waits for; -1 if there are none or several."""
    found = -1
    for group in range(state.group_first.size):
        if is_watched(state, group):
            if found >= 0:
                return -1
            found = group
    return found


@compiled
def run_groups(state: Any, horizon_s: float, rank: int, everything: bool) -> int:
    """Advance the watched groups (or all) to a horizon; stops at the first outward event. Returns their number."""
    num_groups = state.group_first.size
    if not everything:
        lone = only_watched(state)
        if lone >= 0:  # nobody else puts anything out: nothing limits it but the horizon
            advance(state, lone, horizon_s, rank, np.inf, np.inf)
            return state.outbox_count[0]
    progress = True
    while progress and state.outbox_count[0] == 0:
        progress = False
        for group in range(num_groups):
            if not everything and not is_watched(state, group):
                continue
            before = steps_and_flights(state, group)
            start_before_s, _ = find_start(state, group)
            in_flight_s, idle_s = earliest_outputs(state, group)
            advance(state, group, horizon_s, rank, in_flight_s, idle_s)
            if state.outbox_count[0] > 0:
                break
            start_s, _ = find_start(state, group)
            if steps_and_flights(state, group) != before or start_s != start_before_s:
                progress = True  # a begin for which nothing fits moves the start only, and others may go on
    return state.outbox_count[0]


@compiled
def reserve_or_wait(state: Any, e: int, row: int) -> bool:
    """Reserve blocks for a visit whose KV is to be sent here; False: it waits, and GRANTED will be sent."""
    state.row_engine[row] = e
    add_load(state, e, row)
    if state.row_loaded[row] > 0:
        take_number(state, e, row)
    if state.reserve_head[e] < 0 and reserve_now(state, e, row):
        return True
    state.row_next[row] = -1
    if state.reserve_head[e] < 0:
        state.reserve_head[e] = row
    else:
        state.row_next[state.reserve_tail[e]] = row
    state.reserve_tail[e] = row
    state.num_watched[e] += 1
    return False


@compiled
def release_sent(state: Any, e: int, row: int, time_s: float) -> None:
    """The KV of a visit has been sent away: its blocks are free from now on."""
    release(state, e, state.row_slot[row])
    grant_reservations(state, e, time_s)
    wake(state, e, time_s)


@compiled
def act_once(state: Any, group: int) -> None:
    """Do the group's next end or begin, exactly one."""
    end_s, e, lane = find_end(state, group)
    start_s, starter = find_start(state, group)
    if e >= 0 and end_s <= start_s:
        end_step(state, e, lane)
    elif starter >= 0:
        begin(state, group, starter, start_s)


@compiled
def launch_decided(state: Any, e: int, decisions: Any, time_s: float) -> int:
    """Carry out what a Python policy decided and begin the step; 0, or 1 + the index of a decision that cannot be."""
    wrong = carry_out(state, e, decisions, time_s)
    if wrong == 0:
        launched = False
        for place in range(state.num_running[e]):
            launched = launched or state.slot_scheduled[e, state.running[e, place]] > 0
        if launched:
            launch(state, e, time_s)
    return wrong


@compiled
def arrive(state: Any, first: int, last: int) -> None:
    """Arrivals that were laid out before the run (sim/bulk_arrivals.py): route and push, one after the other.

    Stages that wait for others begin in between, when those have ended.
    """
    for number in range(first, last):
        time_s = state.bulk_time_s[number]
        plan = np.int64(state.bulk_plan[number])
        if state.row_plan.size > 1:
            hand_on(state, time_s, ARRIVAL)
        begin_visit(state, plan, np.int64(state.bulk_row[number]), state.bulk_draw[number], time_s, ARRIVAL)


@compiled
def begin_visit(state: Any, plan: int, row: int, draw: float, time_s: float, rank: int) -> None:
    """A visit is routed by the plan of its stage and joins the line there."""
    candidates = state.plan_candidates[plan, : state.plan_num_candidates[plan]]
    e = candidates[0]
    if candidates.size > 1:
        if state.plan_reads_loads[plan] != 0:
            for engine in candidates:
                pull(state, engine, time_s, rank)
        turn = state.plan_turns[plan]
        state.plan_turns[plan] += 1
        e = choose_by_number(state, state.plan_router[plan], candidates, row, turn, draw, state.plan_options[plan])
    pull(state, e, time_s, rank)
    add_visit(state, e, state.plan_queues[plan, e], row, time_s)


@compiled
def hand_on(state: Any, horizon_s: float, rank: int) -> None:
    """Begin the next stage of every visit that ends before (horizon_s, rank), in order of time, engine and row."""
    while True:
        first = first_hand_off(state)
        head_s = horizon_s
        head_rank = rank
        if first >= 0 and (state.hand_off_time_s[first], HAND_OFF) < (horizon_s, rank):
            head_s = state.hand_off_time_s[first]
            head_rank = HAND_OFF
        run_groups(state, head_s, head_rank, False)
        if state.outbox_count[0] > 0:
            keep_hand_offs(state)
            continue
        if head_rank != HAND_OFF or first < 0:
            return
        row = np.int64(state.hand_off_row[first]) + 1
        last = state.num_hand_offs[0] - 1
        state.hand_off_time_s[first] = state.hand_off_time_s[last]
        state.hand_off_row[first] = state.hand_off_row[last]
        state.num_hand_offs[0] = last
        begin_visit(state, np.int64(state.row_plan[row]), row, state.row_draw[row], head_s, HAND_OFF)
        keep_hand_offs(state)


@compiled
def first_hand_off(state: Any) -> int:
    """Which of those that have ended comes first; -1: there is none."""
    best = -1
    for place in range(state.num_hand_offs[0]):
        row = np.int64(state.hand_off_row[place])
        if best < 0:
            best = place
            continue
        other = np.int64(state.hand_off_row[best])
        own = (state.hand_off_time_s[place], np.int64(state.row_engine[row]), row)
        if own < (state.hand_off_time_s[best], np.int64(state.row_engine[other]), other):
            best = place
    return best


@compiled
def keep_hand_offs(state: Any) -> None:
    """Visits that the engines have ended wait for their turn."""
    for place in range(state.outbox_count[0]):
        number = state.num_hand_offs[0]
        state.hand_off_time_s[number] = state.outbox_time_s[place]
        state.hand_off_row[number] = state.outbox_row[place]
        state.num_hand_offs[0] = number + 1
    state.outbox_count[0] = 0


RUN_WATCHED = 0
RUN_ALL = 1
PULL = 2
PUSH = 3
RESERVE = 4
RELEASE = 5
ACT = 6
APPLY = 7
ARRIVE = 8
ABANDON = 9
HAND_ON = 10
WITHDRAW = 11


@compiled_entry
def enter(state: Any, operation: int, numbers: Any, e: int, queue: int, row: int, time_s: float, rank: int) -> int:
    """The one way from Python into the engines, so that the step loop is compiled into one function only."""
    if operation <= RUN_ALL:
        return run_groups(state, time_s, rank, operation == RUN_ALL)
    if operation == PULL:
        for engine in numbers:
            pull(state, engine, time_s, rank)
        return 0
    if operation == ACT:
        act_once(state, e)
        return 0
    if operation == APPLY:
        return launch_decided(state, e, numbers, time_s)
    if operation == ARRIVE:
        arrive(state, e, row)
        return 0
    if operation == HAND_ON:
        hand_on(state, time_s, rank)
        return 0
    pull(state, e, time_s, rank)
    if operation == ABANDON:
        return abandon(state, e, time_s, numbers)
    if operation == PUSH:
        add_visit(state, e, queue, row, time_s)
        return 0
    if operation == WITHDRAW:
        withdraw(state, e, numbers)
        grant_reservations(state, e, time_s)
        wake(state, e, time_s)
        return 0
    if operation == RESERVE:
        return 1 if reserve_or_wait(state, e, row) else 0
    release_sent(state, e, row, time_s)
    return 0


def run_until(handle: Any, horizon_s: float, rank: int, everything: bool) -> int:
    """Advance the watched groups (or all) to a horizon; stops at the first outward event. Returns their number."""
    return int(enter(handle, RUN_ALL if everything else RUN_WATCHED, NO_ENGINES, 0, 0, 0, horizon_s, rank))


def pull_all(handle: Any, engines: IntArray, time_s: float, rank: int) -> None:
    """Bring several engines to the present."""
    enter(handle, PULL, engines, 0, 0, 0, time_s, rank)


def push(handle: Any, e: int, queue: int, row: int, time_s: float, rank: int) -> None:
    """A visit joins an engine's queue."""
    enter(handle, PUSH, NO_ENGINES, e, queue, row, time_s, rank)


def reserve(handle: Any, e: int, row: int, time_s: float, rank: int) -> bool:
    """Reserve blocks for a visit whose KV is to be sent here; False: it waits, and GRANTED will be sent."""
    return bool(enter(handle, RESERVE, NO_ENGINES, e, 0, row, time_s, rank))


def release_kv(handle: Any, e: int, row: int, time_s: float, rank: int) -> None:
    """The KV of a visit has been sent away: its blocks are free from now on."""
    enter(handle, RELEASE, NO_ENGINES, e, 0, row, time_s, rank)


def fail(handle: Any, e: int, time_s: float, rank: int, num_rows: int) -> IntArray:
    """The engine loses all it holds; returns the rows (of `num_rows`) of those that were in it."""
    rows = np.zeros(num_rows, np.int64)
    return rows[: enter(handle, ABANDON, rows, e, 0, 0, time_s, rank)]


def take_back(handle: Any, e: int, rows: IntArray, time_s: float, rank: int) -> None:
    """Visits and samples that nobody wants any more leave the engine: those that run when the step in flight ends."""
    enter(handle, WITHDRAW, rows, e, 0, 0, time_s, rank)


def push_arrivals(handle: Any, first: int, last: int) -> None:
    """Route and push the arrivals number `first` to `last` - 1 of those laid out in state.bulk_row."""
    enter(handle, ARRIVE, NO_ENGINES, first, 0, last, 0.0, 0)


def hand_on_all(handle: Any) -> None:
    """Begin all stages that wait for others, after the last arrival."""
    enter(handle, HAND_ON, NO_ENGINES, 0, 0, 0, np.inf, SCHEDULING)


def act(handle: Any, group: int) -> None:
    """Do the group's next end or begin, exactly one."""
    enter(handle, ACT, NO_ENGINES, group, 0, 0, 0.0, 0)


def apply_decisions(
    handle: Any, e: int, rows: IntArray, num_tokens: IntArray, preempt_rows: IntArray, time_s: float
) -> int:
    """Begin the step that a Python policy has decided. 0, or 1 + the index of the first decision (preemptions first)
    that the engine cannot carry out."""
    pairs = np.column_stack((rows, num_tokens)).astype(np.int64).ravel()
    decisions = np.concatenate(([len(preempt_rows)], preempt_rows, pairs)).astype(np.int64)
    return int(enter(handle, APPLY, decisions, e, 0, 0, time_s, 0))
