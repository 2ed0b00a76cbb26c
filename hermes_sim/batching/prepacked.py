"""Prompts packed into rows without padding: prepacking (arXiv 2404.09529)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class Prepacked(TokenBatching):
    """As padded, but short prompts share rows of the longest one's length (first-fit decreasing)."""

    kind: Literal["prepacked"] = "prepacked"

    def switches(self) -> Switches:
        return Switches(waiting_first=True, padding="packed", full_sequence_gate=self.full_sequence_gate)
