"""When the engine gave out each token of a request: exact, from the recorded decisions of its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats

TOLERANCE_S = 1e-9


@dataclass(slots=True)
class _Sequence:
    """What of a request has been computed so far."""

    known: int
    """Tokens that are there: the prompt's, and those given out."""
    computed: int = 0
    """Of these, tokens whose KV is there."""
    accepted: int = 0
    """Drafts kept in the step at hand."""


def message_times_s(requests: pd.DataFrame, steps: pd.DataFrame, decisions: pd.DataFrame) -> dict[int, FloatArray]:
    """Request -> ends of the steps that gave it tokens, for every request of which they can be told.

    A step gives a token, and the drafts accepted with it, once it has computed all that was known of the sequence;
    chunks of prompts and what is computed again after a preemption give none. Left out are requests with several
    samples or passes, and those whose tokens do not add up this way (other engines wrote for them as well).
    """
    plain = requests[(requests["num_passes"] == 1) & (requests["num_samples"] == 1)]
    prompts = dict(zip(plain["request"].tolist(), plain["num_prompt_tokens"].tolist(), strict=True))
    times, given = _replay(prompts, steps, decisions)
    found: dict[int, FloatArray] = {}
    for _, row in plain.iterrows():
        number = int(row["request"])
        own_s, tokens = np.array(times.get(number, [])), np.array(given.get(number, []), dtype=np.int64)
        if len(own_s) == 0:
            continue
        needed = int(np.searchsorted(np.cumsum(tokens), int(row["num_output_tokens"]))) + 1  # later steps were in vain
        own_s, first_s = own_s[:needed], float(row["engine_first_token_s"])
        complete = int(tokens.sum()) >= int(row["num_output_tokens"]) and len(own_s) == needed
        in_order = own_s[0] <= first_s + TOLERANCE_S and (needed == 1 or first_s <= own_s[1] + TOLERANCE_S)
        if complete and in_order:
            own_s[0] = first_s  # where it comes with the KV: when that is there
            found[number] = own_s
    return found


def _replay(
    prompts: Mapping[int, int], steps: pd.DataFrame, decisions: pd.DataFrame
) -> tuple[dict[int, list[float]], dict[int, list[int]]]:
    """Of each request, moments and numbers of tokens; the steps of all engines in the order in which they began."""
    order = steps.reset_index(drop=True).sort_values("start_s", kind="stable")
    rank = pd.Series(
        np.arange(len(order)), index=pd.MultiIndex.from_arrays([order["engine"].astype(str), order["step"]])
    )
    places = rank.reindex(pd.MultiIndex.from_arrays([decisions["engine"].astype(str), decisions["step"]])).to_numpy()
    ends_s = floats(order, "end_s")
    sorted_decisions = np.argsort(places, kind="stable")
    rows = zip(
        places[sorted_decisions].tolist(),
        decisions["request"].to_numpy()[sorted_decisions].tolist(),
        decisions["kind"].astype(str).to_numpy()[sorted_decisions].tolist(),
        decisions["amount"].to_numpy()[sorted_decisions].tolist(),
        strict=True,
    )
    state = {number: _Sequence(tokens) for number, tokens in prompts.items()}
    times: dict[int, list[float]] = {}
    given: dict[int, list[int]] = {}
    scheduled: dict[int, int] = {}
    at = -1

    def end_step() -> None:
        for number, amount in scheduled.items():
            one = state[number]
            one.computed += amount
            if one.computed >= one.known:
                times.setdefault(number, []).append(float(ends_s[at]))
                given.setdefault(number, []).append(1 + one.accepted)
                one.known += 1 + one.accepted
                one.computed = one.known - 1
            one.accepted = 0
        scheduled.clear()

    for place, number, kind, amount in rows:
        if place != at:
            end_step()
            at = int(place)
        if number not in state:
            continue
        if kind == "scheduled":
            scheduled[number] = amount
        elif kind == "admitted":
            state[number].computed = amount
        elif kind == "preempted":
            state[number].computed = 0
        elif kind == "accepted":
            state[number].accepted = amount
    end_step()
    return times, given
