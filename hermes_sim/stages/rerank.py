"""Scores candidate documents against the query with a cross-encoder."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from hermes_sim.core.schema import Dtype, PositiveInt
from hermes_sim.models.forward import encoder_operators
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import in_dtype, weight_bytes
from hermes_sim.stages.stage import FloatArray, IntArray, Models, Stage


class Rerank(Stage):
    """One sequence for each candidate: query and passage together. Units: tokens of all candidates."""

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"

    kind: Literal["rerank"] = "rerank"
    model: str
    dtype: Dtype | None = None
    """Precision the encoder runs in; the checkpoint's if not given."""
    num_candidates: PositiveInt
    tokens_per_candidate: PositiveInt
    """Query and passage."""

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        return np.full(len(num_prompt_tokens), float(self.num_candidates * self.tokens_per_candidate))

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        return encoder_operators(
            in_dtype(models[self.model], self.dtype), round(total_units), self.tokens_per_candidate
        )

    def model_names(self) -> tuple[str, ...]:
        return (self.model,)

    def resident_bytes(self, models: Models) -> float:
        return weight_bytes(in_dtype(models[self.model], self.dtype))
