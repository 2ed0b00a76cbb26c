"""Lengths by formula: fixed, uniform, lognormal, gamma."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveInt
from hermes_sim.workload.lengths.law import Lengths
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import FloatArray, IntArray


class Fixed(Lengths):
    """Every request alike."""

    kind: Literal["fixed"] = "fixed"
    num_prompt_tokens: NonNegativeInt
    num_output_tokens: NonNegativeInt

    def sample(
        self, rng: np.random.Generator, num_requests: int, resolve_path: ResolvePath
    ) -> tuple[IntArray, IntArray]:
        prompt = np.full(num_requests, self.num_prompt_tokens, np.int64)
        return prompt, np.full(num_requests, self.num_output_tokens, np.int64)

    def describe(self) -> str:
        return f"{self.num_prompt_tokens:,} prompt + {self.num_output_tokens:,} output tokens"


class Uniform(Lengths):
    """Whole numbers in [range_ratio * n, n], prompt and output independent, as InferenceX and vLLM draw them."""

    kind: Literal["uniform"] = "uniform"
    num_prompt_tokens: NonNegativeInt
    """Longest."""
    num_output_tokens: NonNegativeInt
    """Longest."""
    range_ratio: Fraction = 0.8
    """Shortest / longest; 1: all alike."""

    def sample(
        self, rng: np.random.Generator, num_requests: int, resolve_path: ResolvePath
    ) -> tuple[IntArray, IntArray]:
        longest = np.array([self.num_prompt_tokens, self.num_output_tokens])
        shortest = np.ceil(longest * self.range_ratio - 1e-9).astype(np.int64)
        drawn = shortest + np.floor(rng.random((num_requests, 2)) * (longest - shortest + 1)).astype(np.int64)
        prompt, output = drawn.T
        return prompt, output

    def describe(self) -> str:
        longest = f"{self.num_prompt_tokens:,} prompt + {self.num_output_tokens:,} output tokens"
        return f"uniform in {self.range_ratio:g} to 1 of {longest}"


class Marginal(Description):
    """Law of one length: mean and spread, rounded to whole tokens and kept within [min, max]."""

    mean: Annotated[float, Field(gt=0.0)]
    """Tokens, before rounding and limits."""
    cv: Annotated[float, Field(ge=0.0, le=20.0)] = 1.0
    """Standard deviation / mean."""
    min: NonNegativeInt = 1
    max: PositiveInt = 1_000_000

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} exceeds max {self.max}")
        return self

    def whole(self, tokens: FloatArray) -> IntArray:
        """Rounded to the nearest token, within the limits."""
        return np.clip(np.rint(tokens), self.min, self.max).astype(np.int64)


class _Copula(Lengths):
    """Two marginals joined by a Gaussian copula."""

    prompt: Marginal
    output: Marginal
    rank_correlation: Annotated[float, Field(gt=-1.0, lt=1.0)] = 0.0
    """Spearman's, of prompt and output before rounding."""

    @abstractmethod
    def _tokens(self, marginal: Marginal, normal: FloatArray) -> FloatArray:
        """Quantiles of the marginal at the probabilities of standard normal values."""

    def sample(
        self, rng: np.random.Generator, num_requests: int, resolve_path: ResolvePath
    ) -> tuple[IntArray, IntArray]:
        # W. Kruskal, "Ordinal measures of association", JASA 53 (1958), for Spearman's of a bivariate normal
        correlation = 2.0 * math.sin(math.pi / 6.0 * self.rank_correlation)
        first, second = rng.standard_normal((num_requests, 2)).T
        second = correlation * first + math.sqrt(1.0 - correlation * correlation) * second
        return (
            self.prompt.whole(self._tokens(self.prompt, first)),
            self.output.whole(self._tokens(self.output, second)),
        )

    def describe(self) -> str:
        means = f"{self.prompt.mean:,.0f} prompt + {self.output.mean:,.0f} output tokens"
        return f"{type(self).__name__.lower()}, mean {means}"


class Lognormal(_Copula):
    """Lognormal prompt and output."""

    kind: Literal["lognormal"] = "lognormal"

    def _tokens(self, marginal: Marginal, normal: FloatArray) -> FloatArray:
        log_variance = math.log1p(marginal.cv * marginal.cv)
        return np.asarray(marginal.mean * np.exp(math.sqrt(log_variance) * normal - 0.5 * log_variance))


class Gamma(_Copula):
    """Gamma prompt and output."""

    kind: Literal["gamma"] = "gamma"

    def _tokens(self, marginal: Marginal, normal: FloatArray) -> FloatArray:
        from scipy.special import gammaincinv, ndtr

        if marginal.cv == 0.0:
            return np.full(len(normal), marginal.mean)
        shape = 1.0 / (marginal.cv * marginal.cv)
        return np.asarray(gammaincinv(shape, ndtr(normal)) * (marginal.mean / shape))
