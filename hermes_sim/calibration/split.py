"""Which measurements are fitted and which are kept out to say how far off the fit is: the one place that decides.

Kernels: by a checksum of the shape, one in five is kept out. Served requests: by model. A row that this page keeps out
is in no fit, of coefficients, of residual tables or of host terms.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]

HELD_OUT_EVERY: Final = 5
"""One shape in five is kept out of every fit."""

FITTED_CLOSED_LOOP_MODELS: Final = ("llama_3_1_8b", "gpt_oss_120b", "deepseek_v3")
"""Closed-loop serving tables: rows of these models may fit host, overlap and front-end terms; others are kept out."""

FITTED_STAGE_RATE_MODELS: Final = ("llama_3_1_8b",)
"""Stage-rate serving runs: the same. Replays of single requests (open loop) are kept out whole, all of them."""


def held_out(*columns: npt.ArrayLike) -> BoolArray:
    """Which rows are kept out: by a checksum of the shape, so that no shape is on both sides."""
    shapes = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return np.array(
        [zlib.crc32(",".join(str(part) for part in shape).encode()) % HELD_OUT_EVERY == 0 for shape in shapes]
    )
