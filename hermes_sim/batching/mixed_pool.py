"""Prompts before decodes in one batch: the mixed pool of Splitwise (arXiv 2311.18677)."""

from __future__ import annotations

from typing import Literal

from hermes_sim.batching.policy import Switches, TokenBatching


class MixedPool(TokenBatching):
    """Whole prompts first, decodes beside them with what is left of the budget.

    Decodes that were left out of a step go first in the next one.
    """

    kind: Literal["mixed_pool"] = "mixed_pool"

    def switches(self) -> Switches:
        return Switches(mix=True, waiting_first=True, full_sequence_gate=self.full_sequence_gate)
