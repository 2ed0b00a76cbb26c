"""The front door of a cluster: which requests are taken in at all."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, PerSecond, PositiveFloat, PositiveInt
from hermes_sim.scenario.slo import Limit


class RateLimit(Description):
    """A bucket of tokens: one is put in 1 / rate apart up to `burst`, each request takes one or is rejected."""

    rate_per_s: PerSecond = Field(alias="rate", gt=0.0)
    burst: PositiveInt = 1
    per: Literal["cluster", "class", "client"] = "cluster"
    """Who has a bucket of its own; requests without a client share one."""


class EarlyRejection(Description):
    """Requests are rejected whose first token would come too late, before anything is spent on them (Mooncake, arXiv
    2407.00079, section 7)."""

    ttft: Limit | None = None
    """The loosest bound on TTFT that the request's class is promised if not given."""
    margin: PositiveFloat = 1.0
    """The predicted time counts so many times."""


class Admission(Description):
    """Asked once for each request, when it arrives; all that is stated must agree."""

    max_outstanding: PositiveInt | None = None
    """Requests that are inside at a time."""
    when_full: Literal["reject", "shed"] = "reject"
    """reject: the newcomer; shed: instead of it the last that came of the lowest class below its own, if that has no
    token yet."""
    rate_limit: RateLimit | None = None
    early_rejection: EarlyRejection | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.when_full == "shed" and self.max_outstanding is None:
            raise ValueError("when_full goes with max_outstanding")
        if self.max_outstanding is None and self.rate_limit is None and self.early_rejection is None:
            raise ValueError("needs max_outstanding, rate_limit or early_rejection")
        return self
