"""Who sends the requests: clients (tenants) of unequal traffic, for queue orders that are fair among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hermes_sim.core.schema import Description, NonNegativeFloat, PositiveInt
from hermes_sim.workload.requests import FloatArray, RequestTable, first_of_session


class Clients(Description):
    """So many clients share the traffic; the k-th of them sends a share proportional to 1 / k^skew (Zipf)."""

    count: PositiveInt
    skew: NonNegativeFloat = 0.0
    """0: all send equally many."""

    def shares(self) -> FloatArray:
        """[count], in falling order, together 1."""
        weights = np.arange(1, self.count + 1) ** -self.skew
        return np.asarray(weights / weights.sum())


def with_clients(table: RequestTable, clients: Clients, rng: np.random.Generator) -> RequestTable:
    """The client of every request, instead of those the source knows; turns of one session are one client's.

    One draw a request: a request's client does not depend on how many requests follow.
    """
    draws = rng.random(table.num_requests)
    if (table.session >= 0).any():
        draws = draws[first_of_session(table)]
    client = np.searchsorted(np.cumsum(clients.shares()), draws, side="right")
    return replace(table, client=np.minimum(client, clients.count - 1).astype(np.int64))
