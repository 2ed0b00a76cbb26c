"""Requests simulated per CPU second: `python -m benchmarks.speed [--only W1] [--repeats 3] [--json] [--gate]`.

Timed is what a default run does between start-up and statistics: the event loop (KV blocks, prefix cache, metrics) and
the result tables. Loading, lowering and compiling stand apart. CPU seconds, median of the repeats, one process. The
machine's own speed is measured beside it as plain SimPy timeouts per second, so that machines can be compared.

`--gate` also runs the slow twins (benchmarks/twins.py) and ends with status 1 if a bar is missed by more than its slack
(benchmarks/workloads.py); `make bench` is this. W4 takes a while: it is a million requests.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.machine import peak_memory_bytes, simpy_timeouts_per_s
from benchmarks.timing import time_run
from benchmarks.twins import Twin, measure_twins
from benchmarks.workloads import BENCHMARKS, BUSY_TOLERANCE, SLACK, Benchmark, per_kilotick

__all__ = ["BENCHMARKS", "Figures", "main", "measure", "misses", "time_run"]

LONGEST_REPEATED_S = 10.0
"""A run that takes longer is not repeated: the machine's moods average out inside it."""


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
    busy_frac: float
    us_per_step: float
    us_per_output_token: float
    peak_memory_bytes: int
    """Of the process so far."""


def measure(benchmark: Benchmark, *, repeats: int, exact_steps: bool = False) -> Figures:
    """Run a benchmark `repeats` times after a short run that compiles what it needs."""
    time_run(benchmark.scenario(exact_steps=exact_steps, limit=20))
    scenario = benchmark.scenario(exact_steps=exact_steps)
    runs = [time_run(scenario)]
    while len(runs) < repeats and runs[0].run_s < LONGEST_REPEATED_S:
        runs.append(time_run(scenario))
    loop_s, tables_s = median(run.loop_s for run in runs), median(run.tables_s for run in runs)
    tables = runs[-1].tables
    num_requests, num_steps = len(tables.requests["request"]), int(tables.engines["num_steps"].sum())
    num_output = int(tables.requests["num_output_tokens"].sum())
    return Figures(
        name=benchmark.name,
        requests_per_s=num_requests / (loop_s + tables_s),
        loop_s=loop_s,
        tables_s=tables_s,
        lowering_s=median(run.lowering_s for run in runs),
        num_requests=num_requests,
        num_steps=num_steps,
        num_prompt_tokens=int(tables.requests["num_prompt_tokens"].sum()),
        num_output_tokens=num_output,
        busy_frac=float(tables.engines["utilization_frac"].mean()),
        us_per_step=1e6 * (loop_s + tables_s) / num_steps,
        us_per_output_token=1e6 * (loop_s + tables_s) / num_output,
        peak_memory_bytes=peak_memory_bytes(),
    )


def misses(benchmark: Benchmark, figures: Figures, timeouts_per_s: float) -> list[str]:
    """What is wrong with these figures, in words; nothing if the bar holds."""
    found = []
    reached, bar = per_kilotick(figures.requests_per_s, timeouts_per_s), benchmark.bar_per_kilotick
    if reached * SLACK < bar:
        found.append(f"{benchmark.name}: {reached:.1f} requests per kilotick, the bar is {bar:.1f} / {SLACK}")
    if abs(figures.busy_frac - benchmark.busy_frac) > BUSY_TOLERANCE:
        found.append(
            f"{benchmark.name}: engines are busy {figures.busy_frac:.1%} of the time, not {benchmark.busy_frac:.1%} as "
            "when its rate was set: a change of costs has moved the load"
        )
    most = benchmark.max_memory_bytes
    if most is not None and figures.peak_memory_bytes > most:
        found.append(f"{benchmark.name}: {figures.peak_memory_bytes / 1e9:.2f} GB of memory, more than {most / 1e9:g}")
    return found


def behind(benchmark: Benchmark, measured: Mapping[str, Figures]) -> list[str]:
    """What is wrong with these figures beside those of another benchmark on the same machine."""
    if benchmark.least_of is None or benchmark.least_of[0] not in measured:
        return []
    other, least_frac = benchmark.least_of
    own_per_s, other_per_s = measured[benchmark.name].requests_per_s, measured[other].requests_per_s
    if own_per_s >= least_frac * other_per_s:
        return []
    return [f"{benchmark.name}: {own_per_s:,.0f} requests/s, less than {least_frac:g} of {other_per_s:,.0f} in {other}"]


COLUMNS = (
    ("", 8), ("requests/s", 12), ("per kilotick", 14), ("bar", 7), ("loop", 13), ("tables", 12), ("lowering", 12),
    ("us/step", 9), ("us/token", 10), ("steps", 12), ("busy", 6), ("memory", 11),
)  # fmt: skip


