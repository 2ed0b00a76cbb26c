"""Points of the unit cube: independent, or spread evenly by a Sobol sequence."""

from __future__ import annotations

from math import ceil, log2
from typing import Literal

import numpy as np
import numpy.typing as npt


def draw_shares(
    kind: Literal["grid", "random", "sobol", "zip"], num: int, num_axes: int, seed: int
) -> npt.NDArray[np.float64]:
    """[num][num_axes] shares in [0, 1), the same for the same seed.

    sobol: the first points of the sequence (Joe & Kuo 2008, SciPy's directions), all moved by one random vector
    modulo 1 (Cranley & Patterson 1976), which keeps their even spread and takes the first from the corner.
    """
    generator = np.random.default_rng(seed)
    if kind == "random":
        return generator.random((num, num_axes))
    from scipy.stats.qmc import Sobol

    sequence = Sobol(num_axes, scramble=False).random_base2(ceil(log2(num)))[:num]
    return np.asarray((sequence + generator.random(num_axes)) % 1.0, np.float64)
