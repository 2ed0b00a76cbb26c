"""Chunked prefill with decodes piggy-backed: vLLM V1, Sarathi-Serve (arXiv 2403.02310)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class ChunkedPrefill(TokenBatching):
    """One token budget per step, running sequences first, then waiting ones; prompts are split to fit."""

    kind: Literal["chunked_prefill"] = "chunked_prefill"

    def switches(self) -> Switches:
        return Switches(chunk_prefill=True, mix=True, full_sequence_gate=self.full_sequence_gate)
