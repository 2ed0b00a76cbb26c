"""The prompt's pass through the language model, up to the first token."""

from __future__ import annotations

from typing import ClassVar, Literal

from hermes_sim.core.schema import NonNegativeInt
from hermes_sim.stages.stage import Stage


class Prefill(Stage):
    """Computes the KV cache of the prompt and the first output token."""

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "tokens"

    kind: Literal["prefill"] = "prefill"
    model: str | None = None
    """The engine's model if not given."""
    context: Literal["all", "prompt"] = "all"
    """What it reads: the request's prompt, what stages before it have added (documents, results of tools) and, with
    `all`, what decodes before it have written, notes aside."""
    num_instruction_tokens: NonNegativeInt = 0
    """This pass's own, behind the context: "rewrite the question", "grade the answer". No later pass reads them."""

    def model_names(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()
