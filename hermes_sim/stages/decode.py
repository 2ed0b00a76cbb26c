"""Output tokens after the first, one a step."""

from __future__ import annotations

from typing import ClassVar, Literal

from hermes_sim.core.schema import PositiveInt
from hermes_sim.stages.stage import Stage


class Decode(Stage):
    """Generates the remaining output tokens of a request whose prompt has been computed."""

    runs_on: ClassVar[Literal["tokens", "jobs"]] = "tokens"

    kind: Literal["decode"] = "decode"
    model: str | None = None
    """The engine's model if not given."""
    num_samples: PositiveInt = 1
    """Answers to one prompt (n, best of n). They share its KV blocks; the lengths of the others are those of other
    requests of the pipeline, drawn at random. The request ends with the last of them."""

    def model_names(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()
