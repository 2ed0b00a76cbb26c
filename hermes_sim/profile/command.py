"""`python -m hermes_sim.profile cpu | gpu | engine | retrieval`, without the packages that the simulator needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hermes_sim.core.errors import HermesError
from hermes_sim.core.units import parse_quantity
from hermes_sim.profile.engine_run import DEFAULTS, EngineSettings, profile_engine
from hermes_sim.profile.engine_shape import MODELS
from hermes_sim.profile.kernels import profile_cpu, profile_gpu

WRONG_INPUT = 2
FAILED = 1
INTERRUPTED = 130
RESUMABLE = "interrupted; rows so far are saved, run again to go on"
DEFAULT_BUDGET = "5min"
CLOCKS = ("wall", "cpu")
DEVICES = ("cuda", "cpu")
STATISTICS = ("median", "fastest")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the output could not be written, 2 wrong input, 130 interrupted (rows so far are kept)."""
    try:
        words = run(_parser().parse_args(arguments))
    except HermesError as error:
        sys.stderr.write(f"error: {error}\n")
        return WRONG_INPUT
    except OSError as error:
        sys.stderr.write(f"error: {error.strerror or error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write(f"{RESUMABLE}\n")
        return INTERRUPTED
    sys.stdout.write(words + "\n")
    return 0


def run(options: argparse.Namespace) -> str:
    """The line to print."""
    shown = bar_shown(options.quiet)
    budget_s = budget_seconds(options.budget)
    if options.what == "engine":
        settings = EngineSettings(
            model=options.model,
            rate_per_s=options.rate,
            num_requests=options.requests,
            trace=options.trace,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
        )
        return profile_engine(options.out, settings, budget_s=budget_s, device=options.device, shown=shown)
    if options.what == "retrieval":
        from hermes_sim.profile.retrieval import profile_retrieval

        found = profile_retrieval(
            options.out,
            budget_s=budget_s,
            name=options.name,
            statistic=options.statistic,
            clock=options.clock,
            shown=shown,
        )
        return found.words(options.out)
    if options.what == "cpu":
        outcome = profile_cpu(
            options.out,
            budget_s=budget_s,
            name=options.name,
            statistic=options.statistic,
            clock=options.clock,
            shown=shown,
        )
    else:
        outcome = profile_gpu(
            options.out,
            budget_s=budget_s,
            device=options.device,
            name=options.name,
            statistic=options.statistic,
            shown=shown,
        )
    return outcome.words(options.out)


def bar_shown(quiet: bool) -> bool:
    """A progress bar is for a person at a terminal."""
    return not quiet and sys.stderr.isatty()


def budget_seconds(text: str) -> float:
    """`5min`, `90 s`; HermesError otherwise."""
    try:
        found = parse_quantity(text, "time")
    except ValueError as error:
        raise HermesError(f"--budget {text}: {error}") from error
    if found <= 0.0:
        raise HermesError(f"--budget {text}: needs a time above 0")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hermes_sim.profile", description="Measure this machine.")
    kinds = parser.add_subparsers(dest="what", required=True, metavar="cpu|gpu|engine|retrieval")
    cpu = kinds.add_parser("cpu", help="kernels on the CPU with NumPy")
    gpu = kinds.add_parser("gpu", help="kernels on the GPU with PyTorch")
    engine = kinds.add_parser("engine", help="a small serving loop with random weights")
    retrieval = kinds.add_parser("retrieval", help="vector searches on the CPU with FAISS")
    for one in (cpu, gpu, engine, retrieval):
        one.add_argument("--out", type=Path, required=True, help="folder for the tables; a former run there goes on")
        one.add_argument("--budget", default=DEFAULT_BUDGET, help=f"time to take [default: {DEFAULT_BUDGET}]")
        one.add_argument("--quiet", "-q", action="store_true", help="no progress bar")
    for one in (cpu, gpu, retrieval):
        one.add_argument("--name", help="the device's name in the tables [default: what the driver says]")
        one.add_argument("--statistic", choices=STATISTICS, default="median", help="which repeat is measured_s")
    for one in (cpu, retrieval):
        one.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu leaves out what other processes took")
    for one in (gpu, engine):
        one.add_argument("--device", choices=DEVICES, default="cuda")
    engine.add_argument("--model", metavar="MODEL", help=f"one of {', '.join(MODELS)} [default: by device]")
    engine.add_argument("--trace", type=Path, help="CSV: arrival_s, num_prompt_tokens, num_output_tokens")
    engine.add_argument("--rate", type=float, help="requests per second of the built-in trace")
    engine.add_argument("--requests", type=int, help="requests of the built-in trace")
    engine.add_argument("--max-num-seqs", type=int, default=DEFAULTS.max_num_seqs)
    engine.add_argument("--max-num-batched-tokens", type=int, default=DEFAULTS.max_num_batched_tokens)
    return parser
