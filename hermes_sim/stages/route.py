"""Which way a request goes on: to a small or a large model, to an answer or to another round."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Name, PositiveFloat
from hermes_sim.stages.stage import Stage


class Route(Stage):
    """One of several outcomes for each request; later stages name those `when` they run.

    Takes no time itself: give a classifier or a grader a stage before it.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "nowhere"

    kind: Literal["route"] = "route"
    by: Literal["chance", "prompt_tokens", "load"] = "chance"
    """chance: drawn for each request (difficulty, confidence of a small model); prompt_tokens: by the length of its
    prompt; load: the outcome whose engines have least to do when the request comes."""
    outcomes: Annotated[dict[Name, PositiveFloat], Field(min_length=2)]
    """Outcome -> chance: its share, relative to the others; prompt_tokens: the longest prompt that it takes, in rising
    order, the last one taking the rest; load: capacity of its engines, relative to the others."""

    @model_validator(mode="after")
    def _rising(self) -> Route:
        limits = list(self.outcomes.values())
        if self.by == "prompt_tokens" and limits != sorted(set(limits)):
            raise ValueError("outcomes by prompt_tokens need rising numbers of tokens")
        return self
