"""Points that no other point beats in everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.analysis.frames import BoolArray
from hermes_sim.scenario.study_metrics import Better


def pareto_front(values: npt.ArrayLike, better: Sequence[Better]) -> BoolArray:
    """[num_points] whether no other point is as good in every objective and better in one.

    values: [num_points, num_objectives]; a point that lacks one (NaN) is not on the front. Equal points are all on it.
    """
    signs = np.array([1.0 if one == "lower" else -1.0 for one in better])
    costs = np.asarray(values, dtype=np.float64) * signs
    known = ~np.isnan(costs).any(axis=1)
    front = np.zeros(len(costs), dtype=np.bool_)
    others = costs[known]
    for place in np.flatnonzero(known):
        beaten = (others <= costs[place]).all(axis=1) & (others < costs[place]).any(axis=1)
        front[place] = not beaten.any()
    return front
