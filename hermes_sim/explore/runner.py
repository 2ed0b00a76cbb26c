"""Runs what is planned, several at once, one row each; a run that fails is a row that says why."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hermes_sim.core.errors import HermesError
from hermes_sim.explore.plan import PlannedRun
from hermes_sim.explore.row import run_metrics, tier_metrics
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.processes import Report, WorkerEnded, can_fork, map_in_processes, num_cores
from hermes_sim.run import run_scenario, warm_up

Row = dict[str, Any]
OnRow = Callable[[int, Row], None]
"""(index of the planned run, its row), called as soon as there is one."""


def run_planned(
    planned: Sequence[PlannedRun],
    *,
    known: Mapping[str, Row] | None = None,
    jobs: int | None = None,
    on_row: OnRow | None = None,
) -> list[Row]:
    """The row of every planned run, in their order.

    known: rows of former runs by hash (run_table.known_rows), taken over where the hash is the same. jobs: processes at
    once, by default as many as there are cores; the rows are the same for any number, wall times aside.
    """
    rows: dict[int, Row] = {}

    def keep(index: int, row: Row) -> None:
        rows[index] = row
        if on_row is not None:
            on_row(index, row)

    for index, run in enumerate(planned):
        if run.problem is not None:
            keep(index, _failed(run, run.problem))
        elif known and (key := run.key) in known:
            keep(index, {**known[key], **run.point, "seed": run.seed})
    remaining = [index for index in range(len(planned)) if index not in rows]
    if jobs is None:
        jobs = num_cores() if can_fork() else 1
    with _garbage_apart():
        if min(jobs, len(remaining)) <= 1:
            for index in remaining:
                keep(index, run_row(planned[index]))
                gc.collect()
        else:
            _run_in_processes(planned, remaining, jobs, keep)
    return [rows[index] for index in range(len(planned))]


def run_row(run: PlannedRun) -> Row:
    """One run and its row, whatever happens in it."""
    assert run.scenario is not None
    try:
        results = run_scenario(run.scenario)
        numbers = run_metrics(results) | tier_metrics(results, run.tiers, run.reference)
    except HermesError as error:
        return _failed(run, str(error))
    except Exception as error:  # one broken run must not cost the others their rows
        return _failed(run, f"{type(error).__name__}: {error}")
    return {**_head(run), "status": DONE, "error": "", "wall_time_s": results.wall_time_s, **numbers}


def _run_in_processes(planned: Sequence[PlannedRun], remaining: list[int], jobs: int, keep: OnRow) -> None:
    """A process that dies costs the run it was at, no other."""
    first = planned[remaining[0]].scenario
    assert first is not None
    warm_up(first)
    done: set[int] = set()
    while remaining:
        items = [planned[index] for index in remaining]

        def keep_of(position: int, row: Row, indices: Sequence[int] = tuple(remaining)) -> None:
            done.add(indices[position])
            keep(indices[position], row)

        try:
            for _ in map_in_processes(_report_row, items, jobs=jobs, on_report=keep_of):
                pass
        except WorkerEnded as ended:
            keep_of(ended.index, _failed(items[ended.index], str(ended)))
        remaining = [index for index in remaining if index not in done]


def _report_row(run: PlannedRun, report: Report) -> None:
    """Sent at once, not when the runs before it are done."""
    report(run_row(run))
    gc.collect()


@contextmanager
def _garbage_apart() -> Iterator[None]:
    """A run leaves cycles, hundreds of runs in one process gigabytes of them. What is there before the first is not
    looked through again, so that to collect them after each costs little."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _head(run: PlannedRun) -> Row:
    return {**run.point, "seed": run.seed, "scenario": run.key}


def _failed(run: PlannedRun, error: str) -> Row:
    return {**_head(run), "status": FAILED, "error": error, "wall_time_s": math.nan}
