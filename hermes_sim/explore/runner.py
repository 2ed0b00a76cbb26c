"""Runs what is planned, several at once, one row each; a run that fails is a row that says why."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from hermes_sim.core.errors import HermesError
from hermes_sim.explore.plan import PlannedRun
from hermes_sim.explore.row import run_metrics, tier_metrics
from hermes_sim.explore.row_cache import RowCache
from hermes_sim.explore.run_key import read_files
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.workers.workers import WAIT, Wait, Workers, workers_of
from hermes_sim.run import run_scenario
from hermes_sim.scenario.scenario import Scenario

Row = dict[str, Any]
OnRow = Callable[[int, Row], None]
"""(index of the planned run, its row), called as soon as there is one."""


def run_planned(
    planned: Sequence[PlannedRun],
    *,
    known: Mapping[str, Row] | None = None,
    cache: RowCache | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
    on_row: OnRow | None = None,
) -> list[Row]:
    """The row of every planned run, in their order.

    known, cache: rows of former runs by hash (kept_rows.known_rows), of this plan and of any; new ones are put into the
    cache. workers: where they are run; without them `jobs` processes of this machine at once, by default as many as
    there are cores. The rows are the same for any, wall times aside.
    """
    rows: dict[int, Row] = {}

    def keep(index: int, row: Row) -> None:
        rows[index] = row
        if on_row is not None:
            on_row(index, row)

    for index, run in enumerate(planned):
        row = row_without_run(run, known or {}, cache)
        if row is not None:
            keep(index, row)
    remaining = [index for index in range(len(planned)) if index not in rows]
    runs = [planned[index] for index in remaining]
    ours = workers_of(1 if len(runs) < 2 else jobs) if workers is None else nullcontext(workers)
    with ours as these:
        for position, row in planned_rows(runs, these, cache=cache):
            keep(remaining[position], row)
    return [rows[index] for index in range(len(planned))]


def planned_rows(
    planned: Iterable[PlannedRun | Wait],
    workers: Workers,
    *,
    known: Mapping[str, Row] | None = None,
    cache: RowCache | None = None,
) -> Iterator[tuple[int, Row]]:
    """(number of the run, its row) as they come; a run that fails, or loses its workers, has a row as well.

    The next run is drawn only when a worker is free, and never before all rows that are there have been given: a
    generator may decide by them, and gives WAIT where it cannot yet. Equal runs are run once. known, cache:
    as for run_planned.
    """
    source = iter(planned)
    begun: dict[int, list[tuple[int, PlannedRun]]] = {}
    at: dict[str, int] = {}
    rows = dict(known or {})
    num_drawn, is_open = 0, True
    try:
        while True:
            while is_open and workers.has_room:
                run = next(source, None)
                if run is WAIT:
                    break
                if run is None:
                    is_open = False
                    break
                number, num_drawn = num_drawn, num_drawn + 1
                if (row := row_without_run(run, rows, cache)) is not None:
                    yield number, row
                elif (key := run.key) in at:
                    begun[at[key]].append((number, run))
                else:
                    if not at:
                        workers.prepare(_scenario_of(run))
                    at[key] = number
                    begun[number] = [(number, run)]
                    workers.begin(number, run_outcome, run, key)
            if not begun:
                assert not is_open, "a plan waits for the row of no run"
                return
            for end in workers.wait():
                same = begun.pop(end.ticket)
                del at[same[0][1].key]
                outcome = end.value if end.kind == "done" else _failure(_words(end.value))
                if outcome["status"] == DONE:
                    rows[same[0][1].key] = outcome
                    if cache is not None:
                        cache.put(same[0][1].key, outcome)
                for number, run in same:
                    yield number, {**_head(run), **outcome}
    finally:
        workers.abandon()


def row_without_run(run: PlannedRun, known: Mapping[str, Row], cache: RowCache | None = None) -> Row | None:
    """The row of a run that cannot be, or that is known already; None if it has to be run."""
    if run.problem is not None:
        return _head(run) | _failure(run.problem)
    if not known and cache is None:
        return None
    key = run.key
    row = known.get(key)
    if row is None and cache is not None:
        row = cache.get(key)
    return None if row is None else {**_head(run), **row}


def run_outcome(run: PlannedRun) -> Row:
    """What a run adds to its row, whatever happens in it: status, error, wall time, metrics."""
    try:
        results = run_scenario(_scenario_of(run))
        numbers = run_metrics(results) | tier_metrics(results, run.tiers, run.reference)
    except HermesError as error:
        return _failure(f"{error}{_unseen(run)}")
    except Exception as error:  # one broken run must not cost the others their rows
        return _failure(_words(error))
    return {"status": DONE, "error": "", "wall_time_s": results.wall_time_s, **numbers}


def _unseen(run: PlannedRun) -> str:
    """Said beside an error where this machine lacks a file that the run reads."""
    missing = [str(path) for path in read_files(_scenario_of(run)) if not path.exists()]
    if not missing:
        return ""
    return f" (on {platform.node()}: every worker has to see {', '.join(missing)} under this path)"


def _scenario_of(run: PlannedRun) -> Scenario:
    assert run.scenario is not None
    return run.scenario


def _words(error: object) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)


def _head(run: PlannedRun) -> Row:
    return {**run.point, "seed": run.seed, "scenario": run.key}


def _failure(error: str) -> Row:
    return {"status": FAILED, "error": error, "wall_time_s": math.nan}
