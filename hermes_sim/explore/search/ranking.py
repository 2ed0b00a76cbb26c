"""Which of several points are better: domination within limits, ranks, the front, its knee, its hypervolume.

Everywhere `losses` [num_points, num_objectives] are objectives of which less is better, and `excess` [num_points] says
by how much a point is outside the limits: 0 within them, else the sum over its limits of value / limit - 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def dominated_by(losses: Floats) -> Ints:
    """For each point: how many are as good in every objective and better in one."""
    no_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    better = (losses[:, None, :] < losses[None, :, :]).any(axis=2)
    return np.asarray((no_worse & better).sum(axis=0), dtype=np.int64)


def front_of(losses: Floats, excess: Floats) -> Ints:
    """Indices of the points within the limits that no other such point dominates, by the first objective.

    Of points that are equal in all objectives the first.
    """
    within = np.flatnonzero((excess <= 0) & np.isfinite(losses).all(axis=1))
    best = within[dominated_by(losses[within]) == 0]
    _, first = np.unique(losses[best], axis=0, return_index=True)
    once = best[np.sort(first)]
    return np.asarray(once[np.lexsort(losses[once].T[::-1])])


def ranks(losses: Floats, excess: Floats) -> Ints:
    """0 for the first front of those within the limits, 1 for the front of the rest, and so on; after them those
    outside, each with a rank of its own, by how far outside (Deb et al. 2002, IEEE Trans. Evol. Comput. 6(2))."""
    found = np.full(len(losses), -1, dtype=np.int64)
    left = np.flatnonzero(excess <= 0)
    rank = 0
    while len(left):
        best = dominated_by(losses[left]) == 0
        found[left[best]] = rank
        left, rank = left[~best], rank + 1
    outside = np.flatnonzero(excess > 0)
    found[outside[np.argsort(excess[outside], kind="stable")]] = np.arange(rank, rank + len(outside))
    return found


def goes_on(losses: Floats, excess: Floats, reduction: float) -> bool:
    """Whether the last of the points is run on the next rung: it is among the best 1 / reduction of those that were run
    on this one by rank, or none of them is ahead of it.

    The rule of asynchronous successive halving (Li et al. 2020, MLSys), with the ranks of several objectives in place
    of one value (Schmucker et al. 2021, arXiv 2106.12639).
    """
    order = ranks(losses, excess)
    num_ahead = int((order < order[-1]).sum())
    return num_ahead < max(1, int(len(order) / reduction))


def normalized(losses: Floats) -> Floats:
    """Each objective from 0 at its best to 1 at its worst point; 0 where all are equal."""
    low, high = losses.min(axis=0), losses.max(axis=0)
    return np.asarray((losses - low) / np.where(high > low, high - low, 1.0))


def knee_of(losses: Floats) -> int:
    """The point of a front that is farthest below the plane through its extreme points: past it, a little of one
    objective costs much of another (Das 1999, Structural Optimization 18). Of one objective: the best point."""
    return int(np.argmin(normalized(losses).sum(axis=1)))


def hypervolume(losses: Floats, reference: Floats) -> float:
    """Volume that the points dominate, up to `reference` [num_objectives], by sweeping the last objective."""
    inside = losses[(losses < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if losses.shape[1] == 1:
        return float(reference[0] - inside[:, 0].min())
    order = np.argsort(inside[:, -1], kind="stable")
    heights = np.append(inside[order, -1], reference[-1])
    return float(
        sum(
            (heights[place + 1] - heights[place]) * hypervolume(inside[order[: place + 1], :-1], reference[:-1])
            for place in range(len(order))
            if heights[place + 1] > heights[place]
        )
    )
