"""Whole prompts, padded to the longest of their step."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class Padded(TokenBatching):
    """As prefill_first, but the prompts of a step cost as much as the longest one each."""

    kind: Literal["padded"] = "padded"

    def switches(self) -> Switches:
        return Switches(waiting_first=True, padding="padded", full_sequence_gate=self.full_sequence_gate)
