"""Arrivals whose rate follows the time of day: an inhomogeneous Poisson process, drawn by a change of time.

The k-th arrival is where the mean number of arrivals reaches the k-th of a Poisson process of rate 1, so that a higher
rate brings the same arrivals, each earlier. Source: E. Cinlar, "Introduction to Stochastic Processes" (1975), section
4.7.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Fraction, Seconds
from hermes_sim.workload.arrivals.process import ArrivalRate, Arrivals, before, gaps_beyond
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import FloatArray

KNOTS: Final = 65536
"""Parts of the period in each of which the rate is taken as constant, at its mean."""

Point = tuple[Seconds, ArrivalRate]


class Diurnal(Arrivals):
    """Poisson arrivals around a daily curve: a cosine (`rate`, `amplitude`, `peak_at`) or straight lines (`curve`)."""

    kind: Literal["diurnal"] = "diurnal"
    rate_per_s: ArrivalRate | None = Field(default=None, alias="rate")
    """Mean over the period."""
    amplitude: Fraction = 0.5
    """(highest - mean) / mean of the cosine."""
    peak_at_s: Seconds = Field(default=14 * 3600.0, alias="peak_at")
    curve: tuple[Point, ...] | None = Field(default=None, min_length=1)
    """(time of day, rate) in order of time, joined by straight lines, the last to the first of the next period."""
    period_s: Annotated[Seconds, Field(gt=0.0)] = Field(default=86400.0, alias="period")
    start_at_s: Seconds = Field(default=0.0, alias="start_at")
    """Time of day at the start of the run."""

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if (self.rate_per_s is None) == (self.curve is None):
            raise ValueError("needs either rate (a cosine around it) or curve, not both")
        if self.curve is not None:
            times_s = [time_s for time_s, _ in self.curve]
            if any(late <= early for early, late in pairwise(times_s)):
                raise ValueError("the times of curve must ascend")
            if times_s[0] < 0.0 or times_s[-1] >= self.period_s:
                raise ValueError(f"the times of curve must lie in [0 s, {self.period_s:g} s), one period")
        return self

    def rates(self, time_s: FloatArray) -> FloatArray:
        """Arrivals per second at those times after the start of the run."""
        time_of_day_s = time_s + self.start_at_s
        if self.curve is None:
            phase = 2.0 * math.pi * (time_of_day_s - self.peak_at_s) / self.period_s
            return np.asarray((self.rate_per_s or 0.0) * (1.0 + self.amplitude * np.cos(phase)))
        at_s, rate_per_s = np.array(self.curve).T
        return np.asarray(np.interp(time_of_day_s, at_s, rate_per_s, period=self.period_s))

    @property
    def mean_rate_per_s(self) -> float:
        if self.curve is None:
            return self.rate_per_s or 0.0
        at_s, rate_per_s = np.array(self.curve).T
        closed_at_s = np.append(at_s, at_s[0] + self.period_s)
        closed_rate_per_s = np.append(rate_per_s, rate_per_s[0])
        return float(np.trapezoid(closed_rate_per_s, closed_at_s) / self.period_s)

    def times(
        self,
        rng: np.random.Generator,
        num_requests: int | None,
        duration_s: float | None,
        resolve_path: ResolvePath,
    ) -> FloatArray:
        if self._highest_rate_per_s() == 0.0 or num_requests == 0:
            return np.zeros(0)
        knots_s, counts = self._expected_counts()
        if num_requests is not None:
            gaps = rng.standard_exponential(num_requests)
        else:
            num_whole, rest_s = divmod(duration_s or 0.0, self.period_s)
            total = num_whole * counts[-1] + np.interp(rest_s, knots_s, counts)
            gaps = gaps_beyond(rng.standard_exponential, float(total))
        days, rest = np.divmod(np.cumsum(gaps), counts[-1])
        return before(days * self.period_s + np.interp(rest, counts, knots_s), num_requests, duration_s)

    def _expected_counts(self) -> tuple[FloatArray, FloatArray]:
        """Times of one period after the start of the run, and the mean number of arrivals until each."""
        knots_s = np.linspace(0.0, self.period_s, KNOTS + 1)
        if self.curve is not None:
            corners_s = (np.array(self.curve)[:, 0] - self.start_at_s) % self.period_s
            knots_s = np.union1d(knots_s, corners_s)
            rates_per_s = self.rates(knots_s)
            counts = np.cumsum(0.5 * (rates_per_s[1:] + rates_per_s[:-1]) * np.diff(knots_s))
            return knots_s, np.concatenate([[0.0], counts])
        turn = 2.0 * math.pi / self.period_s
        phase = turn * (knots_s + self.start_at_s - self.peak_at_s)
        wave_s = self.amplitude / turn * (np.sin(phase) - math.sin(phase[0]))
        return knots_s, (self.rate_per_s or 0.0) * np.maximum.accumulate(knots_s + wave_s)

    def _highest_rate_per_s(self) -> float:
        if self.curve is None:
            return (self.rate_per_s or 0.0) * (1.0 + self.amplitude)
        return max(rate_per_s for _, rate_per_s in self.curve)

    def scaled(self, factor: float) -> Self:
        """Every hour's rate; the day stays as long as it is."""
        if self.curve is None:
            return self.model_copy(update={"rate_per_s": (self.rate_per_s or 0.0) * factor})
        curve = tuple((time_s, rate_per_s * factor) for time_s, rate_per_s in self.curve)
        return self.model_copy(update={"curve": curve})

    def describe(self) -> str:
        return f"diurnal {self.mean_rate_per_s:.4g}/s (highest {self._highest_rate_per_s():.4g}/s)"
