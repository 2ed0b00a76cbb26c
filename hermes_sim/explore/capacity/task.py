"""The capacity of one configuration under one seed: what a worker is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from hermes_sim.analysis.human import duration
from hermes_sim.analysis.objectives import Objective
from hermes_sim.analysis.quantiles import statistic
from hermes_sim.core.errors import HermesError
from hermes_sim.explore.capacity.bracket import Limit, find_limit
from hermes_sim.explore.capacity.criterion import Criterion, objective_name
from hermes_sim.explore.capacity.probe import Prober, Row, Setting
from hermes_sim.scenario.scenario import Scenario

COLD_SHARE: Final = 0.5
"""Of the load that is worked off under a lasting backlog: the first guess."""
COLD_STEP, WARM_STEP, CLIENTS_STEP = 1.25, 1.06, 2.0
"""Factor to the second load that is tried: after a guess, after a neighbouring configuration, of clients."""
NEXT_TO_NOTHING: Final = 1.0 / 64.0
"""Of that load: what is not borne there is not borne."""

Status = Literal["done", "hopeless", "open", "failed"]
"""`open`: everything that may be tried passes."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known from a neighbour: the search begins there."""

    share: float | None = None
    """Capacity over the load that is worked off under a backlog, of a configuration like this one."""
    load: float | None = None
    """Capacity under another seed, or of clients."""


@dataclass(frozen=True, slots=True)
class CapacityTask:
    """One search."""

    index: int
    """Of the configuration."""
    scenario: Scenario
    criterion: Criterion
    num_requests: int | None = None
    early_stop: bool = True
    hint: Hint = Hint()
    known: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeedCapacity:
    """What a search has found."""

    index: int
    seed: int
    status: Status
    unit: str = ""
    low: float = 0.0
    """The highest load that is borne; 0 where none is."""
    high: float | None = None
    """The next one, which is not."""
    binding: str = ""
    text: str = ""
    """What is not kept at the higher one."""
    served_per_s: float | None = None
    limit: Row = field(default_factory=dict)
    """The run at the highest load that is borne."""
    probes: tuple[Row, ...] = ()
    num_reused: int = 0
    notes: tuple[str, ...] = ()


def find_capacity(task: CapacityTask) -> SeedCapacity:
    """One search from its task, whatever happens in it."""
    try:
        return _found(task)
    except HermesError as error:
        return SeedCapacity(task.index, task.scenario.seed, "failed", text=str(error))


def _found(task: CapacityTask) -> SeedCapacity:
    prober = Prober(Setting(task.scenario, task.criterion, task.num_requests, task.early_stop, task.known))
    limit = _searched(prober, task.hint)
    notes = [] if prober.short_words is None else [prober.short_words]
    notes += [
        f"not monotone: {prober.ladder.value(high):g} {prober.base.unit} pass, {prober.ladder.value(low):g} do not"
        for low, high in limit.contradictions
    ]
    common: dict[str, Any] = {
        "index": task.index,
        "seed": task.scenario.seed,
        "unit": prober.base.unit,
        "served_per_s": None if prober.base.unit == "clients" else prober.served_per_s(),
    }
    if limit.low is None:
        found: dict[str, Any] = {"status": "hopeless", "high": prober.ladder.value(limit.high or 0)}
        found |= _hopeless(prober, limit)
    else:
        best = prober.limit_row(limit.low)
        found = {"low": prober.ladder.value(limit.low), "limit": best}
        if best["is_short"]:
            notes.append(f"still filling, or drifting, in a run of {best['num_requests']:,} requests")
        if prober.is_doubtful(found["low"]):
            notes.append("more than is served under a backlog: what is once behind stays behind")
        if limit.high is None:
            text = f"all that was tried passes, up to {found['low']:g} {prober.base.unit}"
            found |= {"status": "open", "binding": "nothing", "text": text}
        else:
            row = prober.last_row(limit.high)
            found |= {
                "status": "done",
                "high": prober.ladder.value(limit.high),
                "binding": row["binding"],
                "text": row["text"],
            }
    rows = [{**row, "configuration": task.index, "seed": task.scenario.seed} for row in prober.rows]
    return SeedCapacity(**common, **found, probes=tuple(rows), num_reused=prober.num_reused, notes=tuple(notes))


def _searched(prober: Prober, hint: Hint) -> Limit:
    ladder = prober.ladder
    if prober.base.unit == "clients":
        start = ladder.below(hint.load or prober.base.value)
        step = ladder.steps(WARM_STEP if hint.load else CLIENTS_STEP)
        return find_limit(prober.attempt, start=start, step=step, least=ladder.least, most=prober.most_rung)
    served_per_s = prober.served_per_s()
    if hint.load is not None:
        start, step = ladder.below(hint.load), 1
    elif hint.share is not None:
        start, step = ladder.below(hint.share * served_per_s), ladder.steps(WARM_STEP)
    else:
        start, step = ladder.below(COLD_SHARE * served_per_s), ladder.steps(COLD_STEP)
    least = ladder.below(min(NEXT_TO_NOTHING * served_per_s, ladder.value(start)))
    return find_limit(prober.attempt, start=start, step=step, least=least, most=prober.most_rung)


def _hopeless(prober: Prober, limit: Limit) -> dict[str, Any]:
    """Why not even next to no load is borne: the same latency of requests alone on the machine stands beside it."""
    assert limit.high is not None
    row = prober.whole_row(limit.high)
    text = f"not met at any load; at {prober.ladder.value(limit.high):.3g} {prober.base.unit}: {row['text']}"
    objective = next((one for one in prober.objectives if objective_name(one) == row["binding"]), None)
    if objective is not None and (alone := _alone_words(prober, objective)) is not None:
        text += f"; {alone}"
    return {"binding": row["binding"], "text": text}


def _alone_words(prober: Prober, objective: Objective) -> str | None:
    """'requests alone on the machine: TTFT p99 1.21 s'."""
    unloaded = prober.unloaded()
    column = f"{objective.latency}_s"
    if objective.is_multiple or column not in unloaded:
        return None
    values_s = unloaded[column].to_numpy(dtype=np.float64)
    alone_s = statistic(values_s[~np.isnan(values_s)], objective.statistic)
    return f"of requests alone on the machine {duration(alone_s)}"
