"""Traffic description -> requests. One random stream per subsystem: a changed rate changes no length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hermes_sim.core.rng import stream
from hermes_sim.workload.adapters import with_adapters
from hermes_sim.workload.arrivals import Arrivals
from hermes_sim.workload.clients import with_clients
from hermes_sim.workload.images import with_images
from hermes_sim.workload.lengths import Lengths
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import ClosedLoop, FloatArray, RequestTable, first_of_session, request_table
from hermes_sim.workload.sessions import Sessions, pauses, turns_table
from hermes_sim.workload.sound import with_sound
from hermes_sim.workload.traffic import ClosedLoopUsers, SharedPrefix, Traffic


def generate_requests(traffic: Traffic, seed: int, *, resolve_path: ResolvePath = Path) -> RequestTable:
    """Every request of a run, in order of arrival; the same for the same traffic and seed.

    `resolve_path` turns a path as written into a file. Raises TraceError where a file cannot be read.
    """
    table = _source(traffic, seed, resolve_path)
    if traffic.images is not None:
        table = with_images(table, traffic.images, stream(seed, "images"), stream(seed, "image sizes"))
    if traffic.sound is not None:
        table = with_sound(table, traffic.sound, stream(seed, "sound"))
    if traffic.prefix is not None:
        table = _with_prefix(table, traffic.prefix, stream(seed, "prefix"))
    if traffic.clients is not None:
        table = with_clients(table, traffic.clients, stream(seed, "clients"))
    if traffic.adapters is not None:
        table = with_adapters(table, traffic.adapters, stream(seed, "adapters"))
    return table


def _source(traffic: Traffic, seed: int, resolve_path: ResolvePath) -> RequestTable:
    """Requests of the trace, or drawn ones without what is added to their prompts."""
    if traffic.trace is not None:
        return traffic.trace.requests(seed, resolve_path)
    assert traffic.lengths is not None
    if traffic.closed_loop is not None:
        assert traffic.num_requests is not None
        return _closed_loop(traffic.closed_loop, traffic.lengths, traffic.num_requests, seed, resolve_path)
    assert traffic.arrivals is not None
    return _open_loop(traffic, traffic.arrivals, traffic.lengths, seed, resolve_path)


def _open_loop(
    traffic: Traffic, arrivals: Arrivals, lengths: Lengths, seed: int, resolve_path: ResolvePath
) -> RequestTable:
    num_requests = traffic.num_requests
    arrival_s = arrivals.times(stream(seed, "arrivals"), num_requests, traffic.duration_s, resolve_path)
    if traffic.sessions is not None:
        table = _in_sessions(traffic.sessions, arrival_s, lengths, num_requests, seed, resolve_path)
    else:
        prompt, output = lengths.sample(stream(seed, "lengths"), len(arrival_s), resolve_path)
        table = request_table(arrival_s, prompt, output)
    if num_requests is not None and traffic.duration_s is None and table.num_requests < num_requests:
        return replace(table, notes=(f"only {table.num_requests:,} of {num_requests:,} requests ever arrive",))
    return table


def _in_sessions(
    sessions: Sessions,
    arrival_s: FloatArray,
    lengths: Lengths,
    num_requests: int | None,
    seed: int,
    resolve_path: ResolvePath,
) -> RequestTable:
    num_turns = sessions.num_turns(stream(seed, "sessions"), len(arrival_s))
    num_sessions = len(arrival_s)
    if num_requests is not None:
        num_sessions = min(num_sessions, int(np.searchsorted(np.cumsum(num_turns), num_requests)) + 1)
    while True:
        num_drawn = int(num_turns[:num_sessions].sum())
        added, answered = lengths.sample(stream(seed, "lengths"), num_drawn, resolve_path)
        table = turns_table(
            arrival_s[:num_sessions],
            num_turns[:num_sessions],
            added,
            answered,
            pauses(stream(seed, "think_time"), num_drawn, sessions.think_time_s, sessions.think_time_cv),
            max_num_prompt_tokens=sessions.max_num_prompt_tokens,
            num_requests=num_requests,
        )
        if num_requests is None or table.num_requests >= num_requests or num_sessions == len(arrival_s):
            return table
        # sessions ended early for their length: more of them are needed, the first ones stay as they are
        num_sessions = min(2 * num_sessions, len(arrival_s))


def _closed_loop(
    users: ClosedLoopUsers, lengths: Lengths, num_requests: int, seed: int, resolve_path: ResolvePath
) -> RequestTable:
    prompt, output = lengths.sample(stream(seed, "lengths"), num_requests, resolve_path)
    think_time_s = pauses(stream(seed, "think_time"), num_requests, users.think_time_s, users.think_time_cv)
    first = think_time_s[: users.concurrency]
    first[:] = users.ramp_up_s * np.arange(len(first)) / users.concurrency
    return request_table(
        np.full(num_requests, np.nan), prompt, output, closed_loop=ClosedLoop(users.concurrency, think_time_s)
    )


def _with_prefix(table: RequestTable, prefix: SharedPrefix, rng: np.random.Generator) -> RequestTable:
    """Turns of one session share their first turn's system prompt."""
    for_share, for_group = rng.random((table.num_requests, 2)).T
    rows = first_of_session(table)
    shares = for_share[rows] < prefix.share
    group = (for_group[rows] * prefix.groups).astype(np.int64)
    return replace(
        table,
        num_prompt_tokens=table.num_prompt_tokens + np.where(shares, prefix.tokens, 0),
        prefix_group=np.where(shares, group, -1),
        prefix_tokens=np.where(shares, prefix.tokens, 0),
    )
