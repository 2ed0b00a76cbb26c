"""Synthetic vectors that cluster as embeddings of texts do: topics of unlike popularity, few directions inside each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

NUM_TOPICS: Final = 1000
POPULARITY_SPREAD: Final = 0.7
"""Standard deviation of the logarithm of a topic's share of the vectors."""
NUM_DIRECTIONS: Final = 24
"""Dimensions that vectors of one topic vary in: embeddings fill few of the dimensions they have."""
NOISE: Final = 0.2
"""Of every dimension by itself."""
ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Topics:
    """A mixture of normal distributions in `dim` dimensions; the same topics for stored vectors and queries."""

    dim: int
    centers: FloatArray = field(init=False)
    """[NUM_TOPICS, dim]"""
    directions: FloatArray = field(init=False)
    """[NUM_DIRECTIONS, dim]"""
    shares: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng((0, self.dim))
        centers = random.standard_normal((NUM_TOPICS, self.dim), dtype=np.float32)
        directions = random.standard_normal((NUM_DIRECTIONS, self.dim), dtype=np.float32)
        popularity = random.lognormal(0.0, POPULARITY_SPREAD, NUM_TOPICS)
        object.__setattr__(self, "centers", centers)
        object.__setattr__(self, "directions", directions / np.float32(np.sqrt(NUM_DIRECTIONS)))
        object.__setattr__(self, "shares", popularity / popularity.sum())

    def draw(self, number: int, seed: int) -> FloatArray:
        """[number, dim]"""
        random = np.random.default_rng((1, self.dim, seed))
        topics = random.choice(NUM_TOPICS, number, p=self.shares)
        found = np.empty((number, self.dim), np.float32)
        for first in range(0, number, ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, number))
            count = rows.stop - first
            inside = random.standard_normal((count, NUM_DIRECTIONS), dtype=np.float32) @ self.directions
            noise = random.standard_normal((count, self.dim), dtype=np.float32)
            found[rows] = self.centers[topics[rows]] + inside + np.float32(NOISE) * noise
        return found
