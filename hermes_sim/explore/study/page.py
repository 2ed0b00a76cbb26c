"""findings.md of a study: the question, what was run, the findings, the figures, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hermes_sim import __version__
from hermes_sim.explore.run_table import FAILED
from hermes_sim.explore.study.points import at_the_end
from hermes_sim.explore.words import counted, point_words
from hermes_sim.scenario.study import StudyFile

MOST_FAILURES = 5


def findings_page(study: StudyFile, runs: pd.DataFrame, findings: Sequence[str], pictures: Sequence[str]) -> str:
    """The page as Markdown; pictures: their file names, relative to it."""
    lines = [f"# {study.title}", "", study.question.strip(), ""]
    if study.source is not None:
        lines += [f"After {study.source.strip()}", ""]
    lines += [f"{run_words(study, runs)}", ""]
    lines += [f"- {finding}" for finding in findings]
    lines += [line for picture in pictures for line in ("", f"![{picture}]({picture})")]
    failures = failure_lines(study, runs)
    if failures:
        lines += ["", "Runs that failed:", "", *(f"- {line}" for line in failures)]
    if study.skip:
        lines += ["", "Left out:", "", *(f"- {_skipped(study, index)}" for index in range(len(study.skip)))]
    return "\n".join(lines) + "\n"


def run_words(study: StudyFile, runs: pd.DataFrame) -> str:
    """What was run: the grid, the seeds, how many failed."""
    axes = " x ".join(f"{len(axis.names)} {axis.name.replace('_', ' ')}" for axis in study.axes)
    failed = int((runs["status"] == FAILED).sum())
    seeds = counted(study.replications, "seed")
    workload, cluster = Path(study.base.workload).stem, Path(study.base.cluster).stem
    text = f"{counted(len(runs), 'run')} of {workload} on {cluster}: {axes}, {seeds} each"
    text += f"; {failed} failed" if failed else ""
    num_at_end, num_best = at_the_end(study, runs)
    if num_at_end and study.best is not None:
        over = " and ".join(axis.replace("_", " ") for axis in study.best.over)
        text += (
            f"; {num_at_end} of {num_best} best points lie at the end of {over}, past which there may be better ones"
        )
    return f"{text} (hermes-sim {__version__})."


def failure_lines(study: StudyFile, runs: pd.DataFrame) -> list[str]:
    """The first failed runs, each with its point and the first line of its error, and how many more there are."""
    failed = runs[runs["status"] == FAILED]
    axes = [axis.name for axis in study.axes]
    lines = [
        f"{point_words({axis: str(row[axis]) for axis in axes})}: {str(row['error']).splitlines()[0]}"
        for row in failed.head(MOST_FAILURES).to_dict("records")
    ]
    rest = len(failed) - len(lines)
    return [*lines, *([f"and {rest} more (column `error` of the table)"] if rest else [])]


def _skipped(study: StudyFile, index: int) -> str:
    skip = study.skip[index]
    return f"{point_words({axis: ' or '.join(names) for axis, names in skip.when.items()})}: {skip.because}"
