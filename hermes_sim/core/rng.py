"""Random streams that do not shift: one Philox stream per (seed, subsystem), one value per request."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, subsystem: str, index: int = 0) -> np.random.Generator:
    """Independent generator for one subsystem ('arrivals', 'lengths', 'routing' ...).

    The subsystem's name and index are the key, so that drawing more in one does not shift another.
    """
    key = np.array([np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(zlib.crc32(subsystem.encode()) | (index << 32))])
    return np.random.Generator(np.random.Philox(key=key))
