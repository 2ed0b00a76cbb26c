"""Text to a vector: one pass of an encoder over the query."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from hermes_sim.core.schema import Dtype, PositiveInt
from hermes_sim.models.forward import encoder_operators
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import in_dtype, weight_bytes
from hermes_sim.stages.stage import FloatArray, IntArray, Models, Stage


class Embed(Stage):
    """Encodes the query. Units: tokens."""

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"

    kind: Literal["embed"] = "embed"
    model: str
    dtype: Dtype | None = None
    """Precision the encoder runs in; the checkpoint's if not given."""
    num_tokens: PositiveInt | None = None
    """Length of the query; the request's prompt if not given."""
    max_num_tokens: PositiveInt = 512
    """Longer texts are truncated, as encoders do."""

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        """Tokens, at least one: an empty text still has its start token."""
        if self.num_tokens is not None:
            return np.full(len(num_prompt_tokens), float(min(self.num_tokens, self.max_num_tokens)))
        return np.clip(num_prompt_tokens, 1, self.max_num_tokens).astype(np.float64)

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        return encoder_operators(in_dtype(models[self.model], self.dtype), round(total_units), round(units_per_job))

    def model_names(self) -> tuple[str, ...]:
        return (self.model,)

    def resident_bytes(self, models: Models) -> float:
        return weight_bytes(in_dtype(models[self.model], self.dtype))
