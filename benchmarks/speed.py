"""Requests simulated per CPU second: `python -m benchmarks.speed [--repeats 3] [--only W1] [--exact] [--json]`.

`--only M1` runs a million requests, which takes a minute each time; docs/performance.md shows and explains the figures.

Timed is what a default run does between start-up and statistics: the event loop (KV blocks, prefix cache, metrics) and
the result tables. Loading, lowering and compiling stand apart. CPU seconds, median of the repeats, one process. The
machine's own speed is measured beside it as plain SimPy timeouts per second, so that two machines can be compared.

Arrival rates are fixed at about 75% of what each system can serve, with the frozen coefficients of benchmark_gpu.yaml.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import simpy

from hermes_sim import load_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim.collect import collect
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.workload.generate import generate_requests

FOLDER = Path(__file__).resolve().parent
NUM_TIMEOUTS = 200_000


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One line of the table; its files stand beside this one."""

    name: str
    title: str
    files: str
    overrides: tuple[str, ...] = ()

    def scenario(self, *, exact_steps: bool, limit: int | None = None) -> Scenario:
        overrides = [*self.overrides, *([] if limit is None else [f"workload.traffic.num_requests={limit}"])]
        cluster, workload = (FOLDER / f"{self.files}_{part}.yaml" for part in ("cluster", "workload"))
        return load_scenario(cluster, workload, overrides=overrides, exact_steps=exact_steps)


BENCHMARKS = (
    Benchmark("W1", "Llama-2-70B TP4, 2,000 requests, Azure conversation lengths", "w1"),
    Benchmark("W2 rr", "8 replicas, 20,000 requests, round robin", "w2", ("cluster.routing.kind=round_robin",)),
    Benchmark(
        "W2 lot", "8 replicas, 20,000 requests, least outstanding tokens", "w2",
        ("cluster.routing.kind=least_outstanding_tokens",),
    ),
    Benchmark("W3", "Llama-2-7B, 5,000 requests of 512 in, 128 out", "w3"),
    Benchmark("M1 rr", "16 replicas of Llama-3-8B, 1,000,000 requests, round robin", "m1"),
    Benchmark(
        "M1 lot", "16 replicas of Llama-3-8B, 1,000,000 requests, least outstanding tokens", "m1",
        ("cluster.routing.kind=least_outstanding_tokens",),
    ),
)  # fmt: skip
DEFAULT = "W"
"""Benchmarks that run unless others are asked for: those that take seconds."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one benchmark measured (CPU seconds, medians) and what it simulated."""

    name: str
    requests_per_s: float
    loop_s: float
    tables_s: float
    lowering_s: float
    num_requests: int
    num_steps: int
    num_prompt_tokens: int
    num_output_tokens: int
    utilization_frac: float
    us_per_step: float
    us_per_output_token: float
    peak_memory_bytes: int
    """Of the process so far."""


