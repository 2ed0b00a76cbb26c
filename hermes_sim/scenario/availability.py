"""A cluster that lives: outages, failures at random, maintenance, and replicas that come and go with the load."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import (
    Description,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seconds,
)


class Outage(Description):
    """Replicas of an engine that are away for a while."""

    engine: Name
    replica: NonNegativeInt | None = None
    """Number of the replica; all of them if not given."""
    kind: Literal["failure", "maintenance"] = "failure"
    """failure: at once, with all that they hold; maintenance: they finish what they have, and take nothing new."""
    at_s: Seconds = Field(alias="at")
    lasts_s: Seconds = Field(alias="lasts", gt=0.0)
    """Until they take requests again: repair, restart and loading included."""


class RandomFailures(Description):
    """Every replica of an engine fails on its own, after exponential times."""

    engine: Name
    mtbf_s: Seconds = Field(alias="mtbf", gt=0.0)
    """Mean time between the end of a repair and the next failure, of one replica."""
    repair_s: Seconds = Field(alias="repair", gt=0.0)
    """Mean time until the replica takes requests again (exponential)."""


class Availability(Description):
    """What goes wrong, and what becomes of the requests that were there."""

    outages: tuple[Outage, ...] = ()
    failures: tuple[RandomFailures, ...] = ()
    detection_s: Seconds = Field(default=1.0, alias="detection")
    """From a failure until the requests that were lost are sent again, from their prompt."""
    max_retries: NonNegativeInt = 3
    """Of one pass of a request; then it has failed."""


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
