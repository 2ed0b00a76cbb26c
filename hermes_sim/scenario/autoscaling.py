"""Replicas of an engine that come and go with the load."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, PositiveFloat, PositiveInt, Seconds


class Autoscaling(Description):
    """How many replicas of an engine run: `replicas` of them at most."""

    min_replicas: PositiveInt = 1
    start_replicas: PositiveInt | None = None
    """That run when the run begins; the minimum if not given."""
    metric: Literal["outstanding_tokens", "outstanding_requests"] = "outstanding_requests"
    """Mean over the replicas that take requests: tokens left to compute, or requests inside."""
    scale_up_above: PositiveFloat
    scale_down_below: PositiveFloat
    interval_s: Seconds = Field(default=10.0, alias="interval", gt=0.0)
    """Between two looks."""
    scale_down_after_s: Seconds = Field(default=60.0, alias="scale_down_after")
    """The metric must have been below for so long; one replica goes at a time, and ends what it has."""
    start_time_s: Seconds = Field(default=30.0, alias="start_time")
    """Of a new replica, from the decision until it loads its weights: machine, container, process, graph capture."""
    weights_on: str | None = None
    """Device group of the node that holds the weights; loading them crosses the real links. No time if not given."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.scale_down_below >= self.scale_up_above:
            raise ValueError("scale_down_below must be less than scale_up_above, or replicas come and go for ever")
        return self
