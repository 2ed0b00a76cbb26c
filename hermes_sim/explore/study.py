"""A study from its file to its folder: the table of all runs, the figures, the findings in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.analysis.picture import save_figure
from hermes_sim.core.errors import ConfigError, HermesError, Problem
from hermes_sim.core.whole_file import write_whole
from hermes_sim.explore.figure import draw
from hermes_sim.explore.findings import study_findings
from hermes_sim.explore.page import findings_page
from hermes_sim.explore.plan import plan_study, quick_version
from hermes_sim.explore.run_table import FAILED, RUNS_FILE, known_rows, run_table, save_table
from hermes_sim.explore.runner import Row, run_planned
from hermes_sim.scenario.library import NotFound, find
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_checks import check_study
from hermes_sim.scenario.validate import validate
from hermes_sim.scenario.yaml_reader import read_yaml

FINDINGS_FILE: Final = "findings.md"
SECONDS_BETWEEN_SAVES: Final = 2.0

Progress = Callable[[int, int], None]
"""(rows done, rows in all)."""


@dataclass(frozen=True, eq=False, slots=True)
class StudyResults:
    """What a study has found."""

    study: StudyFile
    """With the axes that were run."""
    runs: pd.DataFrame
    """One row a run (explore/run_table.py)."""
    findings: tuple[str, ...]
    num_reused: int = 0
    """Rows taken over from a former run of the study."""

    @property
    def failures(self) -> pd.DataFrame:
        """The runs that failed, each with its error."""
        return self.runs[self.runs["status"] == FAILED]


def load_study(name: str | Path) -> StudyFile:
    """A study by its name in the library or its path. Raises ConfigError with every problem of the file."""
    try:
        path = find("study", str(name))
    except NotFound as missing:
        raise ConfigError([Problem("", None, "", str(missing))]) from None
    document = read_yaml(path)
    study = validate(StudyFile, document)
    problems = check_study(study, document)
    if problems:
        raise ConfigError(problems)
    return _with_files(study, path)


def _with_files(study: StudyFile, path: Path) -> StudyFile:
    """The study with the paths of the clusters and workloads that lie beside it."""
    base = study.base.model_copy(update=_beside(study.base.cluster, study.base.workload, path))
    axes = []
    for axis in study.axes:
        values = [value.model_copy(update=_beside(value.cluster, value.workload, path)) for value in axis.values]
        axes.append(axis.model_copy(update={"values": tuple(values)}))
    return study.model_copy(update={"base": base, "axes": tuple(axes)})


def _beside(cluster: str | None, workload: str | None, path: Path) -> dict[str, str]:
    found = {
        "cluster": None if cluster is None else find("cluster", cluster, path),
        "workload": None if workload is None else find("workload", workload, path),
    }
    return {kind: str(file) for kind, file in found.items() if file is not None and file.parent == path.parent}


def run_study(
    study: StudyFile,
    *,
    quick: bool = False,
    jobs: int | None = None,
    former: Path | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> StudyResults:
    """Runs every point of the study that `former`, a table of runs, does not know already.

    quick: its small version. keep: file that the table is saved to on the way, so that an interrupted study goes on
    from there. Raises ConfigError if no point of it can be run.
    """
    planned = plan_study(study, quick=quick)
    small = quick_version(study) if quick else study
    axes = {axis.name: axis.names for axis in small.axes}
    known = known_rows(former) if former is not None else {}
    rows: dict[int, Row] = {}
    saved_s = time.monotonic()

    def save() -> None:
        if keep is not None and rows:
            save_table(run_table(axes, [rows[index] for index in sorted(rows)]), keep)

    def on_row(index: int, row: Mapping[str, Any]) -> None:
        nonlocal saved_s
        rows[index] = dict(row)
        if time.monotonic() - saved_s > SECONDS_BETWEEN_SAVES:
            save()
            saved_s = time.monotonic()
        if progress is not None:
            progress(len(rows), len(planned))

    try:
        finished = run_planned(planned, known=known, jobs=jobs, on_row=on_row)
    finally:
        save()
    runs = run_table(axes, finished)
    num_reused = sum(run.scenario is not None and run.key in known for run in planned)
    return StudyResults(small, runs, tuple(study_findings(small, runs)), num_reused)


def save_study(results: StudyResults, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Figures, and findings.md beside the table of runs; each file whole or not at all."""
    pictures = []
    for figure in results.study.figures:
        drawn = draw(results.study, figure, results.runs)
        for suffix in formats:
            path = folder / f"{figure.name}.{suffix}"
            save_figure(drawn, path)
            pictures.append(path)
    save_table(results.runs, folder / RUNS_FILE)
    names = [path.name for path in pictures if path.suffix == f".{formats[0]}"]
    write_whole(folder / FINDINGS_FILE, findings_page(results.study, results.runs, results.findings, names))
    return pictures


def check_study_folder(folder: Path) -> None:
    """Refuses, before a run, a folder that is not a study's or cannot be written to. Raises HermesError."""
    if folder.exists() and not folder.is_dir():
        raise HermesError(f"--out {folder}: exists and is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RUNS_FILE).is_file():
        raise HermesError(f"--out {folder}: holds something else than a study; name a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HermesError(f"--out {folder}: {error.strerror}") from error
