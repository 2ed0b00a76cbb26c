"""Arrivals taken from a list or from a recorded trace; lengths come from elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Seconds, one_of
from hermes_sim.workload.arrivals import Arrivals
from hermes_sim.workload.arrivals.process import before
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.readers import TRACE_FORMATS, Trace
from hermes_sim.workload.requests import FloatArray


class Replay(Arrivals):
    """Given times, once; requests end with them."""

    kind: Literal["replay"] = "replay"
    times_s: tuple[Annotated[Seconds, Field(ge=0.0)], ...] | None = Field(default=None, alias="times")
    """Ascending, from the start of the run."""
    trace: Annotated[Trace, one_of(TRACE_FORMATS, "trace format", key="format")] | None = None
    """Its arrivals are used, after its own window, rate_scale, time_scale and limit; not its lengths."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.times_s is None) == (self.trace is None):
            raise ValueError("needs either times or trace")
        if self.times_s is not None and list(self.times_s) != sorted(self.times_s):
            raise ValueError("times must ascend")
        return self

    @property
    def mean_rate_per_s(self) -> float:
        if self.times_s is None or len(self.times_s) < 2 or self.times_s[-1] == self.times_s[0]:
            return float("nan")
        return (len(self.times_s) - 1) / (self.times_s[-1] - self.times_s[0])

    def times(
        self,
        rng: np.random.Generator,
        num_requests: int | None,
        duration_s: float | None,
        resolve_path: ResolvePath,
    ) -> FloatArray:
        if self.trace is None:
            return before(np.array(self.times_s, np.float64), num_requests, duration_s)
        # what a format itself leaves to chance follows the same stream as the other laws of arrivals
        recorded = self.trace.requests(int(rng.integers(2**32)), resolve_path)
        return before(recorded.arrival_s[~np.isnan(recorded.arrival_s)], num_requests, duration_s)

    def scaled(self, factor: float) -> Self:
        """The same arrivals in less time."""
        if self.trace is not None:
            return self.model_copy(update={"trace": self.trace.scaled(factor)})
        return self.model_copy(update={"times_s": tuple(time_s / factor for time_s in self.times_s or ())})

    def describe(self) -> str:
        return f"arrivals of {self.trace.describe()}" if self.trace is not None else "given arrivals"
