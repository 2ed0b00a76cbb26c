"""`hermes-sim trace RUN`: a saved run as a trace for ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.core.errors import HermesError
from hermes_sim.core.units import parse_quantity
from hermes_sim.core.whole_file import write_whole


def trace(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="RUN")],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, .json.gz or .json. [default: RUN/trace.json.gz]", metavar="FILE"),
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--from", help="Only what is under way from then on, such as '20 s'.", metavar="TIME")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Only what is under way until then.", metavar="TIME")] = None,
) -> None:
    """Write a saved run as a trace: open it in ui.perfetto.dev or chrome://tracing.

    Steps are slices where the run recorded them (--steps), intervals of the run else.
    """
    from hermes_sim.analysis.human import with_prefix
    from hermes_sim.analysis.perfetto import trace_gz, trace_json
    from hermes_sim.analysis.results import Results
    from hermes_sim.analysis.run_folder import TRACE_FILE

    path = run / TRACE_FILE if out is None else out
    if path.suffix not in (".gz", ".json"):
        raise HermesError(f"--out {path}: a trace is a .json.gz or a .json file")
    from_s, to_s = _moment("--from", begin), _moment("--to", end)
    if from_s is not None and to_s is not None and from_s > to_s:
        raise HermesError(f"--from {begin} is after --to {end}")
    results = Results.load(run)
    plain = path.suffix == ".json"
    content = "".join(trace_json(results, from_s, to_s)).encode() if plain else trace_gz(results, from_s, to_s)
    try:
        write_whole(path, content)
    except OSError as error:
        raise HermesError(f"cannot write {path}: {error.strerror or error}") from error
    typer.echo(f"wrote {path} ({with_prefix(path.stat().st_size, 'B')}); open it in ui.perfetto.dev")


def _moment(option: str, text: str | None) -> float | None:
    """Seconds of a time with its unit; a plain number counts seconds."""
    if text is None:
        return None
    try:
        return parse_quantity(f"{text} s" if text.replace(".", "", 1).isdecimal() else text, "time")
    except ValueError as error:
        raise HermesError(f"{option}: {error}") from None
