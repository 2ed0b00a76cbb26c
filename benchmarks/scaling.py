"""How the cost of a request grows: `python -m benchmarks.scaling [--only requests] [--figure FILE] [--json]`.

Four curves, CPU time of the event loop and the result tables: over the number of requests (1,000 to a million),
replicas (1 to 64), the largest batch (8 to 512) and the length of the answers (32 to 16,384 tokens). Each engine is
kept at the same share of what it can serve: the first two at the rate of W3, the last two with a full batch and a line
before it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.machine import simpy_timeouts_per_s
from benchmarks.timing import time_run
from benchmarks.workloads import FOLDER
from hermes_sim import Scenario, load_scenario

RATE_PER_REPLICA = 10.2
"""Requests of 512 in, 128 out per second: 75% of what one Llama-2-7B on the benchmark GPU can serve."""

REPEATS = 3
LONGEST_REPEATED_S = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a curve."""

    curve: str
    value: int
    num_requests: int
    num_output_tokens: int
    num_steps: int
    us_per_request: float
    us_per_output_token: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What grows, and the scenario it makes."""

    name: str
    title: str
    values: tuple[int, ...]

    def scenario(self, value: int) -> Scenario:
        cluster, workload, overrides = _SETTINGS[self.name](value)
        files = (FOLDER / f"{cluster}_cluster.yaml", FOLDER / f"{workload}_workload.yaml")
        return load_scenario(*files, overrides=overrides)


def _requests(value: int) -> tuple[str, str, list[str]]:
    return "w3", "w3", [f"workload.traffic.num_requests={value}"]


def _replicas(value: int) -> tuple[str, str, list[str]]:
    """On one node as large as it takes."""
    return "w3", "w3", [
        f"cluster.nodes[0].devices.gpu.count={value}",
        f"cluster.engines.llm.replicas={value}",
        "cluster.routing.kind=round_robin",
        f"workload.traffic.arrivals.rate={RATE_PER_REPLICA * value} /s",
        "workload.traffic.num_requests=20_000",
    ]  # fmt: skip


def _batch(value: int) -> tuple[str, str, list[str]]:
    """Answers of 256 tokens; more requests than fit, so that the batch is full."""
    return "w5", "w5", [
        f"cluster.engines.llm.batching.max_num_seqs={value}",
        "cluster.engines.llm.kv_cache.num_gpu_blocks=200000",
        "workload.traffic.arrivals.rate=1000 /s",
        "workload.traffic.num_requests=5_000",
        "workload.traffic.lengths.num_prompt_tokens=256",
        "workload.traffic.lengths.num_output_tokens=256",
    ]  # fmt: skip


def _output(value: int) -> tuple[str, str, list[str]]:
    """A full batch of 128."""
    return "w5", "w5", [
        "cluster.engines.llm.batching.max_num_seqs=128",
        "cluster.engines.llm.kv_cache.num_gpu_blocks=200000",
        "workload.traffic.arrivals.rate=1000 /s",
        "workload.traffic.num_requests=1_000",
        "workload.traffic.lengths.num_prompt_tokens=256",
        f"workload.traffic.lengths.num_output_tokens={value}",
    ]  # fmt: skip


_SETTINGS = {"requests": _requests, "replicas": _replicas, "batch": _batch, "output": _output}

CURVES = (
    Curve("requests", "requests, one replica", (1_000, 10_000, 100_000, 1_000_000)),
    Curve("replicas", "replicas, 20,000 requests in turn", (1, 4, 16, 64)),
    Curve("batch", "largest batch, answers of 256 tokens", (8, 32, 128, 512)),
    Curve("output", "output tokens, a full batch of 128", (32, 256, 2_048, 16_384)),
)


def measure(curve: Curve, value: int) -> Point:
    """Median of three runs, of one where it takes long."""
    scenario = curve.scenario(value)
    runs = [time_run(scenario)]
    while len(runs) < REPEATS and runs[0].run_s < LONGEST_REPEATED_S:
        runs.append(time_run(scenario))
    seconds = median(run.run_s for run in runs)
    tables = runs[-1].tables
    number, num_output = len(tables.requests["request"]), int(tables.requests["num_output_tokens"].sum())
    return Point(
        curve.name, value, number, num_output, int(tables.num_steps), 1e6 * seconds / number, 1e6 * seconds / num_output
    )


def render(points: Sequence[Point], timeouts_per_s: float) -> str:
    """Tables in Markdown, as docs/performance.md has them."""
    lines = []
    for curve in CURVES:
        mine = [point for point in points if point.curve == curve.name]
        if not mine:
            continue
        rows = [
            [curve.title, *(f"{point.value:,}" for point in mine)],
            ["us per request", *(f"{point.us_per_request:.1f}" for point in mine)],
            ["us per output token", *(f"{point.us_per_output_token:.4f}" for point in mine)],
            ["steps", *(f"{point.num_steps:,}" for point in mine)],
        ]
        table = [f"| {' | '.join(row)} |" for row in rows]
        lines += [table[0], f"|{'---|' * len(rows[0])}", *table[1:], ""]
    return "\n".join([*lines, f"CPU time; {timeouts_per_s:,.0f} SimPy timeouts per CPU second on this machine."])


def draw(points: Sequence[Point], file: Path) -> None:
    """One panel a curve, microseconds per request, logarithmic both ways."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    curves = [curve for curve in CURVES if any(point.curve == curve.name for point in points)]
    figure, panels = pyplot.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.8), squeeze=False)
    for panel, curve in zip(panels[0], curves, strict=True):
        mine = [point for point in points if point.curve == curve.name]
        panel.plot([point.value for point in mine], [point.us_per_request for point in mine], marker="o")
        panel.set(xscale="log", yscale="log", xlabel=curve.title.partition(",")[0], ylabel="us per request")
        panel.set_ylim(bottom=1.0)
        panel.grid(visible=True, which="both", alpha=0.2)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How the cost of a request grows.")
    parser.add_argument("--only", choices=[curve.name for curve in CURVES])
    parser.add_argument("--largest", type=int, help="leave out the points above it")
    parser.add_argument("--figure", type=Path, help="also a picture")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    timeouts_per_s = simpy_timeouts_per_s()
    points = []
    for curve in CURVES:
        if options.only not in (None, curve.name):
            continue
        time_run(curve.scenario(curve.values[0]))  # compiles what it needs
        points += [
            measure(curve, value) for value in curve.values if options.largest is None or value <= options.largest
        ]
    if options.json:
        result = {"simpy_timeouts_per_s": timeouts_per_s, "points": [asdict(point) for point in points]}
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        sys.stdout.write(render(points, timeouts_per_s) + "\n")
    if options.figure is not None:
        draw(points, options.figure)


if __name__ == "__main__":
    main()
