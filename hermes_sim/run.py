"""One scenario in, results out: the simulation, the lone requests an SLO may refer to, replications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd

from hermes_sim import __version__
from hermes_sim.analysis.frames import is_finished, run_frames
from hermes_sim.analysis.objectives import needs_unloaded, objectives_of
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.unloaded import COLUMNS, MIN_SPACING_S, SPACING_FACTOR, lone_requests, lone_scenario
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.workload.generate import generate_requests

Progress = Callable[[float, int, int], None]
"""(simulated_s, num_done, num_requests), called now and then during a run."""

File = str | Path | dict[str, Any]


def run_scenario(scenario: Scenario, *, progress: Progress | None = None) -> Results:
    """Simulates one scenario. Equal scenarios give equal results, byte for byte; nothing is written.

    Raises TraceError if the traffic cannot be read, SimulationError if the run cannot go on.
    """
    started_s = perf_counter()
    tables = simulate_scenario(scenario, progress=progress)
    unloaded = None
    if needs_unloaded(objectives_of(scenario.workload.slo)):
        unloaded = unloaded_latencies(scenario, run_frames(tables)["requests"])
    wall_time_s = perf_counter() - started_s
    return Results.from_tables(tables, scenario, version=__version__, unloaded=unloaded, wall_time_s=wall_time_s)


def unloaded_latencies(scenario: Scenario, loaded: pd.DataFrame) -> pd.DataFrame:
    """Latencies of the scenario's requests alone on its cluster, one after the other (columns: unloaded.COLUMNS).

    loaded: the requests of the loaded run, whose longest E2E sets how far apart they must be.
    """
    longest_s = float(loaded["e2e_s"].max()) if loaded["e2e_s"].notna().any() else 0.0
    requests = generate_requests(scenario.workload.traffic, scenario.seed)
    alone = lone_requests(requests, max(MIN_SPACING_S, SPACING_FACTOR * longest_s))
    lone = run_frames(simulate_scenario(lone_scenario(scenario), requests=alone))["requests"]
    return lone.loc[is_finished(lone), COLUMNS].reset_index(drop=True)


def run_replications(scenario: Scenario, num: int, *, progress: Progress | None = None) -> Results:
    """Results of the scenario; with num > 1 also the headline metrics under the seeds after its own, num in all."""
    results, *others = [
        run_scenario(scenario.model_copy(update={"seed": scenario.seed + index}), progress=progress)
        for index in range(num)
    ]
    return results.with_replications(others) if others else results


def simulate(
    cluster: File,
    workload: File,
    *,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    replications: int = 1,
    exact_steps: bool = False,
) -> Results:
    """Simulates a workload on a cluster: files, names in the library, or their content as dictionaries.

    overrides: `cluster.KEY=VALUE` or `workload.KEY=VALUE`, any key of either file. seed: instead of the workload's.
    replications: runs with consecutive seeds; the tables are those of the first. exact_steps: one event per engine
    step, slower, the same results.
    Raises ConfigError with every problem of the input, TraceError, SimulationError.
    """
    scenario = load_scenario(cluster, workload, overrides=overrides, seed=seed, exact_steps=exact_steps)
    return run_replications(scenario, replications)
