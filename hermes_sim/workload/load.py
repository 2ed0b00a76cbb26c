"""How much load a traffic offers, and the same requests at another load.

Open loops are measured by their rate of arrivals (requests, or sessions), recorded ones by that of their trace, closed
loops by their number of clients. At another load the same requests come, with the same draws: gaps are scaled, lengths
stay (common random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from hermes_sim.core.errors import HermesError
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.replay import Replay
from hermes_sim.workload.requests import RequestTable, select_requests
from hermes_sim.workload.traffic import Traffic

LoadUnit = Literal["requests/s", "sessions/s", "clients"]

LEAST_ARRIVALS: Final = 2
"""From which a rate can be told."""


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """What a traffic offers as it is."""

    unit: LoadUnit
    value: float
    """Mean of the law of arrivals; of recorded arrivals that over their span."""
    num_requests: int
    most_requests: int | None
    """As many as there are, of recorded arrivals; None: as many as are asked for."""


def offered_load(traffic: Traffic, seed: int, *, resolve_path: ResolvePath = Path) -> OfferedLoad:
    """Raises HermesError where the traffic has no load that could be scaled, TraceError where it cannot be read."""
    requests = generate_requests(traffic, seed, resolve_path=resolve_path)
    number = requests.num_requests
    if traffic.closed_loop is not None:
        return OfferedLoad("clients", float(traffic.closed_loop.concurrency), number, None)
    value = recorded_rate_per_s(requests)
    if traffic.trace is not None:
        return OfferedLoad("requests/s", _scalable(value), number, number)
    assert traffic.arrivals is not None
    unit: LoadUnit = "requests/s" if traffic.sessions is None else "sessions/s"
    if isinstance(traffic.arrivals, Replay):
        return OfferedLoad(unit, _scalable(value), number, number)
    return OfferedLoad(unit, _scalable(traffic.arrivals.mean_rate_per_s), number, None)


def recorded_rate_per_s(requests: RequestTable) -> float:
    """Arrivals over their span; those that wait for an earlier turn do not count. 0 where there is none."""
    arrival_s = requests.arrival_s[~np.isnan(requests.arrival_s)]
    if len(arrival_s) < LEAST_ARRIVALS or arrival_s[-1] <= arrival_s[0]:
        return 0.0
    return float((len(arrival_s) - 1) / (arrival_s[-1] - arrival_s[0]))


def _scalable(rate_per_s: float) -> float:
    if not rate_per_s > 0.0:
        raise HermesError("workload.traffic: nothing arrives, or all at once; a rate that can be scaled must be > 0")
    return rate_per_s


def at_load(traffic: Traffic, base: OfferedLoad, value: float, num_requests: int) -> Traffic:
    """The first num_requests of the traffic at another load.

    base: what the traffic offers as it is. value: in its unit; of clients a whole number.
    """
    if traffic.closed_loop is not None:
        users = traffic.closed_loop.model_copy(update={"concurrency": round(value)})
        return traffic.model_copy(update={"closed_loop": users, "num_requests": num_requests})
    factor = value / base.value
    if traffic.trace is not None:
        trace = traffic.trace.scaled(factor)
        return traffic.model_copy(update={"trace": trace.model_copy(update={"limit": num_requests})})
    assert traffic.arrivals is not None
    scaled = {"arrivals": traffic.arrivals.scaled(factor), "num_requests": num_requests, "duration_s": None}
    return traffic.model_copy(update=scaled)


def all_at_once(requests: RequestTable, num_requests: int) -> RequestTable:
    """The first requests without any pause between arrivals: what the machine makes of them is all that it can."""
    number = min(num_requests, requests.num_requests)
    rows = np.arange(number)
    chosen = select_requests(requests, rows)
    return replace(chosen, arrival_s=np.where(np.isnan(chosen.arrival_s), np.nan, 0.0))
