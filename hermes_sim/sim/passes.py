"""Which stages each request passes through, as far as chance and its own length decide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.scenario.visited import Visited
from hermes_sim.stages.repeat import Rounds
from hermes_sim.stages.route import Route
from hermes_sim.workload.requests import RequestTable

Array = npt.NDArray[np.bool_]


def passing(
    pipeline: str, stages: Sequence[Visited], requests: RequestTable, seed: int, *, idle: bool = False
) -> Array:
    """[num_stages, num_requests] whether a request would pass through a stage; a request's draws do not depend on the
    others.

    What a route decides by load is not known before the run: until then, all of its outcomes pass. A stage that has
    nothing to do for a request is passed over, unless `idle`.
    """
    number = requests.num_requests
    found = np.ones((len(stages), number), bool)
    outcomes: dict[int, npt.NDArray[np.int64] | None] = {}
    rounds: dict[int, npt.NDArray[np.int64]] = {}
    for place, visited in enumerate(stages):
        stage, repeat = visited.stage, visited.repeat
        passes = found[place]
        if stage.probability < 1.0:
            passes &= uniforms(seed, f"probability {pipeline}.{visited.stream_name}", number) < stage.probability
        if not idle and (wanted := stage.wanted_by(requests, seed)) is not None:
            passes &= wanted
        if repeat is not None:
            if id(repeat) not in rounds:
                rounds[id(repeat)] = num_rounds(pipeline, repeat, requests, seed)
            passes &= visited.round < rounds[id(repeat)]
        for alternatives in visited.when:
            had_one = np.zeros(number, bool)
            for route, outcome in alternatives:
                drawn, decided = outcomes[route], stages[route].stage
                assert isinstance(decided, Route)
                is_it = True if drawn is None else drawn == list(decided.outcomes).index(outcome)
                had_one |= found[route] & is_it
            passes &= had_one
        if isinstance(stage, Route):
            outcomes[place] = route_outcomes(pipeline, visited.stream_name, stage, requests, seed)
        if visited.kind == "decode":  # left out with the pass that it belongs to
            for before in visited.after:
                if stages[before].kind in {"prefill", "decode"} and len(visited.after) == 1:
                    passes &= found[before]
    return found


def route_outcomes(
    pipeline: str, name: str, route: Route, requests: RequestTable, seed: int
) -> npt.NDArray[np.int64] | None:
    """[num_requests] place of each request's outcome among those of the route; None where the run decides.

    name: of the route in its round, which names the random numbers.
    """
    values = np.array(list(route.outcomes.values()))
    if route.by == "load":
        return None
    if route.by == "prompt_tokens":
        return np.searchsorted(values[:-1], requests.num_prompt_tokens, side="left").astype(np.int64)
    drawn = uniforms(seed, f"route {pipeline}.{name}", requests.num_requests)
    edges = np.cumsum(values / values.sum())
    return np.minimum(np.searchsorted(edges, drawn, side="right"), len(values) - 1).astype(np.int64)


def num_rounds(pipeline: str, repeat: Rounds, requests: RequestTable, seed: int) -> npt.NDArray[np.int64]:
    """[num_requests] rounds of each; none where its chance leaves it out."""
    drawn = uniforms(seed, f"rounds {pipeline}.{repeat.name}", requests.num_requests)
    rounds = repeat.rounds.quantiles(drawn, requests.num_output_tokens)
    if repeat.probability < 1.0:
        chance = uniforms(seed, f"probability {pipeline}.{repeat.name}", requests.num_requests)
        rounds = np.where(chance < repeat.probability, rounds, 0)
    return rounds


def uniforms(seed: int, name: str, number: int) -> npt.NDArray[np.float64]:
    """[number] in [0, 1), the i-th whatever the number."""
    return stream(seed, name).random(number)
