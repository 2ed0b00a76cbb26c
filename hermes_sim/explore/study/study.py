"""A study from its file to its folder: the table of all runs, the figures, the findings in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.analysis.picture import save_figure
from hermes_sim.core.whole_file import write_whole
from hermes_sim.explore.plan import plan_sweep, quick_version
from hermes_sim.explore.row_cache import RowCache
from hermes_sim.explore.run_table import FAILED, RUNS_FILE, save_table
from hermes_sim.explore.study.figure import draw
from hermes_sim.explore.study.findings import study_findings
from hermes_sim.explore.study.page import findings_page
from hermes_sim.explore.sweep import Progress, load_explored, run_plan
from hermes_sim.explore.workers.workers import Workers
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_checks import check_study

FINDINGS_FILE: Final = "findings.md"


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
    return load_explored("study", StudyFile, check_study, name)


def run_study(
    study: StudyFile,
    *,
    quick: bool = False,
    jobs: int | None = None,
    workers: Workers | None = None,
    cache: RowCache | None = None,
    former: Path | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> StudyResults:
    """Runs every point of the study that `former`, a table of runs, does not know already.

    quick: its small version. workers, cache: as for a sweep. keep: file of the table, so that an interrupted study goes
    on from there. Raises ConfigError if no point of it can be run.
    """
    small = quick_version(study) if quick else study
    plan = plan_sweep(small, last=study.quick.overrides if quick else None, reference_axes=study.axes)
    columns = {axis.name: axis.names for axis in small.axes}
    runs, num_reused = run_plan(
        plan, columns, jobs=jobs, workers=workers, cache=cache, former=former, keep=keep, progress=progress
    )
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
