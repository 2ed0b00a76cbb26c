"""Output tokens after the first, one a step."""

from __future__ import annotations

from typing import ClassVar, Literal

from hermes_sim.stages.stage import Stage


class Decode(Stage):
    """Generates the remaining output tokens of a request whose prompt has been computed."""

    runs_on: ClassVar[Literal["tokens", "jobs"]] = "tokens"

    kind: Literal["decode"] = "decode"
    model: str | None = None
    """The engine's model if not given."""

    def model_names(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()
