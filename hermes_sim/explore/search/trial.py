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


def shortened(scenario: Scenario, share: float) -> Scenario:
    """The scenario with that share of its requests, at the same rate. Raises ConfigError where it states no number."""
    if share == 1.0:
        return scenario
    traffic = scenario.workload.traffic
    if traffic.trace is not None and traffic.trace.limit is not None:
        trace = traffic.trace.model_copy(update={"limit": _part(traffic.trace.limit, share)})
        traffic = traffic.model_copy(update={"trace": trace})
    elif traffic.num_requests is not None:
        traffic = traffic.model_copy(update={"num_requests": _part(traffic.num_requests, share)})
    elif traffic.duration_s is not None:
        traffic = traffic.model_copy(update={"duration_s": traffic.duration_s * share})
    else:
        key = "trace.limit" if traffic.trace is not None else "num_requests"
        message = f"short runs take a share of the requests: set workload.traffic.{key}, or leave out rungs"
        raise ConfigError([Problem("", None, "", message)])
    return scenario.model_copy(update={"workload": scenario.workload.model_copy(update={"traffic": traffic})})


def _part(num_requests: int, share: float) -> int:
    return max(min(num_requests, LEAST_REQUESTS), math.ceil(num_requests * share))
