"""The histogram of gaps between tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_sim.core.compiled import compiled
from hermes_sim.state.arrays import ITL_BINS_PER_OCTAVE_LOG2, ITL_LOWEST_EXPONENT, ITL_NUM_BINS

MANTISSA_SHIFT = 52 - ITL_BINS_PER_OCTAVE_LOG2

FIRST_BIN = (1023 + ITL_LOWEST_EXPONENT) << ITL_BINS_PER_OCTAVE_LOG2


@compiled
def count_gap(state: Any, end_s: float, gap_s: float, number: int) -> None:
    """Enter gaps between tokens: bins are equal parts of each octave, found in the float's bits."""
    if state.itl_window_s[0] <= end_s <= state.itl_window_s[1]:
        place = (np.float64(gap_s).view(np.int64) >> MANTISSA_SHIFT) - FIRST_BIN
        state.itl_counts[min(max(place, 0), ITL_NUM_BINS - 1)] += number
