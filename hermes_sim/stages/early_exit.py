"""Reasoning that is shorter than the model's own: stopped when it is sure, cut at a budget, written concisely."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, NonNegativeInt, PositiveInt
from hermes_sim.stages.stage import FloatArray, IntArray

PositiveFraction = Annotated[Fraction, Field(gt=0.0)]


class Reduction(Description):
    """A law of lengths, scaled and cut."""

    kept_frac: PositiveFraction = 1.0
    """Share of the tokens drawn that is written (Chain of Draft, arXiv 2502.18600: prompts that ask for brevity)."""
    max_num_tokens: PositiveInt | None = None
    """Reasoning is cut off there (budget forcing: s1, arXiv 2501.19393)."""

    def apply(self, num_tokens: IntArray) -> IntArray:
        """Of so many tokens, those that are written: at least one."""
        kept = np.ceil(self.kept_frac * num_tokens).astype(np.int64)
        return np.asarray(np.clip(kept, 1, self.max_num_tokens), np.int64)


class ThoughtExit(Description):
    """Checkpoints at which a trial answer is written, and the reasoning ends if the model is sure of it (DEER, Yang et
    al., arXiv 2504.15895)."""

    every_num_tokens: PositiveInt
    """Of reasoning, between two checkpoints."""
    exit_probability: Fraction
    """Chance that a checkpoint is the last."""
    num_probe_tokens: NonNegativeInt
    """Trial answer of a checkpoint: written token by token, and left in the context."""

    def apply(self, num_tokens: IntArray, uniforms: FloatArray) -> tuple[IntArray, IntArray]:
        """(tokens of reasoning, of trial answers) where so many tokens would be written without checkpoints.

        The end is no checkpoint. uniforms: in [0, 1), one a request.
        """
        num_checkpoints = (num_tokens - 1) // self.every_num_tokens
        if self.exit_probability == 0.0:
            return num_tokens, num_checkpoints * self.num_probe_tokens
        if self.exit_probability == 1.0:
            last = np.ones(num_tokens.shape)
        else:
            last = np.floor(np.log1p(-uniforms) / np.log1p(-self.exit_probability)) + 1.0
        exits = last <= num_checkpoints
        num_probes = np.where(exits, last, num_checkpoints).astype(np.int64)
        kept = np.where(exits, num_probes * self.every_num_tokens, num_tokens)
        return np.asarray(kept, np.int64), np.asarray(num_probes * self.num_probe_tokens, np.int64)
