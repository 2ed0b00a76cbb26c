"""`hermes-sim search`: looks for the best deployments in a space too large to run all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer

from hermes_sim.commands.runs_progress import runs_progress
from hermes_sim.commands.study import DEFAULT_PARENT, INTERRUPTED, Format
from hermes_sim.commands.worker_options import Jobs, NoCache, Scheduler, SlurmOptions, cache_from, workers_from


def search(
    name: Annotated[str, typer.Argument(help="Search of the library, or a search file.", metavar="NAME")],
    trials: Annotated[int | None, typer.Option(min=1, help="Points to try. [default: the file's]", metavar="N")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value for any key, at every point: workload.KEY=VALUE.", metavar="K=V"),
    ] = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: SlurmOptions = None,
    no_cache: NoCache = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; a search that it holds goes on. [default: runs/search-NAME]", metavar="FOLDER"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, without what the folder holds.")] = False,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", help="Of the figure; may be repeated. [default: png]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all points as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Search a space of deployments: the best by one metric, or the front by several.

    hermes-sim search llama_70b_16_gpus
    """
    from hermes_sim.explore.search.search import load_search
    from hermes_sim.explore.search.search import search as run_search
    from hermes_sim.explore.search.words import WIDTH, result_lines

    described = load_search(name)
    folder = out if out is not None else DEFAULT_PARENT / f"search-{described.name}"
    shown = not (quiet or as_json)
    if shown:
        texts = [line for part in (described.title, described.question) if part for line in wrap(part, WIDTH)]
        typer.echo("\n".join([*texts, ""] if texts else []), nl=bool(texts))
    try:
        with (
            workers_from(jobs, scheduler, slurm) as workers,
            cache_from(no_cache) as cache,
            runs_progress(shown=shown and sys.stderr.isatty()) as progress,
        ):
            results = run_search(
                name, trials=trials, overrides=overrides or (), folder=folder, fresh=fresh, workers=workers,
                cache=cache, progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is done is in {folder}: the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    files = results.save(folder, tuple(dict.fromkeys(str(one) for one in formats or [Format.PNG])))
    if as_json:
        typer.echo(json.dumps(results.to_json(), indent=2, ensure_ascii=False))
    if not shown:
        return
    typer.echo("\n".join(result_lines(results)))
    if results.num_former:
        typer.echo(f"{results.num_former:,} of them were there already")
    typer.echo(f"\nsaved {folder} ({', '.join(files)})")
    if results.best is not None:
        typer.echo(f"the best in full: hermes-sim --scenario {folder}")
