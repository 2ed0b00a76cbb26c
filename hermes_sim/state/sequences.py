"""Visits that share one sequence: a prefill, its decode, a decode that goes on where that one ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

IntArray = npt.NDArray[np.int64]


@compiled
def final_output(state: Any, row: int) -> int:
    """Tokens generated when the last visit of the row's sequence in this engine ends."""
    last = np.int64(row)
    while state.row_continues_as[last] >= 0:
        last = np.int64(state.row_continues_as[last])
    return np.int64(state.row_output[last])


def final_outputs(state: Any, rows: IntArray) -> IntArray:
    """The same of many rows, for Python."""
    last = rows
    while True:
        after = state.row_continues_as[last]
        if (after < 0).all():
            return np.asarray(state.row_output[last], np.int64)
        last = np.where(after >= 0, after, last)
