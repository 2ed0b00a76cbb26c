"""Distributions of whole numbers a stage states: tokens it writes, rounds it takes. One uniform number a request."""

from __future__ import annotations

from abc import abstractmethod
from math import log, sqrt
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from hermes_sim.stages.stage import FloatArray, IntArray


class Count(Description):
    """A distribution of whole numbers >= 0."""

    @abstractmethod
    def quantiles(self, uniforms: FloatArray, num_output_tokens: IntArray) -> IntArray:
        """Inverse of the distribution function at numbers in [0, 1), for requests with so many output tokens each;
        all of the same shape."""

    @property
    @abstractmethod
    def largest(self) -> int | None:
        """No number is larger; None where there is no bound."""


class FixedCount(Count):
    """Always the same number."""

    kind: Literal["fixed"] = "fixed"
    value: NonNegativeInt

    def quantiles(self, uniforms: FloatArray, num_output_tokens: IntArray) -> IntArray:
        return np.full(uniforms.shape, self.value, np.int64)

    @property
    def largest(self) -> int:
        return self.value


class UniformCount(Count):
    """Each number from `low` to `high` alike."""

    kind: Literal["uniform"] = "uniform"
    low: NonNegativeInt
    high: NonNegativeInt

    @model_validator(mode="after")
    def _ordered(self) -> UniformCount:
        if self.low > self.high:
            raise ValueError("low is more than high")
        return self

    def quantiles(self, uniforms: FloatArray, num_output_tokens: IntArray) -> IntArray:
        return np.asarray(self.low + np.floor(uniforms * (self.high - self.low + 1)), np.int64)

    @property
    def largest(self) -> int:
        return self.high


class GeometricCount(Count):
    """1 and up: after each there is one more with the same chance. Cut at `max`, which carries the rest."""

    kind: Literal["geometric"] = "geometric"
    mean: PositiveFloat
    """Without the cut."""
    max: PositiveInt

    @model_validator(mode="after")
    def _mean_in_range(self) -> GeometricCount:
        if self.mean < 1.0:
            raise ValueError(f"mean {self.mean:g} is less than 1, the smallest number")
        return self

    def quantiles(self, uniforms: FloatArray, num_output_tokens: IntArray) -> IntArray:
        if self.mean == 1.0:
            return np.ones(uniforms.shape, np.int64)
        tries = np.floor(np.log1p(-uniforms) / np.log1p(-1.0 / self.mean)).astype(np.int64) + 1
        return np.asarray(np.minimum(tries, self.max), np.int64)

    @property
    def largest(self) -> int:
        return self.max


class LognormalCount(Count):
    """Lognormal by its mean and coefficient of variation, rounded, between `min` and `max`."""

    kind: Literal["lognormal"] = "lognormal"
    mean: PositiveFloat
    """Without the cuts."""
    cv: PositiveFloat
    """Standard deviation over mean."""
    min: NonNegativeInt = 1
    max: PositiveInt | None = None

    def quantiles(self, uniforms: FloatArray, num_output_tokens: IntArray) -> IntArray:
        from scipy.special import ndtri

        variance = log(1.0 + self.cv * self.cv)
        values = np.exp(log(self.mean) - variance / 2.0 + sqrt(variance) * ndtri(uniforms))
        most = np.inf if self.max is None else float(self.max)
        return np.asarray(np.rint(np.clip(values, float(self.min), most)), np.int64)

    @property
    def largest(self) -> int | None:
        return self.max


class ShareCount(Count):
    """A share of the request's output tokens, rounded down."""

    kind: Literal["output_share"] = "output_share"
    share_frac: Fraction

    def quantiles(self, uniforms: FloatArray, num_output_tokens: IntArray) -> IntArray:
        return np.asarray(np.floor(self.share_frac * num_output_tokens), np.int64)

    @property
    def largest(self) -> None:
        return None


COUNTS: dict[str, type[Count]] = {
    "fixed": FixedCount,
    "geometric": GeometricCount,
    "lognormal": LognormalCount,
    "output_share": ShareCount,
    "uniform": UniformCount,
}


def number_or_law(value: Any) -> Any:
    """`300` is short for `{kind: fixed, value: 300}`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"kind": "fixed", "value": value}
    return value
