"""The bar of commands that run many scenarios: runs done, time taken, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def runs_progress(*, shown: bool, noun: str = "runs") -> Iterator[Callable[[int, int], None] | None]:
    """What is called with (done, in all) of what the noun says; None where nothing is shown. The bar is on stderr and
    leaves no trace."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(f"{noun},"), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def update(num_done: int, num_runs: int) -> None:
            bar.update(task, completed=num_done, total=num_runs)

        yield update
