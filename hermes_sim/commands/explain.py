"""`hermes-sim explain RUN`: why a saved run, or a request in it, takes its time; what would help, by running it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130


def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="RUN")],
    request: Annotated[
        int | None, typer.Option(min=0, help="One request, by its number in the requests table.", metavar="ID")
    ] = None,
    sensitivities: Annotated[
        bool | None,
        typer.Option(
            "--sensitivities/--no-sensitivities",
            help="Run it again with 10% more of each resource. [default: unless a request is asked for]",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once. [default: cores]", metavar="N")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Say where time goes, what requests wait for, and what would help.

    hermes-sim explain runs/rag-1 --request 137
    """
    from hermes_sim.explore.explain import explain as explanation_of

    try:
        with _progress(shown=sys.stderr.isatty() and not (quiet or as_json)) as on_done:
            found = explanation_of(run, request, sensitivities=sensitivities, jobs=jobs, on_done=on_done)
    except KeyboardInterrupt:
        typer.echo("interrupted; `--no-sensitivities` needs no further runs", err=True)
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(json.dumps(found.as_record(), indent=2, ensure_ascii=False) if as_json else str(found))


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar with the runs done; it leaves no trace."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def update(num_done: int, num_runs: int) -> None:
            bar.update(task, completed=num_done, total=num_runs)

        yield update
