"""`hermes-sim compare RUN RUN...`: what was changed between runs, and what that has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of saved runs; the first is the base.", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="CSV file for the table.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Compare saved runs: what changed, what differs beyond chance.

    All are held against the first: keys of the scenario, then metrics with the intervals of their changes.

    hermes-sim compare runs/chat-1 runs/chat-2
    """
    from hermes_sim.analysis.comparison import compare as compare_runs

    comparison = compare_runs(*runs)
    if out is not None:
        try:
            write_whole(out, comparison.table.to_csv(index=False))
        except OSError as error:
            raise HermesError(f"cannot write {out}: {error.strerror or error}") from error
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        typer.echo(repr(comparison))
        if out is not None:
            typer.echo(f"\nwrote {out}")
