"""Structured sparsity of a model's weights: patterns N:M, and the share of the layers that has each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from hermes_sim.core.schema import Description
from hermes_sim.core.sparsity_pattern import kept_frac, pattern_numbers, stored_bytes

_SHORT: Final = {"anyOf": [{"type": "string", "pattern": r"^\d+:\d+$"}, {"type": "object"}]}


class Sparsity(Description):
    """Which share of the layers has which pattern; layers that no pattern covers are dense. `2:4` is short for all."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(_SHORT))

    layers_frac: dict[str, float] = Field(min_length=1)
    """Pattern N:M -> share of the layers that have it, {"2:4": 0.5, "1:4": 0.25}."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        """`2:4`, or `{"2:4": 0.5, "1:4": 0.25}`."""
        if isinstance(data, str):
            return {"layers_frac": {data: 1.0}}
        if isinstance(data, Mapping) and "layers_frac" not in data:
            return {"layers_frac": dict(data)}
        return data

    @field_validator("layers_frac")
    @classmethod
    def _patterns_and_shares(cls, layers_frac: dict[str, float]) -> dict[str, float]:
        for pattern, frac in layers_frac.items():
            pattern_numbers(pattern)
            if not 0.0 < frac <= 1.0:
                raise ValueError(f"share of the layers with {pattern} must be above 0 and at most 1, got {frac:g}")
        if sum(layers_frac.values()) > 1.0 + 1e-9:
            raise ValueError(f"shares of the layers add up to {sum(layers_frac.values()):g}, more than 1")
        return layers_frac

    def parts(self) -> Iterator[tuple[str | None, float]]:
        """Each pattern with its share of the layers, the dense rest (None) last."""
        yield from self.layers_frac.items()
        dense = 1.0 - sum(self.layers_frac.values())
        if dense > 1e-9:
            yield None, dense

    @property
    def kept_frac(self) -> float:
        """Weights that are not zero, over all layers."""
        return sum(frac * kept_frac(pattern) for pattern, frac in self.parts())

    def stored_bytes(self, dense_bytes: float) -> float:
        """Mean bytes of one weight, zeros counted, whose dense form takes `dense_bytes`."""
        return sum(frac * stored_bytes(pattern, dense_bytes) for pattern, frac in self.parts())
