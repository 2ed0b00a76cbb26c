"""Requests that are sent to a second engine when the first takes long; the first answer counts."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Seconds


class Hedge(Description):
    """Hedged requests (Dean and Barroso, The Tail at Scale, Communications of the ACM 56 (2), 2013)."""

    after_s: Seconds | None = Field(default=None, alias="after", gt=0.0)
    """Of a visit that has no answer yet: a prefill its first token, a job its end."""
    after_percentile: float | None = Field(default=None, gt=0.0, lt=100.0)
    """In place of a time: so many percent of the visits to the stage that were answered until now were faster."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.after_s is None) == (self.after_percentile is None):
            raise ValueError("needs after or after_percentile, and not both")
        return self
