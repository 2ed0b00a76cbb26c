"""`hermes-sim report RUN`: the HTML page of a saved run or sweep, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run, or of a sweep.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="File to write. [default: RUN/report.html]", metavar="FILE")] = None,
) -> None:
    """Draw the report of a saved run or sweep: one HTML page that works from disk."""
    from hermes_sim.analysis.results import Results
    from hermes_sim.analysis.run_folder import REPORT_FILE
    from hermes_sim.explore.run_table import RUNS_FILE
    from hermes_sim.explore.sweep_results import SweepResults

    saved = SweepResults.load(run) if (run / RUNS_FILE).is_file() else Results.load(run)
    page = saved.report_html()
    path = run / REPORT_FILE if out is None else out
    try:
        write_whole(path, page)
    except OSError as error:
        raise HermesError(f"cannot write {path}: {error.strerror or error}") from error
    typer.echo(f"wrote {path}")
