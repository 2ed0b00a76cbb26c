"""Prompts before decodes, in steps of their own: vLLM V0; with chunks SGLang (arXiv 2312.07104)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class PrefillFirst(TokenBatching):
    """While prompts can be admitted a step holds prompts only, else decodes only."""

    kind: Literal["prefill_first"] = "prefill_first"
    chunk_prompts: bool = False
    """Long prompts are split over steps, as SGLang does, and admitted if blocks for the whole prompt are free; vLLM V0
    computes them whole."""

    def switches(self) -> Switches:
        # two chunked prompts without the gate would evict each other for ever, since prompts go before decodes
        return Switches(
            chunk_prefill=self.chunk_prompts,
            waiting_first=True,
            full_sequence_gate=self.full_sequence_gate or self.chunk_prompts,
        )
