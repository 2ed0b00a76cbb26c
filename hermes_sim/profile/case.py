"""One measurement to make: an operator at a shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from hermes_sim.profile.backend import Backend, Call

ROTATED_CACHES = 4.0
"""Rotating operands hold this many times the last-level cache: none is still there when its turn comes again."""
MOST_BUFFERS = 64


@dataclass(frozen=True, slots=True)
class Case:
    """What to measure, and how to build it."""

    operator: str
    kernel: str
    dtype: str
    shape: dict[str, object]
    """The columns of the operator."""
    buffer_bytes: float
    """What one turn reads and should not find in the cache: weights, or keys and values."""
    shared_bytes: float
    """What all turns share: activations."""
    prepare: Callable[[Backend, int], Sequence[Call]]
    """Allocates the operands of so many turns and returns one call for each."""

    def num_buffers(self, cache_bytes: int) -> int:
        """Turns that together exceed the cache."""
        return int(min(max(np.ceil(ROTATED_CACHES * cache_bytes / max(self.buffer_bytes, 1.0)), 2), MOST_BUFFERS))

    def needed_bytes(self, cache_bytes: int) -> float:
        """Memory for all turns and what they share."""
        return self.num_buffers(cache_bytes) * self.buffer_bytes + self.shared_bytes


def interleave(groups: Sequence[Sequence[Case]]) -> Iterator[Case]:
    """One of each group in turn, each group in a fixed shuffled order: a budget that runs out leaves all covered."""
    random = np.random.default_rng(0)
    shuffled = [[group[place] for place in random.permutation(len(group))] for group in groups]
    for turn in zip_longest(*shuffled):
        yield from (case for case in turn if case is not None)
