"""A search: points proposed, run, compared; the front run again under seeds that it was not chosen by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.core.errors import ConfigError, HermesError, Problem
from hermes_sim.explore.grid import GridPoint, needs_scenario, point_scenario, skipped, unfulfilled
from hermes_sim.explore.kept_rows import held
from hermes_sim.explore.plan import PlannedRun
from hermes_sim.explore.row_cache import RowCache
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.runner import Row, planned_rows
from hermes_sim.explore.search.proposals import Seen, candidates_of, farthest_first, most_promising_first, tried_by
from hermes_sim.explore.search.ranking import front_of, goes_on, normalized
from hermes_sim.explore.search.record import (
    COUNTED,
    INFEASIBLE,
    REPEATED,
    RUNNING,
    STOPPED,
    SearchRecord,
    Tried,
)
from hermes_sim.explore.search.results import SearchResults
from hermes_sim.explore.search.space import Parameters, SearchSpace
from hermes_sim.explore.search.table import front_table, trials_table
from hermes_sim.explore.search.trial import excess_of, excesses_of, judged, losses_of, shortened
from hermes_sim.explore.sweep import last_words, with_files
from hermes_sim.explore.workers.workers import WAIT, Wait, Workers, workers_of
from hermes_sim.scenario.files import FileOrMapping, files_read_once, find_document
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.search import SearchFile
from hermes_sim.scenario.search_checks import check_search
from hermes_sim.scenario.validate import validate

MOST_MISSES: Final = 20
"""Draws of Optuna's sampler in a row that are of no use, before a point is taken by chance."""
MOST_WRONG: Final = 1000
"""Points in a row whose scenarios are wrong, before the search gives up."""
LEAST_BEGUN: Final = 4
MOST_BEGUN: Final = 12
"""Points spread over the space before a model is fitted: a fifth of all trials, within these."""

NUM_NEAR: Final = 10
"""Best points whose neighbours are looked at."""
MOST_FINALISTS: Final = 30
NUM_BEST: Final = 5
"""Points that are run again where there is one objective."""

JOURNAL_FILE: Final = "trials.journal"
"""Optuna's: `optuna-dashboard` reads it too."""

Progress = Callable[[int, int], None]
"""(points done, points in all)."""


def search(
    what: FileOrMapping,
    *,
    trials: int | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    folder: str | Path | None = None,
    fresh: bool = False,
    jobs: int | None = None,
    workers: Workers | None = None,
    cache: RowCache | None = None,
    progress: Progress | None = None,
) -> SearchResults:
    """The best of a space of deployments by one metric, or the front by several.

    what: a search file, its name in the library, or what it would hold. trials: instead of the file's number of points.
    overrides: `{"workload.KEY": value}`, or `workload.KEY=VALUE` as on the command line, set last at every point.
    folder: where the search is kept while it goes on; what it holds of the same search is not run again, unless
    `fresh`. jobs: processes at once, by default as many as there are cores; workers: other ones, such as a Dask
    cluster's. With one at a time the search is the same for the same seed; with several it depends on who is ready
    first. cache: rows of earlier runs are taken from there, and new ones put in.
    Raises ConfigError; HermesError where the folder holds another search, or another process writes there.
    """
    described = _amended(load_search(what), trials)
    journal = None if folder is None else _journal(Path(folder))
    with nullcontext() if journal is None else held(journal), files_read_once():
        if journal is not None and fresh:
            journal.unlink(missing_ok=True)
        space = SearchSpace(described.axes, partial(_fits, described))
        last = last_words(overrides)
        record = SearchRecord(described, space, journal, last)
        num_former = record.num_counted
        searching = Searching(described, space, record, last, progress, cache)
        with workers_of(jobs) if workers is None else nullcontext(workers) as these:
            searching.run(these)
            finalists = searching.finalists()
            front = front_table(described, space, finalists, searching.run_again(finalists, these))
        best = _best_scenario(searching, finalists, front)
    num_left_out = None
    if space.listed is not None and space.num_points is not None:
        num_left_out = space.num_points - len(space.listed)
    table = trials_table(described, space, record.tried)
    return SearchResults(described, table, front, best, num_left_out, space.num_points, num_former)


def load_search(what: FileOrMapping) -> SearchFile:
    """A search by its name in the library, its path or its content. Raises ConfigError with every problem of it."""
    document = find_document("search", what)
    described = validate(SearchFile, document)
    problems = check_search(described, document)
    if problems:
        raise ConfigError(problems)
    return with_files(described, document)


def _amended(described: SearchFile, trials: int | None) -> SearchFile:
    if trials is None:
        return described
    if trials < 1:
        raise ConfigError([Problem("trials", None, "", f"must be >= 1, got {trials}")])
    return described.model_copy(update={"trials": trials})


