"""Multi-turn sessions: each turn's prompt is the whole conversation so far plus what the user adds."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, PositiveInt, Seconds
from hermes_sim.workload.requests import FloatArray, IntArray, RequestTable, request_table


class Sessions(Description):
    """Each arrival starts a session; `lengths` then say what each turn adds, not what it sends."""

    turns: Literal["fixed", "geometric"] = "geometric"
    mean_num_turns: Annotated[float, Field(ge=1.0)] = 4.0
    """With `fixed` a whole number."""
    think_time_s: Seconds = Field(default=30.0, alias="think_time")
    """Mean pause between an answer and the user's next turn."""
    think_time_cv: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """Standard deviation / mean of the pauses (gamma): 0 all alike, 1 exponential."""
    max_num_prompt_tokens: PositiveInt | None = None
    """A session ends before the turn whose prompt, history included, would be longer (system prompt not counted)."""

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        if self.turns == "fixed" and not self.mean_num_turns.is_integer():
            raise ValueError(f"turns: fixed needs a whole mean_num_turns, not {self.mean_num_turns:g}")
        return self

    def num_turns(self, rng: np.random.Generator, num_sessions: int) -> IntArray:
        """[num_sessions], each >= 1."""
        if self.turns == "fixed":
            return np.full(num_sessions, int(self.mean_num_turns), np.int64)
        return rng.geometric(1.0 / self.mean_num_turns, num_sessions).astype(np.int64)


def pauses(rng: np.random.Generator, num_pauses: int, mean_s: float, cv: float) -> FloatArray:
    """[num_pauses] gamma-distributed seconds; all equal to the mean for cv 0."""
    if cv == 0.0 or mean_s == 0.0:
        return np.full(num_pauses, mean_s)
    shape = 1.0 / (cv * cv)
    return rng.standard_gamma(shape, num_pauses) * (mean_s / shape)


def turns_table(
    session_arrival_s: FloatArray,
    num_turns: IntArray,
    num_added_tokens: IntArray,
    num_output_tokens: IntArray,
    think_s: FloatArray,
    *,
    max_num_prompt_tokens: int | None = None,
    num_requests: int | None = None,
) -> RequestTable:
    """One row per turn, session after session in order of arrival.

    The first two arrays: [num_sessions]; the others: [num_turns.sum()]. Turn k's prompt is what turns 0..k added and
    what turns 0..k-1 were answered. Only a session's first turn has an arrival; the next ones wait for the one before.
    """
    num_sessions = len(session_arrival_s)
    starts = np.cumsum(num_turns) - num_turns
    session = np.repeat(np.arange(num_sessions), num_turns)
    said = np.cumsum(num_added_tokens + num_output_tokens)
    said_before = np.concatenate([[0], said])[:-1]
    prompt = said_before - np.repeat(said_before[starts], num_turns) + num_added_tokens
    arrival_s = np.full(len(session), np.nan)
    arrival_s[starts] = session_arrival_s
    previous = np.arange(len(session)) - 1
    previous[starts] = -1
    kept = np.ones(len(session), np.bool_)
    if max_num_prompt_tokens is not None:
        kept = prompt <= max_num_prompt_tokens  # prompts only grow, so the turns kept are a session's first ones
    rows = np.flatnonzero(kept)[:num_requests]
    first = np.isin(rows, starts)
    return request_table(
        arrival_s[rows],
        prompt[rows],
        num_output_tokens[rows],
        session=session[rows],
        previous=np.where(first, -1, np.arange(len(rows)) - 1),
        think_s=np.where(first, 0.0, think_s[rows]),
    )
