"""`hermes-sim export RUN`: a saved run in the format of another program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Of another program's results."""

    VLLM = "vllm"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run.", metavar="RUN")],
    form: Annotated[
        Format, typer.Option("--format", help="vllm: as `vllm bench serve --save-result --save-detailed` writes it.")
    ] = Format.VLLM,
    out: Annotated[
        Path | None, typer.Option(help="File to write. [default: RUN/vllm_benchmark.json]", metavar="FILE")
    ] = None,
) -> None:
    """Write a saved run as another program's results, for scripts that plot those.

    Gaps between tokens (itls) are in it where the run recorded its steps (--steps).
    """
    from hermes_sim.analysis.results import Results
    from hermes_sim.analysis.run_folder import VLLM_FILE

    assert form is Format.VLLM
    path = run / VLLM_FILE if out is None else out
    results = Results.load(run)
    results.save_vllm_benchmark(path)
    left_out = "" if results.steps is not None else "; without itls: the run did not record its steps (--steps)"
    typer.echo(f"wrote {path}{left_out}")