def measure(benchmark: Benchmark, *, repeats: int, exact_steps: bool) -> Figures:
    """Run a benchmark `repeats` times after a short run that compiles what it needs."""
    time_run(benchmark.scenario(exact_steps=exact_steps, limit=20))
    scenario = benchmark.scenario(exact_steps=exact_steps)
    runs = [time_run(scenario) for _ in range(repeats)]
    lowering_s, loop_s, tables_s = (median(run.seconds[part] for run in runs) for part in range(3))
    tables = runs[-1].tables
    engines, num_requests = tables.engines, len(tables.requests["request"])
    num_steps, num_output = int(engines["num_steps"].sum()), int(tables.requests["num_output_tokens"].sum())
    return Figures(
        name=benchmark.name,
        requests_per_s=num_requests / (loop_s + tables_s),
        loop_s=loop_s,
        tables_s=tables_s,
        lowering_s=lowering_s,
        num_requests=num_requests,
        num_steps=num_steps,
        num_prompt_tokens=int(tables.requests["num_prompt_tokens"].sum()),
        num_output_tokens=num_output,
        utilization_frac=float(engines["utilization_frac"].mean()),
        us_per_step=1e6 * (loop_s + tables_s) / num_steps,
        us_per_output_token=1e6 * (loop_s + tables_s) / num_output,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


@dataclass(frozen=True, slots=True)
class TimedRun:
    """CPU seconds of lowering, event loop and result tables; and the tables."""

    seconds: tuple[float, float, float]
    tables: Any


def time_run(scenario: Scenario) -> TimedRun:
    """One run from a loaded scenario to its tables."""
    started_s = process_time()
    coordinator = Coordinator(lower(scenario, generate_requests(scenario.workload.traffic, scenario.seed)))
    lowered_s = process_time()
    coordinator.run()
    ran_s = process_time()
    tables = collect(coordinator)
    return TimedRun((lowered_s - started_s, ran_s - lowered_s, process_time() - ran_s), tables)


def simpy_timeouts_per_s() -> float:
    """Timeouts one plain SimPy process gets through in a CPU second."""

    def ticks(environment: simpy.Environment) -> Generator[simpy.Event, None, None]:
        for _ in range(NUM_TIMEOUTS):
            yield environment.timeout(1.0)

    environment = simpy.Environment()
    environment.process(ticks(environment))
    started_s = process_time()
    environment.run()
    return NUM_TIMEOUTS / (process_time() - started_s)


COLUMNS = (
    ("", 8), ("requests/s", 12), ("per kilotick", 14), ("loop", 13), ("tables", 12), ("lowering", 12), ("us/step", 9),
    ("us/token", 10), ("steps", 12), ("busy", 6), ("memory", 11),
)  # fmt: skip


def render(all_figures: Sequence[Figures], ticks_per_s: float, *, repeats: int, exact_steps: bool) -> str:
    """The table, and what its words mean."""
    lines = ["".join(head.rjust(width) for head, width in COLUMNS)]
    for figures in all_figures:
        cells = (
            figures.name,
            f"{figures.requests_per_s:,.0f}",
            f"{1e3 * figures.requests_per_s / ticks_per_s:.2f}",
            f"{1e3 * figures.loop_s:,.1f} ms",
            f"{1e3 * figures.tables_s:,.1f} ms",
            f"{1e3 * figures.lowering_s:,.1f} ms",
            f"{figures.us_per_step:.2f}",
            f"{figures.us_per_output_token:.3f}",
            f"{figures.num_steps:,}",
            f"{figures.utilization_frac:.0%}",
            f"{figures.peak_memory_bytes / 2**20:,.0f} MiB",
        )
        lines.append("".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)))
    names = {figures.name for figures in all_figures}
    lines += ["", *(f"{one.name:>8}  {one.title}" for one in BENCHMARKS if one.name in names), ""]
    runs = "one run" if repeats == 1 else f"median of {repeats} runs"
    stepping = ", one event per step" if exact_steps else ""
    lines += [
        f"CPU seconds of one process, {runs} after a short one that compiles{stepping}.",
        "requests/s, us/step, us/token: event loop and result tables; lowering (lengths, arrays, costs) stands apart.",
        "memory: the most that the process has held so far. busy: simulated engines.",
        f"kilotick: 1,000 timeouts of a plain SimPy process; this machine: {ticks_per_s:,.0f} timeouts per CPU second.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Requests simulated per CPU second.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=DEFAULT, help="names that start so: W1; W2 means both of its kinds; M1")
    parser.add_argument("--exact", action="store_true", help="one SimPy event per step (exact_steps)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    chosen = [benchmark for benchmark in BENCHMARKS if benchmark.name.startswith(options.only)]
    if not chosen:
        parser.error(f"no benchmark {options.only!r} ({', '.join(benchmark.name for benchmark in BENCHMARKS)})")
    ticks_per_s = median(simpy_timeouts_per_s() for _ in range(3))
    figures = [measure(benchmark, repeats=options.repeats, exact_steps=options.exact) for benchmark in chosen]
    if options.json:
        result = {"simpy_timeouts_per_s": ticks_per_s, "benchmarks": [asdict(each) for each in figures]}
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        table = render(figures, ticks_per_s, repeats=options.repeats, exact_steps=options.exact)
        sys.stdout.write(table + "\n")


if __name__ == "__main__":
    main()
