"""Runs a sweep: from its file to the table of all runs, which an interrupted sweep goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd

from hermes_sim.core.errors import ConfigError, HermesError
from hermes_sim.explore.plan import Plan, plan_sweep
from hermes_sim.explore.run_table import RUNS_FILE, AxisColumns, known_rows, number_columns, run_table, save_table
from hermes_sim.explore.runner import Row, run_planned
from hermes_sim.explore.sweep_results import SweepResults, about_sweep
from hermes_sim.explore.workers import Workers
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.files import FileOrMapping, find_document
from hermes_sim.scenario.library import find
from hermes_sim.scenario.overrides import override_key
from hermes_sim.scenario.sweep import SweepFile
from hermes_sim.scenario.sweep_checks import check_sweep
from hermes_sim.scenario.validate import validate

SECONDS_BETWEEN_SAVES: Final = 2.0

E = TypeVar("E", bound=Explored)

Progress = Callable[[int, int], None]
"""(rows done, rows in all)."""


def sweep(
    what: FileOrMapping | SweepFile,
    *,
    overrides: Sequence[str] = (),
    replications: int | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> SweepResults:
    """Runs every point of a sweep: a name of the library, a path, or a mapping with what the file would hold.

    overrides: `cluster.KEY=VALUE` or `workload.KEY=VALUE` for all runs, whatever the axes say. replications: seeds of
    every point, instead of the sweep's. jobs: processes at once, by default as many as there are cores; workers: other
    ones, such as a Dask cluster's (explore/workers.py). The rows are the same for any.
    folder: where the table is kept while the sweep runs; rows that it holds already are not run again, so that the same
    call goes on after an interruption. Nothing is written without it.
    Raises ConfigError with every problem of the file, and where no point of it can be run.
    """
    described = what if isinstance(what, SweepFile) else load_sweep(what)
    if replications is not None:
        described = described.model_copy(update={"replications": replications})
    return run_sweep(
        described, last=last_words(overrides), jobs=jobs, workers=workers, folder=folder, progress=progress
    )


def load_sweep(what: FileOrMapping) -> SweepFile:
    """A sweep by its name in the library, its path or its content. Raises ConfigError with every problem of it."""
    document = find_document("sweep", what)
    described = validate(SweepFile, document)
    problems = check_sweep(described, document)
    if problems:
        raise ConfigError(problems)
    return with_files(described, document)


def last_words(overrides: Sequence[str]) -> dict[str, Any]:
    """Keys and values of texts such as `workload.traffic.num_requests=100`. Raises ConfigError."""
    return dict(override_key(text) for text in overrides)


def run_sweep(
    described: SweepFile,
    *,
    last: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    workers: Workers | None = None,
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
    former: Path | None = None,
    keep: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, int]:
    """The table of a plan's runs, and how many of them `former`, a table of runs, had already.

    keep: file that the table is saved to on the way, so that an interrupted plan goes on from there. about: what it
    says beside the table.
    """
    known = known_rows(former) if former is not None else {}
    rows: dict[int, Row] = {}
    saved_s = time.monotonic()

    def save() -> None:
        if keep is not None and rows:
            save_table(run_table(columns, [rows[index] for index in sorted(rows)]), keep, about=about)

    def on_row(index: int, row: Mapping[str, Any]) -> None:
        nonlocal saved_s
        rows[index] = dict(row)
        if time.monotonic() - saved_s > SECONDS_BETWEEN_SAVES:
            save()
            saved_s = time.monotonic()
        if progress is not None:
            progress(len(rows), len(plan.runs))

    try:
        finished = run_planned(plan.runs, known=known, jobs=jobs, workers=workers, on_row=on_row)
    finally:
        save()
    num_reused = sum(run.scenario is not None and run.key in known for run in plan.runs)
    return run_table(columns, finished), num_reused


def check_runs_folder(folder: Path, kind: str) -> None:
    """Refuses, before a run, a folder of something else, or one that cannot be written to. Raises HermesError.

    kind: sweep or study, for messages.
    """
    if folder.exists() and not folder.is_dir():
        raise HermesError(f"--out {folder}: exists and is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RUNS_FILE).is_file():
        raise HermesError(f"--out {folder}: holds something else than a {kind}; name a new folder")
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
