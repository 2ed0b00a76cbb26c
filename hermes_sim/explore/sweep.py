"""Runs a sweep: from its file to the table of all runs, which an interrupted sweep goes on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from hermes_sim.core.errors import ConfigError, HermesError, Problem
from hermes_sim.explore.kept_rows import journal_of, kept_rows, known_rows
from hermes_sim.explore.plan import Plan, plan_sweep
from hermes_sim.explore.row_cache import RowCache
from hermes_sim.explore.run_table import DONE, RUNS_FILE, AxisColumns, number_columns, run_table, save_table
from hermes_sim.explore.runner import Row, run_planned
from hermes_sim.explore.sweep_results import SweepResults, about_sweep
from hermes_sim.explore.workers.workers import Workers
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.files import FileOrMapping, find_document
from hermes_sim.scenario.library import FileKind, find
from hermes_sim.scenario.overrides import override_key
from hermes_sim.scenario.sweep import SweepFile
from hermes_sim.scenario.sweep_checks import check_sweep
from hermes_sim.scenario.validate import validate

E = TypeVar("E", bound=Explored)

Progress = Callable[[int, int], None]
"""(rows done, rows in all)."""


def sweep(
    what: FileOrMapping | SweepFile,
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    replications: int | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
    cache: RowCache | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> SweepResults:
    """Runs every point of a sweep: a name of the library, a path, or a mapping with what the file would hold.

    overrides: `{"workload.KEY": value}`, or `workload.KEY=VALUE` as on the command line, for all runs, whatever the
    axes say. replications: seeds of every point, instead of the sweep's. jobs: processes at once, by default as many as
    there are cores; workers: other ones, such as a Dask cluster's (explore/workers). The rows are the same for any.
    cache: rows of runs of earlier sweeps are taken from there, and new ones put in (explore/row_cache.py).
    folder: where the table is kept while the sweep runs; rows that it holds already are not run again, so that the same
    call goes on after an interruption. Nothing is written without it.
    Raises ConfigError with every problem of the file, and where no point of it can be run.
    """
    described = what if isinstance(what, SweepFile) else load_sweep(what)
    if replications is not None:
        described = described.model_copy(update={"replications": replications})
    return run_sweep(
        described, last=last_words(overrides), jobs=jobs, workers=workers, cache=cache, folder=folder, progress=progress
    )


def load_sweep(what: FileOrMapping) -> SweepFile:
    """A sweep by its name in the library, its path or its content. Raises ConfigError with every problem of it."""
    return load_explored("sweep", SweepFile, check_sweep, what)


def load_explored(
    kind: FileKind, schema: type[E], check: Callable[[E, Document], list[Problem]], given: FileOrMapping
) -> E:
    """A sweep, study or search by its name in the library, its path or its content. Raises ConfigError with every
    problem of it.

    check: what is wrong beyond the schema.
    """
    document = find_document(kind, given)
    described = validate(schema, document)
    problems = check(described, document)
    if problems:
        raise ConfigError(problems)
    return with_files(described, document)


def last_words(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Keys and values, also of texts such as `workload.traffic.num_requests=100`. Raises ConfigError."""
    return dict(overrides) if isinstance(overrides, Mapping) else dict(override_key(text) for text in overrides)


def run_sweep(
    described: SweepFile,
    *,
    last: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
    cache: RowCache | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> SweepResults:
    """As `sweep`, of what is read already. last: keys that are set whatever the axes say."""
    if folder is not None:
        check_runs_folder(Path(folder), "sweep")
    plan = plan_sweep(described, last=last)
    runs, num_reused = run_plan(
        plan,
        number_columns(described.axes),
        jobs=jobs,
        workers=workers,
        cache=cache,
        former=None if folder is None else Path(folder) / RUNS_FILE,
        keep=None if folder is None else Path(folder) / RUNS_FILE,
        about=about_sweep(described, plan.left_out, plan.num_twice),
        progress=progress,
    )
    results = SweepResults(described, runs, plan.left_out, plan.num_twice, num_reused)
    if folder is not None:
        results.save(folder)
    return results


def run_plan(
    plan: Plan,
    columns: AxisColumns,
    *,
    jobs: int | None = None,
    workers: Workers | None = None,
    cache: RowCache | None = None,
    former: Path | None = None,
    keep: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, int]:
    """The table of a plan's runs, and how many of them `former`, a table of runs, had already.

    cache: rows of other sweeps' runs, read and written. keep: file of the table; while runs go on,
    what they add is kept beside it, so that an interrupted plan goes on from there (kept_rows.py). about: what it says
    beside the table. Raises HermesError where another process keeps its rows there.
    """
    rows: dict[int, Row] = {}
    if keep is not None:
        _made(keep.parent)
    with ExitStack() as opened:
        kept = opened.enter_context(kept_rows(keep)) if keep is not None else None
        known = known_rows(former) if former is not None else {}
        reused = {index for index, run in enumerate(plan.runs) if run.scenario is not None and run.key in known}

        def on_row(index: int, row: Mapping[str, Any]) -> None:
            rows[index] = dict(row)
            if kept is not None and row["status"] == DONE and row["scenario"] not in known:
                kept.add(row, columns)
            if progress is not None:
                progress(len(rows), len(plan.runs))

        try:
            run_planned(plan.runs, known=known, cache=cache, jobs=jobs, workers=workers, on_row=on_row)
        finally:
            # interrupted before all known rows were taken over, the former files are worth more
            if kept is not None and keep is not None and rows and reused <= rows.keys():
                save_table(run_table(columns, [rows[index] for index in sorted(rows)]), keep, about=about)
                kept.remove()
    return run_table(columns, [rows[index] for index in sorted(rows)]), len(reused)


def check_runs_folder(folder: Path, kind: str) -> None:
    """Refuses, before a run, a folder of something else. Raises HermesError.

    kind: sweep or study, for messages.
    """
    if folder.exists() and not folder.is_dir():
        raise HermesError(f"--out {folder}: exists and is not a folder")
    table = folder / RUNS_FILE
    if folder.is_dir() and any(folder.iterdir()) and not (table.is_file() or journal_of(table).is_file()):
        raise HermesError(f"--out {folder}: holds something else than a {kind}; name a new folder")


def _made(folder: Path) -> None:
    """Only when there is something to run: wrong input leaves nothing behind. Raises HermesError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HermesError(f"--out {folder}: {error.strerror}") from error


def with_files(described: E, document: Document) -> E:
    """The file with the paths of the clusters and workloads that lie beside it."""
    if document.path is None:
        return described
    base = described.base.model_copy(update=_beside(described.base.cluster, described.base.workload, document.path))
    axes = []
    for axis in described.axes:
        values = [
            value.model_copy(update=_beside(value.cluster, value.workload, document.path)) for value in axis.values
        ]
        axes.append(axis.model_copy(update={"values": tuple(values)}))
    return described.model_copy(update={"base": base, "axes": tuple(axes)})


def _beside(cluster: str | None, workload: str | None, path: Path) -> dict[str, str]:
    found = {
        "cluster": None if cluster is None else find("cluster", cluster, path),
        "workload": None if workload is None else find("workload", workload, path),
    }
    return {kind: str(file) for kind, file in found.items() if file is not None and file.parent == path.parent}
