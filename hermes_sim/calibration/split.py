"""Which measurements are fitted and which are kept out to say how far off the fit is: the one place that decides.

Kernels: by a checksum of the shape, one in five is kept out. Served requests: by model, and all those of prefill and
decode in engines of their own. A row that this page keeps out is in no fit, of coefficients, of residual tables or of
host terms.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.replay.split import (
    FITTED_CLOSED_LOOP_MODELS,
    FITTED_CLOSED_LOOP_MODES,
    FITTED_STAGE_RATE_MODELS,
    FITTED_STEP_TIME_TP,
)

__all__ = [
    "FITTED_CLOSED_LOOP_MODELS",
    "FITTED_CLOSED_LOOP_MODES",
    "FITTED_STAGE_RATE_MODELS",
    "FITTED_STEP_TIME_TP",
    "HELD_OUT_EVERY",
    "held_out",
]

BoolArray = npt.NDArray[np.bool_]

HELD_OUT_EVERY: Final = 5
"""One shape in five is kept out of every fit."""


def held_out(*columns: npt.ArrayLike) -> BoolArray:
    """Which rows are kept out: by a checksum of the shape, so that no shape is on both sides."""
    shapes = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return np.array(
        [zlib.crc32(",".join(str(part) for part in shape).encode()) % HELD_OUT_EVERY == 0 for shape in shapes]
    )
