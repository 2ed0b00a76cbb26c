"""Classes of requests: who comes first, what each is promised, how long its clients wait."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Name, NonNegativeInt, PositiveFloat, Seconds
from hermes_sim.scenario.slo import Slo


class Patience(Description):
    """When a client hangs up, and nobody wants its request any more."""

    first_token_s: Seconds | None = Field(default=None, alias="first_token", gt=0.0)
    """From sending the request, if no token has come by then."""
    end_s: Seconds | None = Field(default=None, alias="end", gt=0.0)
    """From sending the request, if its last token has not come by then."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.first_token_s is None and self.end_s is None:
            raise ValueError("needs first_token, end or both")
        return self


class ServiceClass(Description):
    """One class of requests."""

    name: Name
    weight: PositiveFloat = 1.0
    """Share of the requests that no class claims by their pipeline, relative to the other classes of this kind."""
    pipelines: tuple[Name, ...] = ()
    """Its requests are those of these pipelines; if none are given, they are drawn by weight."""
    priority: NonNegativeInt = 0
    """Smaller is more urgent: for engines with `queue_order: priority`, and at the cluster's front door."""
    slo: Slo | None = None
    """What its requests are promised; the workload's if not given."""
    patience: Patience | None = None
    """The workload's if not given."""
