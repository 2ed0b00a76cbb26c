"""The prompt's pass through the language model, up to the first token."""

from __future__ import annotations

from typing import ClassVar, Literal

from hermes_sim.stages.stage import Stage


class Prefill(Stage):
    """Computes the KV cache of the prompt and the first output token."""

    runs_on: ClassVar[Literal["tokens", "jobs"]] = "tokens"

    kind: Literal["prefill"] = "prefill"
    model: str | None = None
    """The engine's model if not given."""

    def model_names(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()
