"""A batch formed once and run to its end: FasterTransformer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hermes_sim.batching.policy import Switches, TokenBatching


class Static(TokenBatching):
    """An empty engine takes a batch, prompts padded to the longest; nobody joins or leaves before all have ended."""

    kind: Literal["static"] = "static"
    output_reserve_frac: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    """Blocks for all outputs are taken into account when the batch is formed: nobody is preempted."""

    def switches(self) -> Switches:
        return Switches(
            waiting_first=True, static_batch=True, padding="padded", full_sequence_gate=self.full_sequence_gate
        )
