"""`hermes-sim sweep`: runs at many points, one table, the best points."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.commands.runs_progress import runs_progress
from hermes_sim.commands.worker_options import Jobs, NoCache, Scheduler, SlurmOptions, cache_from, workers_from
from hermes_sim.core.whole_file import write_whole

INTERRUPTED = 130
DEFAULT_PARENT = Path("runs")


def sweep(
    name: Annotated[str, typer.Argument(help="Sweep file, or a sweep of the library.", metavar="FILE")],
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Metric whose best points are shown; may be repeated.", metavar="METRIC"),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Show only points that fulfil this: 'rate >= 4 and ttft_p99_s <= 2'.", metavar="CONDITION"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best.", metavar="N")] = 3,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of all runs, whatever the axes say.", metavar="K=V"),
    ] = None,
    replications: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every point, instead of the file's.", metavar="N")
    ] = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: SlurmOptions = None,
    no_cache: NoCache = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; runs that it holds already are not run again. [default: runs/sweep-NAME]", metavar="FOLDER"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the points, run and write nothing.")] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html too: one page, works from disk.")
    ] = True,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write runs.csv beside runs.parquet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Run a sweep: many points of cluster and workload, one table, one row a run.

    hermes-sim sweep deployments --by goodput_per_s --where 'rate <= 8'
    """
    from hermes_sim.analysis.run_folder import REPORT_FILE
    from hermes_sim.explore.plan import plan_sweep
    from hermes_sim.explore.sweep import last_words, load_sweep, run_sweep
    from hermes_sim.explore.sweep_page import (
        DEFAULT_BY,
        check_words,
        found_data,
        found_lines,
        plan_lines,
        shape_lines,
    )

    described = load_sweep(name)
    if replications is not None:
        described = described.model_copy(update={"replications": replications})
    check_words(by or [], where, [axis.name for axis in described.axes])
    last = last_words(overrides or [])
    if dry_run:
        plan = plan_sweep(described, last=last)
        head = shape_lines(described, plan.num_points, plan.left_out, plan.num_twice)
        typer.echo("\n".join([*head, "", *plan_lines(described, plan)]))
        return
    folder = out if out is not None else DEFAULT_PARENT / f"sweep-{described.name}"
    shown = not (quiet or as_json)
    try:
        with (
            workers_from(jobs, scheduler, slurm) as workers,
            cache_from(no_cache) as cache,
            runs_progress(shown=shown and sys.stderr.isatty()) as progress,
        ):
            results = run_sweep(described, last=last, workers=workers, cache=cache, folder=folder, progress=progress)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is done is in {folder}: the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_csv:
        results.runs.to_csv(folder / "runs.csv", index=False)
    asked = by or results.sweep.by or DEFAULT_BY
    if report:
        write_whole(folder / REPORT_FILE, results.report_html(by or ()))
    if as_json:
        data = {**found_data(results, asked, top, where), "run_folder": str(folder)}
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif shown:
        files = [*([REPORT_FILE] if report else []), "runs.parquet", *(["runs.csv"] if as_csv else [])]
        typer.echo("\n".join([*found_lines(results, asked, top, where), "", f"saved {folder} ({', '.join(files)})"]))