def render(all_figures: Sequence[Figures], timeouts_per_s: float, *, repeats: int, exact_steps: bool) -> str:
    """The table, and what its words mean."""
    benchmarks = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    lines = ["".join(head.rjust(width) for head, width in COLUMNS)]
    for figures in all_figures:
        cells = (
            figures.name,
            f"{figures.requests_per_s:,.0f}",
            f"{per_kilotick(figures.requests_per_s, timeouts_per_s):.1f}",
            f"{benchmarks[figures.name].bar_per_kilotick:.1f}",
            f"{1e3 * figures.loop_s:,.1f} ms",
            f"{1e3 * figures.tables_s:,.1f} ms",
            f"{1e3 * figures.lowering_s:,.1f} ms",
            f"{figures.us_per_step:.2f}",
            f"{figures.us_per_output_token:.3f}",
            f"{figures.num_steps:,}",
            f"{figures.busy_frac:.0%}",
            f"{figures.peak_memory_bytes / 2**20:,.0f} MiB",
        )
        lines.append("".join(cell.rjust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)))
    lines += ["", *(f"{figures.name:>8}  {benchmarks[figures.name].title}" for figures in all_figures), ""]
    runs = "one run" if repeats == 1 else f"median of {repeats} runs (of one, where it takes over 10 s)"
    stepping = ", one event per step" if exact_steps else ""
    lines += [
        f"CPU seconds of one process, {runs} after a short one that compiles{stepping}.",
        "requests/s, us/step, us/token: event loop and result tables; lowering (lengths, arrays, costs) stands apart.",
        "memory: the most that the process has held so far. busy: simulated engines.",
        f"kilotick: 1,000 timeouts of a plain SimPy process; here {timeouts_per_s:,.0f} timeouts per CPU second.",
    ]
    return "\n".join(lines)


TWIN_COLUMNS = (("", 8), ("", 22), ("requests", 11), ("steps", 11), ("us/request", 13), ("here", 9), ("times", 9))


def render_twins(twins: Sequence[tuple[str, Twin]]) -> str:
    """The slow ways beside production."""
    lines = ["".join(head.rjust(width) for head, width in TWIN_COLUMNS)]
    for name, twin in twins:
        cells = (
            name,
            twin.name,
            f"{twin.num_requests:,}",
            f"{twin.num_steps:,}",
            f"{twin.us_per_request:,.0f}",
            f"{twin.production_us_per_request:,.1f}",
            f"{twin.times_slower:,.3g}x" if twin.times_slower < 10 else f"{twin.times_slower:,.0f}x",
        )
        lines.append("".join(cell.rjust(width) for cell, (_, width) in zip(cells, TWIN_COLUMNS, strict=True)))
    lines += [
        "",
        "us/request: CPU time of the slow way; here: of this simulator on the same requests (event loop, tables).",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description="Requests simulated per CPU second.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="W", help="names that start so: W1; W2 means both of its kinds")
    parser.add_argument("--exact", action="store_true", help="one SimPy event per step (exact_steps)")
    parser.add_argument("--gate", action="store_true", help="also the slow twins; status 1 if a bar is missed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    chosen = [benchmark for benchmark in BENCHMARKS if benchmark.name.startswith(options.only)]
    if not chosen:
        parser.error(f"no benchmark {options.only!r} ({', '.join(benchmark.name for benchmark in BENCHMARKS)})")
    timeouts_per_s = simpy_timeouts_per_s()
    # the largest last: memory is that of the process so far
    in_order = sorted(chosen, key=lambda benchmark: benchmark.max_memory_bytes is not None)
    measured = {one.name: measure(one, repeats=options.repeats, exact_steps=options.exact) for one in in_order}
    figures = [measured[benchmark.name] for benchmark in chosen]
    with_twins = [benchmark for benchmark in chosen if benchmark.has_twins and options.gate]
    twins = [(one.name, twin) for one in with_twins for twin in measure_twins(one)]
    if options.json:
        result = {
            "simpy_timeouts_per_s": timeouts_per_s,
            "benchmarks": [asdict(each) for each in figures],
            "twins": [{"benchmark": name, **asdict(twin)} for name, twin in twins],
        }
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        sys.stdout.write(render(figures, timeouts_per_s, repeats=options.repeats, exact_steps=options.exact) + "\n")
        if twins:
            sys.stdout.write("\n" + render_twins(twins) + "\n")
    missed = [line for one in chosen for line in misses(one, measured[one.name], timeouts_per_s)]
    missed += [line for one in chosen for line in behind(one, measured)]
    if options.gate and missed:
        sys.stderr.write("\n".join(["", "missed:", *missed]) + "\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
