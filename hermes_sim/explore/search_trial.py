"""What a run tells a search: objectives and limits as numbers of which less is better; how a short run is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.runner import Row
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.search import SearchFile
from hermes_sim.scenario.study_metrics import metric_of

LEAST_REQUESTS: Final = 4
"""Of a short run."""


def judged(search: SearchFile, row: Row) -> Row:
    """The row; that of a run that ended well but has no value of an objective is a failed one."""
    if row["status"] != DONE:
        return row
    missing = [one.metric for one in search.objectives if not math.isfinite(row.get(one.metric, math.nan))]
    return {**row, "status": FAILED, "error": f"has no {missing[0]}"} if missing else row


def losses_of(search: SearchFile, row: Mapping[str, Any]) -> list[float]:
    """Of each objective, less is better; infinite where there is no value."""
    values = [one.sign * float(row.get(one.metric, math.nan)) for one in search.objectives]
    return [value if math.isfinite(value) else math.inf for value in values]


def excesses_of(search: SearchFile, row: Mapping[str, Any]) -> list[float]:
    """For each limit value / limit - 1, or 1 - value / limit where more is better: above 0 outside it."""
    return [excess(metric, limit, float(row.get(metric, math.nan))) for metric, limit in search.limits.items()]


def excess(metric: str, limit: float, value: float) -> float:
    """By how much of the limit a value is outside it (below 0: inside); infinite where there is no value."""
    if not math.isfinite(value):
        return math.inf
    known = metric_of(metric)
    over = value - limit if known is None or known.better == "lower" else limit - value
    return over / (abs(limit) or 1.0)


def excess_of(search: SearchFile, row: Mapping[str, Any]) -> float:
    """Of all limits together; 0 within them."""
    return sum(max(0.0, one) for one in excesses_of(search, row))


def shortened(scenario: Scenario, share: float) -> dict[str, Any]:
    """Keys to set so that a scenario has that share of its requests, at the same rate. Raises ConfigError."""
    if share == 1.0:
        return {}
    traffic = scenario.workload.traffic
    num = traffic.trace.limit if traffic.trace is not None else traffic.num_requests
    key = "workload.traffic.trace.limit" if traffic.trace is not None else "workload.traffic.num_requests"
    if num is not None:
        return {key: max(min(num, LEAST_REQUESTS), math.ceil(num * share))}
    if traffic.duration_s is not None and traffic.trace is None:
        return {"workload.traffic.duration": f"{traffic.duration_s * share!r} s"}
    message = f"short runs need a number of requests to take a share of: set {key}, or leave out rungs"
    raise ConfigError([Problem("", None, "", message)])
