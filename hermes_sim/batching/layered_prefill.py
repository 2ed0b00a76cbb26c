"""Prefill by groups of layers instead of token chunks (arXiv 2510.08055)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching
from hermes_sim.core.schema import PositiveInt


class LayeredPrefill(TokenBatching):
    """Prompts admitted together run through one group of layers a step, beside all decodes.

    Weights of experts are read once per prompt and layer, not once per chunk.
    """

    kind: Literal["layered_prefill"] = "layered_prefill"
    layer_group_tokens: PositiveInt = 512
    """Prompt tokens for which one more group of layers is made; the number of groups is that of steps."""

    def switches(self) -> Switches:
        return Switches(mix=True, decodes_first=True, by_layers=True, full_sequence_gate=self.full_sequence_gate)
