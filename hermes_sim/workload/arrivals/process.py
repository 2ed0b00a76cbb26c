"""What a law of arrivals is: a mean rate, and times drawn from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Final, Self

import numpy as np
from pydantic import AfterValidator

from hermes_sim.core.schema import Description, PerSecond
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import FloatArray

_SLOWEST_PER_S: Final = 1e-9


def _never_or_sometimes(rate_per_s: float) -> float:
    if 0.0 < rate_per_s < _SLOWEST_PER_S:
        raise ValueError(f"must be 0 or at least {_SLOWEST_PER_S:g} /s (one in 30 years), got {rate_per_s:g} /s")
    return rate_per_s


ArrivalRate = Annotated[PerSecond, AfterValidator(_never_or_sometimes)]
"""0: nothing ever arrives. Slower than once in 30 years is taken for a slip: times would overflow."""


class Arrivals(Description):
    """One law of arrivals. A rate of zero is allowed: nothing ever arrives."""

    @property
    @abstractmethod
    def mean_rate_per_s(self) -> float:
        """Long-run arrivals per second; NaN where the law has none."""

    @abstractmethod
    def times(
        self,
        rng: np.random.Generator,
        num_requests: int | None,
        duration_s: float | None,
        resolve_path: ResolvePath,
    ) -> FloatArray:
        """Ascending arrival times from the start of the run: the first num_requests of those before duration_s.

        At least one of the two is given. A longer run starts with the same arrivals as a shorter one.
        """

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """The same law at so many times the rate; under one seed the same requests arrive, in the same order.

        What is a matter of the clock (the length of a burst, a day) stays as it is.
        """

    def describe(self) -> str:
        """'Poisson 4.0/s', for people."""
        return f"{type(self).__name__} {self.mean_rate_per_s:.4g}/s"


def before(times_s: FloatArray, num_requests: int | None, duration_s: float | None) -> FloatArray:
    """The first num_requests of those before duration_s."""
    if duration_s is not None:
        times_s = times_s[: np.searchsorted(times_s, duration_s)]
    return times_s if num_requests is None else times_s[:num_requests]


BLOCK: Final = 4096
"""Gaps drawn at once where it is not known how many are needed."""


def gaps_beyond(draw: Callable[[int], FloatArray], total: float) -> FloatArray:
    """As many gaps as it takes to reach beyond a sum. draw(num): so many more of them."""
    blocks = [draw(BLOCK)]
    reached = blocks[0].sum()
    while reached <= total:
        blocks.append(draw(BLOCK))
        reached += blocks[-1].sum()
    return np.concatenate(blocks)
