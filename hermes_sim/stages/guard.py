"""A classifier before or behind the language model that refuses some requests (Llama Guard, arXiv 2312.06674)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hermes_sim.core.schema import Dtype, Fraction, Name, NonNegativeInt, PositiveFloat, PositiveInt
from hermes_sim.models.forward import encoder_operators, sampling_operators
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import in_dtype, weight_bytes
from hermes_sim.stages.route import Route
from hermes_sim.stages.stage import FloatArray, IntArray, Models
from hermes_sim.workload.requests import RequestTable

PASS, REFUSE = "pass", "refuse"


class Guard(Route):
    """One pass of a model over the prompt or the answer, and a verdict. Units: tokens.

    A small language model reads causally and its verdict is its first token; an encoder has a classification head.
    Later stages say `when: name.pass` they run; a request that is refused has had its answer with that.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"

    kind: Literal["guard"] = "guard"  # type: ignore[assignment]
    model: str
    """Classifier, or a language model."""
    dtype: Dtype | None = None
    """Precision it runs in; the checkpoint's if not given."""
    reads: Literal["prompt", "answer", "both"] = "prompt"
    """Of the request, as it came and as it is answered."""
    num_instruction_tokens: NonNegativeInt = 0
    """Its own, around that: the policy that it judges by."""
    max_num_tokens: PositiveInt | None = None
    """Longer texts are cut; none if not given."""
    refuse_frac: Fraction = 0.0
    """Chance that a request is refused."""
    by: Literal["chance"] = "chance"
    outcomes: Annotated[dict[Name, PositiveFloat], Field(min_length=1)] = Field(default={})
    """Follows from refuse_frac: pass, refuse."""

    @model_validator(mode="before")
    @classmethod
    def _two_outcomes(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        refused = data.get("refuse_frac", 0.0)
        is_chance = isinstance(refused, int | float) and not isinstance(refused, bool) and 0.0 <= refused <= 1.0
        chances = {PASS: 1.0 - refused, REFUSE: refused} if is_chance else {PASS: 1.0}
        follows = {outcome: chance for outcome, chance in chances.items() if chance > 0.0}
        if data.get("outcomes", follows) != follows:
            raise ValueError("outcomes follow from refuse_frac: leave them out")
        return {**data, "outcomes": follows}

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        """As of a request with an empty answer."""
        return self._clipped(num_prompt_tokens if self.reads != "answer" else np.zeros_like(num_prompt_tokens))

    def units_of(self, requests: RequestTable, seed: int) -> FloatArray:
        prompt, answer = requests.num_prompt_tokens, requests.num_output_tokens
        return self._clipped({"prompt": prompt, "answer": answer, "both": prompt + answer}[self.reads])

    def most_units(self, requests: RequestTable, seed: int) -> float:
        return float(self.units_of(requests, seed).max(initial=1.0))

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        model = in_dtype(models[self.model], self.dtype)
        tokens, length = round(total_units), round(units_per_job)
        passes = encoder_operators(model, tokens, length)
        if model.family == "encoder" or not passes:
            return passes
        return (*passes, *sampling_operators(model, max(1, round(tokens / max(length, 1)))))

    def model_names(self) -> tuple[str, ...]:
        return (self.model,)

    def resident_bytes(self, models: Models) -> float:
        return weight_bytes(in_dtype(models[self.model], self.dtype))

    def _clipped(self, num_tokens: IntArray) -> FloatArray:
        return np.clip(num_tokens + self.num_instruction_tokens, 1, self.max_num_tokens).astype(np.float64)
