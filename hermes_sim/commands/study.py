"""`hermes-sim study`: runs a study, draws its figures, says what it has found."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.commands.runs_progress import runs_progress
from hermes_sim.commands.worker_options import Jobs, NoCache, Scheduler, SlurmOptions, cache_from, workers_from

INTERRUPTED = 130
DEFAULT_PARENT = Path("runs")


class Format(StrEnum):
    """Of figures: explore/study/figure.py writes each."""

    PDF = "pdf"
    PNG = "png"
    SVG = "svg"


def study(
    name: Annotated[str, typer.Argument(help="Study of the library, or a study file.", metavar="NAME")],
    quick: Annotated[bool, typer.Option("--quick", help="The study's small version: a look, not a result.")] = False,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: SlurmOptions = None,
    no_cache: NoCache = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; runs that it holds already are not run again. [default: runs/study-NAME]", metavar="FOLDER"
        ),
    ] = None,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", help="Of the figures; may be repeated. [default: png]"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Run a study: a grid of runs, its figures, its findings in words.

    hermes-sim study reasoning_paths --quick
    """
    from hermes_sim.explore.run_table import RUNS_FILE
    from hermes_sim.explore.study.page import failure_lines, run_words
    from hermes_sim.explore.study.study import load_study, run_study, save_study
    from hermes_sim.explore.sweep import check_runs_folder

    loaded = load_study(name)
    folder = out if out is not None else DEFAULT_PARENT / f"study-{loaded.name}{'-quick' if quick else ''}"
    check_runs_folder(folder, "study")
    table = folder / RUNS_FILE
    if not quiet:
        typer.echo(f"{loaded.title}\n{loaded.question.strip()}\n")
    try:
        with (
            workers_from(jobs, scheduler, slurm) as workers,
            cache_from(no_cache) as cache,
            runs_progress(shown=not quiet and sys.stderr.isatty()) as progress,
        ):
            results = run_study(
                loaded, quick=quick, workers=workers, cache=cache, former=table, keep=table, progress=progress
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is done is in {folder}: the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    pictures = save_study(results, folder, tuple(dict.fromkeys(str(one) for one in formats or [Format.PNG])))
    for line in failure_lines(results.study, results.runs):
        typer.echo(f"failed: {line}", err=True)
    if quiet:
        return
    reused = f" {results.num_reused} of them were there already." if results.num_reused else ""
    typer.echo(f"{run_words(results.study, results.runs)}{reused}")
    for finding in results.findings:
        typer.echo(f"- {finding}")
    files = ", ".join([RUNS_FILE, "findings.md", *(path.name for path in pictures)])
    typer.echo(f"\nsaved {folder} ({files})")
