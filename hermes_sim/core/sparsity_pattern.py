"""Patterns N:M of structured sparsity: of each M weights in a row N are kept, the others are not stored.

Source of the storage form: Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378 (2:4: the kept
weights, and for each the position in its group).
"""

from __future__ import annotations

import re
from math import ceil, log2
from typing import Final

_PATTERN: Final = re.compile(r"([1-9]\d{0,2}):([1-9]\d{0,2})")


def pattern_numbers(pattern: str) -> tuple[int, int]:
    """N and M of a pattern `N:M`. ValueError for anything else, and where N is more than M."""
    match = _PATTERN.fullmatch(pattern)
    if match is None or int(match[1]) > int(match[2]):
        raise ValueError(f"needs a pattern N:M such as 2:4, N at most M, got {pattern!r}")
    return int(match[1]), int(match[2])


def kept_frac(pattern: str | None) -> float:
    """Weights that are not zero; None is dense."""
    if pattern is None:
        return 1.0
    kept, group = pattern_numbers(pattern)
    return kept / group


def index_bits(pattern: str) -> int:
    """Of the position of one kept weight in its group of M: 2 for 2:4."""
    return ceil(log2(pattern_numbers(pattern)[1]))


def stored_bytes(pattern: str | None, dense_bytes: float) -> float:
    """Bytes of one weight, zeros counted: the kept ones and their positions; never more than dense."""
    if pattern is None:
        return dense_bytes
    return min(kept_frac(pattern) * (dense_bytes + index_bits(pattern) / 8.0), dense_bytes)
