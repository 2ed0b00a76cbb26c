"""`hermes-sim report RUN`: the HTML page of a saved run, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="File to write. [default: RUN/report.html]", metavar="FILE")] = None,
) -> None:
    """Draw the report of a saved run: one HTML page that works from disk."""
    from hermes_sim.analysis.results import Results
    from hermes_sim.analysis.run_folder import REPORT_FILE

    page = Results.load(run).report_html()
    path = run / REPORT_FILE if out is None else out
    try:
        write_whole(path, page)
    except OSError as error:
        raise HermesError(f"cannot write {path}: {error.strerror or error}") from error
    typer.echo(f"wrote {path}")
