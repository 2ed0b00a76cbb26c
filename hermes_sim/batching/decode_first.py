"""Stall-free batching: Sarathi-Serve (arXiv 2403.02310)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class DecodeFirst(TokenBatching):
    """Every decode runs in every step; what is left of the budget goes to started prompts, then to waiting ones."""

    kind: Literal["decode_first"] = "decode_first"

    def switches(self) -> Switches:
        return Switches(chunk_prefill=True, mix=True, decodes_first=True, full_sequence_gate=self.full_sequence_gate)
