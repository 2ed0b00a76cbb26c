"""`hermes-sim explain RUN`: why a saved run, or a request in it, takes its time, and what would help."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.commands.runs_progress import runs_progress
from hermes_sim.commands.worker_options import Jobs, Scheduler, SlurmOptions, workers_from

INTERRUPTED = 130


def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="RUN")],
    request: Annotated[
        str | None, typer.Option(help="One request: its number in the requests table, slowest or median.", metavar="ID")
    ] = None,
    sensitivities: Annotated[
        bool | None,
        typer.Option(
            "--sensitivities/--no-sensitivities",
            help="Run it again with 10% more of each resource. [default: unless a request is asked for]",
        ),
    ] = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: SlurmOptions = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Say where time goes, what requests wait for, and what would help.

    hermes-sim explain runs/rag-1 --request 137
    """
    from hermes_sim.explore.explain.explain import explain as explanation_of

    try:
        with (
            workers_from(jobs, scheduler, slurm) as workers,
            runs_progress(shown=sys.stderr.isatty() and not (quiet or as_json)) as on_done,
        ):
            found = explanation_of(run, request, sensitivities=sensitivities, workers=workers, on_done=on_done)
    except KeyboardInterrupt:
        typer.echo("interrupted; `--no-sensitivities` needs no further runs", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(json.dumps(found.as_record(), indent=2, ensure_ascii=False) if as_json else str(found))
