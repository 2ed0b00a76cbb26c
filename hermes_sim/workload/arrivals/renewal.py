"""Renewal arrivals: independent, equally distributed gaps between requests."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from hermes_sim.core.schema import Fraction
from hermes_sim.workload.arrivals.process import ArrivalRate, Arrivals, before, gaps_beyond
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import FloatArray


class Renewal(Arrivals):
    """Gaps of mean 1/rate; the first request arrives after the first gap."""

    rate_per_s: ArrivalRate = Field(alias="rate")

    @property
    def mean_rate_per_s(self) -> float:
        return self.rate_per_s

    @abstractmethod
    def unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> FloatArray:
        """[num_gaps] non-negative gaps of mean 1; two calls draw what one call for the sum would have drawn."""

    def times(
        self,
        rng: np.random.Generator,
        num_requests: int | None,
        duration_s: float | None,
        resolve_path: ResolvePath,
    ) -> FloatArray:
        if self.rate_per_s == 0.0:
            return np.zeros(0)
        if num_requests is not None:
            unit_gaps = self.unit_gaps(rng, num_requests)
        else:
            unit_gaps = gaps_beyond(lambda num: self.unit_gaps(rng, num), (duration_s or 0.0) * self.rate_per_s)
        return before(np.cumsum(unit_gaps) / self.rate_per_s, num_requests, duration_s)

    def scaled(self, factor: float) -> Self:
        return self.model_copy(update={"rate_per_s": self.rate_per_s * factor})


class Constant(Renewal):
    """One request every 1/rate seconds, the first at the start of the run."""

    kind: Literal["constant"] = "constant"

    def unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> FloatArray:
        return np.ones(num_gaps)

    def times(
        self,
        rng: np.random.Generator,
        num_requests: int | None,
        duration_s: float | None,
        resolve_path: ResolvePath,
    ) -> FloatArray:
        if self.rate_per_s == 0.0:
            return np.zeros(0)
        num_within = math.inf if duration_s is None else math.ceil(duration_s * self.rate_per_s)
        num_arrivals = int(min(num_within, math.inf if num_requests is None else num_requests))
        return np.arange(num_arrivals) / self.rate_per_s


class Uniform(Renewal):
    """Gaps uniform in (1 - spread, 1 + spread) / rate."""

    kind: Literal["uniform"] = "uniform"
    spread: Fraction = 1.0
    """Half width of the gaps as a share of their mean."""

    def unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> FloatArray:
        return 1.0 + self.spread * (2.0 * rng.random(num_gaps) - 1.0)


class Normal(Renewal):
    """Gaps normal, cut off at zero and rescaled so that the rate is kept."""

    kind: Literal["normal"] = "normal"
    cv: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25
    """Standard deviation / mean of the normal law before the cut; above 0.5 the cut makes the gaps more even."""

    def unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> FloatArray:
        if self.cv == 0.0:
            return np.ones(num_gaps)
        gaps = np.zeros(0)
        while len(gaps) < num_gaps:  # in order of drawing, so that a longer run starts with the same gaps
            drawn = 1.0 + self.cv * rng.standard_normal(num_gaps - len(gaps))
            gaps = np.concatenate([gaps, drawn[drawn >= 0.0]])
        return gaps / self._mean_after_cut()

    def _mean_after_cut(self) -> float:
        cut = 1.0 / self.cv  # standard deviations between the mean and zero
        density = math.exp(-0.5 * cut * cut) / math.sqrt(2.0 * math.pi)
        kept = 0.5 * math.erfc(-cut / math.sqrt(2.0))
        return 1.0 + self.cv * density / kept


class Poisson(Renewal):
    """Memoryless arrivals: exponential gaps."""

    kind: Literal["poisson"] = "poisson"

    def unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> FloatArray:
        return rng.standard_exponential(num_gaps)


class Gamma(Renewal):
    """Gamma gaps: cv > 1 is burstier than Poisson, cv < 1 more even.

    vLLM's benchmarks call 1/cv**2 the burstiness.
    """

    kind: Literal["gamma"] = "gamma"
    cv: Annotated[float, Field(gt=0.0, le=100.0)]
    """Standard deviation / mean of the gaps."""

    def unit_gaps(self, rng: np.random.Generator, num_gaps: int) -> FloatArray:
        shape = 1.0 / (self.cv * self.cv)
        return rng.standard_gamma(shape, num_gaps) / shape

    def describe(self) -> str:
        return f"{super().describe()} (cv {self.cv:g})"
