"""Which low-rank adapter a request names: few are popular, most are rare."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hermes_sim.core.schema import Description, Fraction, NonNegativeFloat, PositiveInt
from hermes_sim.workload.requests import FloatArray, RequestTable, first_of_session


class Adapters(Description):
    """So many adapters share the traffic; the k-th of them gets a share proportional to 1 / k^exponent (Zipf)."""

    num_adapters: PositiveInt
    exponent: NonNegativeFloat = 1.0
    """0: all alike."""
    share: Fraction = 1.0
    """Of the requests that name one; the others want the model as it is."""

    def shares(self) -> FloatArray:
        """[num_adapters], in falling order, together 1."""
        weights = np.arange(1, self.num_adapters + 1) ** -self.exponent
        return np.asarray(weights / weights.sum())


def with_adapters(table: RequestTable, adapters: Adapters, rng: np.random.Generator) -> RequestTable:
    """The adapter of every request, instead of those the source knows; turns of one session name the same one.

    Two draws a request: a request's adapter does not depend on how many requests follow.
    """
    for_share, for_adapter = rng.random((table.num_requests, 2)).T
    if (table.session >= 0).any():
        first = first_of_session(table)
        for_share, for_adapter = for_share[first], for_adapter[first]
    chosen = np.searchsorted(np.cumsum(adapters.shares()), for_adapter, side="right")
    chosen = np.minimum(chosen, adapters.num_adapters - 1)
    return replace(table, adapter=np.where(for_share < adapters.share, chosen, -1).astype(np.int64))
