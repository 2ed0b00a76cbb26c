"""How many runs a search for capacity takes, and how long: `python -m benchmarks.capacity`."""

from __future__ import annotations

import sys
from time import process_time

from hermes_sim.explore.capacity.criterion import Criterion
from hermes_sim.explore.capacity.probe import BACKLOG, STOPPED, Prober, Setting
from hermes_sim.explore.capacity.task import NEXT_TO_NOTHING, CapacityTask, Hint, SeedCapacity, find_capacity
from hermes_sim.run import warm_up
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.slo import slo_of

CASES = (
    ("a100x8", "rag", ("ttft p99 2 s", "tpot p99 90 ms"), 2_000),
    ("h100x8", "chat", ("ttft p99 500 ms", "tpot p99 40 ms"), 2_000),
    ("h100x8", "bursty", ("ttft p99 2 s", "tpot p99 100 ms"), 2_000),
    ("a100x8", "self_consistency", ("e2e p90 30 s",), 500),
    ("a100x8", "rag", ("ttft p99 2 s", "tpot p99 90 ms"), 20_000),
    ("h100x8", "chat", ("ttft p99 500 ms", "tpot p99 40 ms"), 20_000),
)
"""Cluster, workload, objectives, requests of a run."""
NUM_SEEDS = 3


def bisected(scenario: Scenario) -> tuple[float, int, float]:
    """Capacity, runs and CPU seconds of bisection between next to nothing and what is served, each run to its end."""
    began_s = process_time()
    prober = Prober(Setting(scenario, Criterion(), early_stop=False))
    high = prober.ladder.below(prober.served_per_s()) + 1
    assert not prober.attempt(high).passed
    low = prober.ladder.below(NEXT_TO_NOTHING * prober.served_per_s())
    assert prober.attempt(low).passed
    while high - low > 1:
        middle = (low + high) // 2
        if prober.attempt(middle).passed:
            low = middle
        else:
            high = middle
    prober.limit_row(low)
    return prober.ladder.value(low), sum(row["outcome"] != BACKLOG for row in prober.rows), process_time() - began_s


def searched(scenario: Scenario, hint: Hint, *, early_stop: bool = True) -> tuple[SeedCapacity, float]:
    """What the search finds, and its CPU seconds."""
    began_s = process_time()
    found = find_capacity(CapacityTask(0, scenario, Criterion(), early_stop=early_stop, hint=hint))
    return found, process_time() - began_s


def main() -> None:
    """A table for docs/capacity.md."""
    lines = [
        "| | bisection: runs, s | search: runs, s | with early stop: runs (stopped), s |",
        "|---|---|---|---|",
    ]
    for cluster, workload, slo, num_requests in CASES:
        loaded = load_scenario(cluster, workload, overrides=[f"workload.traffic.num_requests={num_requests}"])
        promised = loaded.workload.model_copy(update={"slo": slo_of(slo)})
        warm_up(loaded)
        totals = {"plain": [0, 0.0], "whole": [0, 0.0], "early": [0, 0.0]}
        num_stopped = 0
        hints = {"whole": Hint(), "early": Hint()}
        for seed in range(1, NUM_SEEDS + 1):
            scenario = loaded.model_copy(update={"workload": promised, "seed": seed})
            capacity, num_runs, took_s = bisected(scenario)
            totals["plain"] = [totals["plain"][0] + num_runs, totals["plain"][1] + took_s]
            for name in ("whole", "early"):
                found, took_s = searched(scenario, hints[name], early_stop=name == "early")
                assert found.low == capacity, (cluster, workload, seed, found.low, capacity)
                hints[name] = Hint(load=found.low)
                runs = [row for row in found.probes if row["outcome"] != BACKLOG]
                totals[name] = [totals[name][0] + len(runs), totals[name][1] + took_s]
                num_stopped += sum(row["outcome"] == STOPPED for row in runs)
        (plain, plain_s), (whole, whole_s), (early, early_s) = totals["plain"], totals["whole"], totals["early"]
        text = f"`{workload}` on `{cluster}`, {', '.join(slo)}, {num_requests:,} requests"
        lines.append(
            f"| {text} | {plain:g}, {plain_s:.1f} | {whole:g}, {whole_s:.1f} | "
            f"{early:g} ({num_stopped}), {early_s:.1f} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
