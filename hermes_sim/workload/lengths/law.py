"""What a law of lengths is: pairs of prompt and output tokens drawn from it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from hermes_sim.core.schema import Description
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import IntArray


class Lengths(Description):
    """One law of prompt and output lengths."""

    @abstractmethod
    def sample(
        self, rng: np.random.Generator, num_requests: int, resolve_path: ResolvePath
    ) -> tuple[IntArray, IntArray]:
        """(num_prompt_tokens, num_output_tokens), both [num_requests].

        More requests start with the same pairs as fewer.
        """

    @abstractmethod
    def describe(self) -> str:
        """'fixed 512 + 128 tokens', for people."""
