"""`hermes-sim capacity`: the highest load within the objectives."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hermes_sim.commands.runs_progress import runs_progress
from hermes_sim.commands.worker_options import Jobs, Scheduler, SlurmOptions, workers_from

INTERRUPTED = 130
DEFAULT_PARENT = Path("runs")


def capacity(
    cluster: Annotated[
        str | None, typer.Option(help="Cluster file, or the name of one in the library.", metavar="FILE")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Workload file, or the name of one in the library.", metavar="FILE")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Another value for any key of either.", metavar="K=V")
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(help="Objective in place of the workload's: 'ttft p99 2 s'; may be repeated.", metavar="TEXT"),
    ] = None,
    attainment: Annotated[
        str | None,
        typer.Option(help="Share of the requests that must keep all limits, not each its percentile.", metavar="99%"),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="Configurations: KEY=V1,V2,..., cluster=A,B or workload=A,B; all combinations.", metavar="K=V,V"
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="Configurations of a sweep file; its base, where no other is named.", metavar="FILE"),
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="capacity|per_usd|per_watt|per_device|usd_per_million_output_tokens", metavar="COLUMN"),
    ] = "capacity",
    tolerance: Annotated[str, typer.Option(help="Width of the bracket.", metavar="2%")] = "2%",
    replications: Annotated[int, typer.Option(min=1, help="Seeds, each searched by itself.", metavar="N")] = 3,
    num_requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            min=2,
            help="Of a run at first. [default: the workload's, or as its percentiles want]",
            metavar="N",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed, instead of the workload's.", metavar="N")] = None,
    early_stop: Annotated[
        bool, typer.Option("--early-stop/--no-early-stop", help="Leave runs that can no longer pass.")
    ] = True,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: SlurmOptions = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; runs that it holds are not run again. [default: runs/capacity-WORKLOAD-CLUSTER]",
            metavar="FOLDER",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON, nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """The highest load within the SLO, of one configuration or of many: per dollar, per watt, per device.

    hermes-sim capacity --cluster a100x8 --workload rag --vary cluster.engines.llm.replicas=1,2
    """  # fmt: skip
    from hermes_sim.explore.capacity import capacity as explored
    from hermes_sim.explore.capacity.options import axis_of, share_of
    from hermes_sim.explore.sweep import load_sweep

    axes = [axis_of(text) for text in vary or []]
    described = None if sweep is None else load_sweep(sweep)
    named = [Path(name).stem for name in (workload, cluster) if name is not None] or ["comparison"]
    folder = out or DEFAULT_PARENT / f"capacity-{'-'.join(named) if described is None else described.name}"
    shown = not (quiet or as_json)
    try:
        with (
            workers_from(jobs, scheduler, slurm) as workers,
            runs_progress(shown=shown and sys.stderr.isatty(), noun="searches") as progress,
        ):
            results = explored.capacity(
                cluster,
                workload,
                sweep=described,
                axes=axes,
                overrides=overrides or [],
                slo=slo or [],
                attainment=None if attainment is None else share_of(attainment, "--attainment"),
                tolerance=share_of(tolerance, "--tolerance"),
                replications=replications,
                num_requests=num_requests,
                seed=seed,
                by=by,
                early_stop=early_stop,
                workers=workers,
                folder=folder,
                progress=progress,
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is done is in {folder}: the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps({**results.data, "run_folder": str(folder)}, indent=2, ensure_ascii=False))
    elif shown:
        typer.echo(f"{results!r}\n\nsaved {folder} ({explored.CAPACITY_FILE}, {explored.PROBES_FILE})")
