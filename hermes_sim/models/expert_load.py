"""How the tokens of a step spread over the experts of a layer: the busiest device decides how long it takes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import Description, NonNegativeFloat

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class ExpertLoad(Description):
    """Share of the routed tokens that each expert gets."""

    @abstractmethod
    def expert_shares(self, num_experts: int) -> tuple[float, ...]:
        """[num_experts] summing to one, by index of the expert; devices hold experts of consecutive indices."""


class UniformLoad(ExpertLoad):
    """Every expert alike."""

    kind: Literal["uniform"] = "uniform"

    def expert_shares(self, num_experts: int) -> tuple[float, ...]:
        return (1.0 / num_experts,) * num_experts


class ZipfLoad(ExpertLoad):
    """The i-th most popular expert gets a share proportional to i^-exponent; 0 is uniform.

    Popularity has nothing to do with the index: popular experts are scattered over the indices by a fixed hash.
    """

    kind: Literal["zipf"] = "zipf"
    exponent: NonNegativeFloat = 0.5

    def expert_shares(self, num_experts: int) -> tuple[float, ...]:
        weights = [rank**-self.exponent for rank in range(1, num_experts + 1)]
        total = sum(weights)
        scattered = sorted(range(num_experts), key=_scatter)
        return tuple(weights[rank] / total for rank in scattered)


class GivenLoad(ExpertLoad):
    """Measured shares, one an expert, by index; only their proportions count."""

    kind: Literal["given"] = "given"
    shares: tuple[NonNegativeFloat, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _some_load(self) -> GivenLoad:
        if not any(self.shares):
            raise ValueError("shares needs a number above 0")
        return self

    def expert_shares(self, num_experts: int) -> tuple[float, ...]:
        if len(self.shares) != num_experts:
            raise ValueError(f"{len(self.shares)} shares are given for {num_experts} experts")
        total = sum(self.shares)
        return tuple(share / total for share in self.shares)


EXPERT_LOADS: dict[str, type[ExpertLoad]] = {"uniform": UniformLoad, "zipf": ZipfLoad, "given": GivenLoad}


def _scatter(rank: int) -> int:
    """Finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): an order without pattern."""
    value = (rank + 1) * _GOLDEN & _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)
