"""Distributions of a stated service time, drawn by inversion: one uniform number a request."""

from __future__ import annotations

from abc import abstractmethod
from math import log, sqrt
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, PositiveFloat, Seconds
from hermes_sim.stages.stage import FloatArray


class ServiceTime(Description):
    """A distribution of times >= 0."""

    @abstractmethod
    def quantiles_s(self, uniforms: FloatArray) -> FloatArray:
        """Inverse of the distribution function at numbers in [0, 1); same shape."""

    @property
    def typical_s(self) -> float:
        """Mean of a thousand equally likely times: what somebody who has watched it for long expects."""
        uniforms = np.asarray((np.arange(1000) + 0.5) / 1000.0, np.float64)
        return float(self.quantiles_s(uniforms).mean())


class Fixed(ServiceTime):
    """Always the same time."""

    kind: Literal["fixed"] = "fixed"
    time_s: Seconds = Field(alias="time")

    def quantiles_s(self, uniforms: FloatArray) -> FloatArray:
        return np.full(uniforms.shape, self.time_s)


class Exponential(ServiceTime):
    """Memoryless: the server of M/M/k."""

    kind: Literal["exponential"] = "exponential"
    mean_s: Seconds = Field(alias="mean")

    def quantiles_s(self, uniforms: FloatArray) -> FloatArray:
        return -self.mean_s * np.log1p(-uniforms)


class Lognormal(ServiceTime):
    """Lognormal by its mean and coefficient of variation."""

    kind: Literal["lognormal"] = "lognormal"
    mean_s: Seconds = Field(alias="mean", gt=0.0)
    cv: PositiveFloat
    """Standard deviation over mean."""

    def quantiles_s(self, uniforms: FloatArray) -> FloatArray:
        from scipy.special import ndtri

        variance = log(1.0 + self.cv * self.cv)
        location = log(self.mean_s) - variance / 2.0
        return np.asarray(np.exp(location + sqrt(variance) * ndtri(uniforms)), dtype=np.float64)


class Gamma(ServiceTime):
    """Gamma by its mean and coefficient of variation; cv 1 is exponential."""

    kind: Literal["gamma"] = "gamma"
    mean_s: Seconds = Field(alias="mean")
    cv: PositiveFloat

    def quantiles_s(self, uniforms: FloatArray) -> FloatArray:
        from scipy.special import gammaincinv

        shape = 1.0 / (self.cv * self.cv)
        return np.asarray(self.mean_s / shape * gammaincinv(shape, uniforms), dtype=np.float64)


class Uniform(ServiceTime):
    """Evenly spread between two times."""

    kind: Literal["uniform"] = "uniform"
    low_s: Seconds = Field(alias="low")
    high_s: Seconds = Field(alias="high")

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low_s > self.high_s:
            raise ValueError("low is more than high")
        return self

    def quantiles_s(self, uniforms: FloatArray) -> FloatArray:
        return self.low_s + (self.high_s - self.low_s) * uniforms


SERVICE_TIMES: dict[str, type[ServiceTime]] = {
    "exponential": Exponential,
    "fixed": Fixed,
    "gamma": Gamma,
    "lognormal": Lognormal,
    "uniform": Uniform,
}
