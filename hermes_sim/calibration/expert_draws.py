"""How a benchmark of a layer of experts spreads its rows: rows and experts of the rank that it times.

`balanced` (or `uniform`): rows go round the experts. `power_law_A`: the load of each expert is drawn from a density
proportional to x^-A, scaled to the number of rows and rounded; what rounding leaves over goes to the experts with the
fewest rows, what it adds is taken from those with the most; the rank with the most rows is timed. The tables do not
hold their draws, so the means of a fixed number of draws stand for them. Form of the law: AIConfigurator's description
of its "power law" distribution; the bounds of x and where the rounding goes: inferred from the times of fitted rows.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

NUM_DRAWS: Final = 24
FEW_ROWS: Final = (0.01, 2.0)
"""Bounds of x where there are no more rows than experts."""
MOST_FRAC: Final = 0.8
"""Upper bound of x, of the number of tokens, where there are more."""
POWER_LAW: Final = "power_law_"
EVEN: Final = ("balanced", "uniform", "")


class TimedRank(NamedTuple):
    """What the timed rank computes."""

    num_rows: float
    num_active: float
    """Experts with any row."""
    even: bool
    """All of them have as many rows."""


@cache
def timed_rank(
    num_tokens: int, num_experts: int, num_experts_per_token: int, ep: int, distribution: str
) -> TimedRank | None:
    """Rows and experts of the timed rank; None for a distribution that is not known."""
    num_rows = num_tokens * num_experts_per_token
    if distribution in EVEN or (num_tokens == 1 and distribution.startswith(POWER_LAW)):
        own_rows = max(num_rows / ep, 1.0)
        return TimedRank(own_rows, min(num_experts / ep, own_rows), even=True)
    if not distribution.startswith(POWER_LAW):
        return None
    exponent = float(distribution.removeprefix(POWER_LAW))
    generator = np.random.default_rng(0)
    bounds = (1.0, MOST_FRAC * num_tokens) if num_rows > num_experts else FEW_ROWS
    ranks = [_busiest(_draw(generator, num_rows, num_experts, exponent, bounds), ep) for _ in range(NUM_DRAWS)]
    rows, active = np.mean([(rank.sum(), np.count_nonzero(rank)) for rank in ranks], axis=0).tolist()
    return TimedRank(rows, active, even=False)


def _draw(
    generator: np.random.Generator, num_rows: int, num_experts: int, exponent: float, bounds: tuple[float, float]
) -> IntArray:
    """[num_experts] rows: inverse of the cumulative power law, scaled and rounded."""
    power = 1.0 - exponent
    low, high = (bound**power for bound in bounds)
    loads = (low + (high - low) * generator.random(num_experts)) ** (1.0 / power)
    rows = np.rint(loads * (num_rows / loads.sum())).astype(np.int64)
    missing = num_rows - int(rows.sum())
    shuffled = generator.permutation(num_experts)
    order = shuffled[np.argsort(rows[shuffled] if missing > 0 else -rows[shuffled], kind="stable")]
    each, rest = divmod(abs(missing), num_experts)
    change = np.full(num_experts, each)
    change[order[:rest]] += 1
    return np.asarray(np.maximum(rows + np.sign(missing) * change, 0))


def _busiest(rows: IntArray, ep: int) -> IntArray:
    """Rows of the experts of the share that has most."""
    size = len(rows) // ep
    shares = rows[: size * ep].reshape(ep, size)
    return np.asarray(shares[shares.sum(axis=1).argmax()])
