"""`hermes-sim profile cpu | gpu | engine | retrieval`: measure this machine into tables of the public format."""

from __future__ import annotations

from argparse import Namespace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure this machine: kernels, a serving loop, vector searches."
)


class Statistic(StrEnum):
    """Which of the repeats counts."""

    MEDIAN = "median"
    FASTEST = "fastest"


class Clock(StrEnum):
    """What the CPU is timed by."""

    WALL = "wall"
    CPU = "cpu"


class TorchDevice(StrEnum):
    """Where PyTorch computes."""

    CUDA = "cuda"
    CPU = "cpu"


Out = Annotated[Path, typer.Option(help="Folder for the tables; a former run there goes on.", metavar="FOLDER")]
Budget = Annotated[str, typer.Option(help="Time to take: 5min, 90 s.", metavar="TIME")]
Name = Annotated[
    str | None, typer.Option(help="The device's name in the tables. [default: what the driver says]", metavar="NAME")
]
Which = Annotated[Statistic, typer.Option(help="Which of the repeats is measured_s.")]
Timer = Annotated[Clock, typer.Option(help="cpu leaves out what other processes took.")]
Computing = Annotated[TorchDevice, typer.Option(help="cpu: the same code without a GPU.")]
ModelName = Annotated[
    str | None, typer.Option(help="llama_3_1_8b, llama_3_2_1b, small, tiny. [default: by device]", metavar="MODEL")
]
Trace = Annotated[
    Path | None, typer.Option(help="CSV: arrival_s, num_prompt_tokens, num_output_tokens.", metavar="FILE")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@app.command("cpu")
def measure_cpu(
    context: typer.Context,
    out: Out,
    budget: Budget = "5min",
    name: Name = None,
    statistic: Which = Statistic.MEDIAN,
    clock: Timer = Clock.WALL,
    quiet: Quiet = False,
) -> None:
    """NumPy and its BLAS: products, attention, norms, experts, memory streams."""
    _measure(context)


@app.command("gpu")
def measure_gpu(
    context: typer.Context,
    out: Out,
    budget: Budget = "5min",
    device: Computing = TorchDevice.CUDA,
    name: Name = None,
    statistic: Which = Statistic.MEDIAN,
    quiet: Quiet = False,
) -> None:
    """PyTorch: products per dtype, attention, experts, copies, launches, all-reduce, power."""
    _measure(context)


@app.command("engine")
def measure_engine(
    context: typer.Context,
    out: Out,
    budget: Budget = "5min",
    device: Computing = TorchDevice.CUDA,
    model: ModelName = None,
    trace: Trace = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second of the built-in trace.")] = None,
    requests: Annotated[int | None, typer.Option(help="Requests of the built-in trace.")] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Most sequences in a step.")] = 64,
    max_num_batched_tokens: Annotated[int, typer.Option(help="Most tokens in a step.")] = 2048,
    quiet: Quiet = False,
) -> None:
    """A small continuous-batching loop with random weights: time of every step and request."""
    _measure(context)


@app.command("retrieval")
def measure_retrieval(
    context: typer.Context,
    out: Out,
    budget: Budget = "5min",
    name: Name = None,
    statistic: Which = Statistic.MEDIAN,
    clock: Timer = Clock.WALL,
    quiet: Quiet = False,
) -> None:
    """FAISS: searches of flat, inverted-list, product-quantised and graph indexes, with their recall."""
    _measure(context)


def _measure(context: typer.Context) -> None:
    """Options go by the names that `python -m hermes_sim.profile` gives them: one function serves both commands."""
    from hermes_sim.profile.command import INTERRUPTED, RESUMABLE, run

    try:
        typer.echo(run(Namespace(what=context.info_name, **context.params)))
    except KeyboardInterrupt:
        typer.echo(RESUMABLE, err=True)
        raise typer.Exit(INTERRUPTED) from None