def _journal(folder: Path) -> Path:
    """File of the trials in the folder of a search. Raises HermesError where that cannot be."""
    if folder.exists() and not folder.is_dir():
        raise HermesError(f"{folder}: exists and is not a folder")
    journal = folder / JOURNAL_FILE
    if folder.is_dir() and any(folder.iterdir()) and not journal.is_file():
        raise HermesError(f"{folder}: holds something else than a search; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HermesError(f"{folder}: {error.strerror}") from error
    return journal


def _best_scenario(searching: Searching, finalists: Sequence[Tried], front: pd.DataFrame) -> Scenario | None:
    if front.empty or not front["is_knee"].any():
        return None
    number = int(front.loc[front["is_knee"], "trial"].iloc[0])
    return searching.whole_scenario(next(one for one in finalists if one.number == number))


def _fits(described: SearchFile, point: GridPoint) -> bool:
    return unfit_axes(described, point) is None


def unfit_axes(search: SearchFile, point: GridPoint) -> str | None:
    """Why a point is left out, by the values of its axes alone. Raises ConfigError."""
    on_axes = [one for one in search.constraints if not needs_scenario(one)]
    return skipped(search.skip, point) or unfulfilled(on_axes, search.axes, point, called=search.name)


@dataclass(eq=False)
class Searching:
    """A search under way."""

    search: SearchFile
    space: SearchSpace
    record: SearchRecord
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Set last, whatever the axes say."""
    progress: Progress | None = None
    cache: RowCache | None = None
    _runs: dict[int, Tried] = field(default_factory=dict)
    """Runs under way, by their number."""
    _next: list[Tried] = field(default_factory=list)
    """Points whose last run has ended, or that have had none."""
    _whole: dict[int, Scenario] = field(default_factory=dict)
    """Scenarios of points under way."""

    def run(self, workers: Workers) -> None:
        """Until as many points were tried as the file says, or all."""
        self._next += [one for one in self.record.tried if one.status == RUNNING and self._can_run(one)]
        for number, row in planned_rows(self._planned(), workers, cache=self.cache):
            tried = self._runs.pop(number)
            self.record.keep_row(tried, judged(self.search, row))
            self._next.append(tried)
            self._tell()

    def _planned(self) -> Iterator[PlannedRun | Wait]:
        """The next run of a point that goes on, else the first of a new point."""
        num_drawn = 0
        while True:
            tried = self._going_on() or self._new()
            if tried is not None:
                self._runs[num_drawn] = tried
                num_drawn += 1
                yield self._run_of(tried)
            elif self._runs:
                yield WAIT
            else:
                return

    def _going_on(self) -> Tried | None:
        """The next point that has a rung to be run on; those that have none are ended."""
        while self._next:
            tried = self._next.pop(0)
            if not tried.rows:
                return tried
            status = self._status(tried)
            if status == RUNNING:
                return tried
            self.record.end(tried, status, str(tried.rows[-1]["error"]))
            self._whole.pop(tried.number, None)
        return None

    def _status(self, tried: Tried) -> str:
        """What a point is after its last row."""
        rungs, place = self.search.rungs, len(tried.rows) - 1
        if tried.rows[-1]["status"] != DONE:
            return FAILED
        if place == len(rungs) - 1:
            return DONE
        others = [one.rows[place] for one in self.record.tried if len(one.rows) > place and one is not tried]
        rows = [row for row in others if row["status"] == DONE] + [tried.rows[place]]
        losses = np.array([losses_of(self.search, row) for row in rows])
        excess = np.array([excess_of(self.search, row) for row in rows])
        return RUNNING if goes_on(losses, excess, rungs[place + 1] / rungs[place]) else STOPPED

    def _new(self) -> Tried | None:
        """A point that was not tried yet and whose scenario is right; None where there are enough, or no more."""
        if self.record.num_counted >= self.search.trials:
            return None
        if self.search.sampler in ("tpe", "nsga2"):
            for _ in range(MOST_MISSES):
                tried = self._added(None)
                if tried is not None:
                    return tried
        for num_wrong, parameters in enumerate(self._proposed()):
            tried = self._added(parameters)
            if tried is not None:
                return tried
            if num_wrong == MOST_WRONG:
                raise HermesError(f"{MOST_WRONG:,} points in a row cannot be run: {self.record.tried[-1].reason}")
        return None

    def _added(self, parameters: Parameters | None) -> Tried | None:
        """The point, or one that Optuna draws; None where it was tried before or cannot be run."""
        tried = self.record.add(parameters)
        return tried if self._can_run(tried) else None

    def _can_run(self, tried: Tried) -> bool:
        """Whether it is a point that was not tried before and that has a scenario; if not it is ended."""
        before = [one.parameters for one in self.record.tried if one.number < tried.number]
        if tried_by(before, self.space)(tried.parameters):
            self.record.end(tried, REPEATED)
        elif (reason := self._unfit(tried)) is not None:
            self.record.end(tried, INFEASIBLE, reason)
        return tried.status == RUNNING

    def _unfit(self, tried: Tried) -> str | None:
        """Why there is no scenario of the point."""
        point = self.space.point(tried.parameters)
        reason = unfit_axes(self.search, point)
        if reason is not None:
            return reason
        try:
            scenario = self.whole_scenario(tried)
        except ConfigError as error:
            problem = error.problems[0]
            return f"{problem.key}: {problem.message}" if problem.key else problem.message
        shortened(scenario, self.search.rungs[0])
        on_scenario = [one for one in self.search.constraints if needs_scenario(one)]
        return unfulfilled(on_scenario, self.search.axes, point, scenario, called=self.search.name)

    def _proposed(self) -> list[Parameters]:
        """Points that were not tried, the best first: by chance, by the model, or while there is little to fit one to,
        far from all others."""
        chance = np.random.default_rng([self.search.seed, self.record.num_counted])
        counted = [one for one in self.record.tried if one.status in COUNTED]
        near = [one.parameters for one in self._best(NUM_NEAR)]
        is_tried = tried_by([one.parameters for one in self.record.tried], self.space)
        candidates = candidates_of(self.space, is_tried, chance, near)
        if not candidates or self.search.sampler != "gp":
            return candidates
        seen = [one for tried in counted for one in self._seen(tried)]
        num_begun = min(MOST_BEGUN, max(LEAST_BEGUN, self.search.trials // 5))
        if len(counted) < num_begun or len(seen) < LEAST_BEGUN:
            return farthest_first(self.space, candidates, [one.parameters for one in counted])
        pending = [one.parameters for one in counted if one.status == RUNNING]
        return most_promising_first(self.space, candidates, seen, pending, chance)

    def _seen(self, tried: Tried) -> list[Seen]:
        search = self.search
        return [
            Seen(tried.parameters, search.rungs[place], losses_of(search, row), excesses_of(search, row))
            for place, row in enumerate(tried.rows)
        ]

    def _best(self, num: int) -> list[Tried]:
        """Of those run with all requests, the front and then the next best by the sum of their objectives."""
        done = [one for one in self.record.tried if one.status == DONE]
        if not done:
            return []
        losses = np.array([losses_of(self.search, one.rows[-1]) for one in done])
        excess = np.array([excess_of(self.search, one.rows[-1]) for one in done])
        front = list(front_of(losses, excess))
        rest = [int(index) for index in np.lexsort((normalized(losses).sum(axis=1), excess)) if index not in front]
        return [done[index] for index in [*front, *rest][:num]]

    def _run_of(self, tried: Tried) -> PlannedRun:
        """On the next rung."""
        scenario = shortened(self.whole_scenario(tried), self.search.rungs[len(tried.rows)])
        return PlannedRun(self.space.point(tried.parameters), scenario.seed, scenario)

    def whole_scenario(self, tried: Tried) -> Scenario:
        """Of a point with all its requests. Raises ConfigError."""
        if tried.number not in self._whole:
            search, point = self.search, self.space.point(tried.parameters)
            scenario = point_scenario(search.base, search.axes, point, called=search.name, last=self.overrides)
            self._whole[tried.number] = scenario
        return self._whole[tried.number]

    def _tell(self) -> None:
        if self.progress is not None:
            num_running = sum(one.status == RUNNING for one in self.record.tried)
            self.progress(self.record.num_counted - num_running, self.search.trials)

    def finalists(self) -> list[Tried]:
        """Points to be run again: the front, or the best few by a single objective; none where none is within."""
        within = [one for one in self._best(MOST_FINALISTS) if excess_of(self.search, one.rows[-1]) <= 0]
        if len(self.search.objectives) == 1:
            return within[:NUM_BEST]
        losses = np.array([losses_of(self.search, one.rows[-1]) for one in within])
        return [within[index] for index in front_of(losses, np.zeros(len(within)))] if within else []

    def run_again(self, finalists: Sequence[Tried], workers: Workers) -> list[list[Row]]:
        """The rows of each finalist under seeds that the search has not seen, as many as `replications` says."""
        runs = []
        for tried in finalists:
            whole = self.whole_scenario(tried)
            for seed in range(whole.seed + 1, whole.seed + 1 + self.search.replications):
                point = self.space.point(tried.parameters)
                runs.append(PlannedRun(point, seed, whole.model_copy(update={"seed": seed})))
        known = self.record.rows_again
        rows: dict[int, Row] = {}
        for number, row in planned_rows(runs, workers, known=known, cache=self.cache):
            rows[number] = row
            if row["scenario"] not in known:
                self.record.keep_row_again(row)
        num = self.search.replications
        return [[rows[place * num + index] for index in range(num)] for place in range(len(finalists))]
