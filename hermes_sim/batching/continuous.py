"""Iteration-level scheduling with whole prompts: Orca (OSDI 2022)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class Continuous(TokenBatching):
    """Sequences join and leave at every step; a prompt is computed whole, together with the running decodes.

    A prompt longer than max_num_batched_tokens runs in a step that admits no other prompt.
    """

    kind: Literal["continuous"] = "continuous"

    def switches(self) -> Switches:
        return Switches(mix=True, full_sequence_gate=self.full_sequence_gate)
