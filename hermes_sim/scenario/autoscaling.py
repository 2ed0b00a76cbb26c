"""Replicas of an engine that come and go with the load."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, PositiveFloat, PositiveInt, Seconds


class ScheduledReplicas(Description):
    """From a time of the day on."""

    at_s: Seconds = Field(alias="at")
    """From the begin of each period."""
    replicas: PositiveInt
    """At least so many run, whatever the load."""


class Autoscaling(Description):
    """How many replicas of an engine run: `replicas` of them at most."""

    min_replicas: PositiveInt = 1
    start_replicas: PositiveInt | None = None
    """That run when the run begins; the minimum if not given."""
    metric: Literal["outstanding_tokens", "outstanding_requests", "missed_ttft"] = "outstanding_requests"
    """Mean over the replicas that take requests: tokens left to compute, or requests inside. missed_ttft: of the first
    tokens since the last look, and of the requests that should have had theirs by now, the share that came later than
    the loosest bound of their SLO."""
    scale_up_above: PositiveFloat
    scale_down_below: PositiveFloat
    interval_s: Seconds = Field(default=10.0, alias="interval", gt=0.0)
    """Between two looks."""
    schedule: tuple[ScheduledReplicas, ...] = ()
    """How many run at least, by the time of the day, in order; min_replicas before the first. What is missing at a
    look is started at once."""
    period_s: Seconds = Field(default=86400.0, alias="period", gt=0.0)
    """Of the schedule: a day."""
    scale_down_after_s: Seconds = Field(default=60.0, alias="scale_down_after")
    """The metric must have been below for so long; one replica goes at a time, and ends what it has."""
    start_time_s: Seconds = Field(default=30.0, alias="start_time")
    """Of a new replica, from the decision until it loads its weights: machine, container, process, graph capture."""
    weights_on: str | None = None
    """Device group of the node that holds the weights; loading them crosses the real links. No time if not given."""

    def least(self, time_s: float) -> int:
        """Replicas that run at least at a time of the run."""
        of_day_s = time_s % self.period_s
        known = [one.replicas for one in self.schedule if one.at_s <= of_day_s]
        return max(self.min_replicas, known[-1] if known else 0)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.scale_down_below >= self.scale_up_above:
            raise ValueError("scale_down_below must be less than scale_up_above, or replicas come and go for ever")
        times_s = [one.at_s for one in self.schedule]
        if times_s != sorted(set(times_s)) or any(at_s >= self.period_s for at_s in times_s):
            raise ValueError("the times of schedule rise, and lie within its period")
        return self
