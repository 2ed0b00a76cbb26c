"""Where the runs of an exploring command are run: options that all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hermes_sim.explore.row_cache import RowCache
    from hermes_sim.explore.workers.workers import Workers

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="At once. [default: cores, or workers of the cluster]", metavar="N"),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Run on a Dask cluster that is up.", metavar="tcp://HOST:PORT")
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option("--slurm", help="Run in SLURM jobs: a file, or num_workers=N,queue=...", metavar="FILE|K=V"),
]

NoCache = Annotated[bool, typer.Option("--no-cache", help="Run also what an equal run has answered before.")]


def workers_from(jobs: int | None, scheduler: str | None, slurm: list[str] | None) -> AbstractContextManager[Workers]:
    """The workers that the options ask for. Raises HermesError."""
    from hermes_sim.explore.workers.workers import workers_of

    if not slurm:
        return workers_of(jobs, scheduler)
    from hermes_sim.explore.workers.slurm import slurm_of

    return workers_of(jobs, scheduler, slurm_of(slurm))


@contextmanager
def cache_from(no_cache: bool) -> Iterator[RowCache | None]:
    """The rows of earlier runs, unless they are not wanted."""
    from hermes_sim.explore.row_cache import row_cache

    cache = None if no_cache else row_cache()
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()
