"""One scenario in, results out: the simulation, the lone requests an SLO may refer to, replications in processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from hermes_sim import __version__
from hermes_sim.core.errors import HermesError
from hermes_sim.processes import Report, can_fork, map_in_processes, num_cores
from hermes_sim.scenario.load import Overrides, load_scenario
from hermes_sim.scenario.python_policies import with_policies
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.requests import request_table

if TYPE_CHECKING:
    import pandas as pd

    from hermes_sim.analysis.results import Results
    from hermes_sim.batching.python_batching import PythonBatching
    from hermes_sim.routing.python_routing import PythonRouting
    from hermes_sim.scenario.own_devices import DeviceLike

Progress = Callable[[float, int, int], None]
"""(simulated_s, num_done, num_requests), called now and then during a run."""

File = str | Path | dict[str, Any]
Taken = TypeVar("Taken")


def run_scenario(scenario: Scenario, *, steps: bool = False, progress: Progress | None = None) -> Results:
    """Simulates one scenario. Equal scenarios give equal results, byte for byte; nothing is written.

    steps: record every step and decision of the token engines, with one event per step (the same results, slower).
    Raises TraceError if the traffic cannot be read, SimulationError if the run cannot go on.
    """
    started_s = perf_counter()
    if steps:
        scenario = scenario.model_copy(update={"exact_steps": True})
    tables = simulate_scenario(scenario, steps=steps, progress=progress)
    # pandas is loaded while nobody waits for the first event any more
    from hermes_sim.analysis.frames import run_frames
    from hermes_sim.analysis.objectives import needs_unloaded, objectives_of
    from hermes_sim.analysis.results import Results

    unloaded = None
    if needs_unloaded(objectives_of(scenario.workload.promises())):
        unloaded = unloaded_latencies(scenario, run_frames(tables)["requests"])
    wall_time_s = perf_counter() - started_s
    return Results.from_tables(tables, scenario, version=__version__, unloaded=unloaded, wall_time_s=wall_time_s)


def unloaded_latencies(scenario: Scenario, loaded: pd.DataFrame) -> pd.DataFrame:
    """Latencies of the scenario's requests alone on its cluster, one after the other (columns: unloaded.COLUMNS).

    loaded: the requests of the loaded run, whose longest E2E sets how far apart they must be.
    """
    from hermes_sim.analysis.frames import is_finished, run_frames
    from hermes_sim.analysis.unloaded import COLUMNS, MIN_SPACING_S, SPACING_FACTOR, lone_requests, lone_scenario

    longest_s = float(loaded["e2e_s"].max()) if loaded["e2e_s"].notna().any() else 0.0
    requests = generate_requests(scenario.workload.traffic, scenario.seed)
    alone = lone_requests(requests, max(MIN_SPACING_S, SPACING_FACTOR * longest_s))
    lone = run_frames(simulate_scenario(lone_scenario(scenario), requests=alone))["requests"]
    return lone.loc[is_finished(lone), COLUMNS].reset_index(drop=True)


def map_scenarios(
    scenarios: Sequence[Scenario],
    take: Callable[[Results], Taken],
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Taken]:
    """`take(results)` of every scenario, in their order, equal to what one process after the other gives.

    take: what is kept of a run; it is called where the run was, and only its value is sent. jobs: processes at once,
    each with the memory of one run; by default as many as there are cores, or 1 where processes cannot be forked.
    With several jobs elsewhere, `take` must be a function of a module. progress: over all scenarios together.
    Raises what a run raises, when it is its turn.
    """
    if jobs is None:
        jobs = num_cores() if can_fork() else 1
    told = _Together(len(scenarios), progress) if progress is not None else None
    if min(jobs, len(scenarios)) <= 1:
        for index, scenario in enumerate(scenarios):
            yield take(run_scenario(scenario, progress=None if told is None else partial(told, index)))
        return
    warm_up(scenarios[0])
    yield from map_in_processes(partial(_run_and_take, take), scenarios, jobs=jobs, on_report=told)


def _run_and_take(take: Callable[[Results], Taken], scenario: Scenario, report: Report) -> Taken:
    return take(run_scenario(scenario, progress=report))


def warm_up(scenario: Scenario) -> None:
    """Two short requests through the scenario's cluster: everything compiled is then loaded, or on disk.

    Workers that are forked afterwards share it; others find it on disk.
    """
    from hermes_sim.core.compiled import is_warm

    if can_fork() or not is_warm():
        import hermes_sim.analysis.results  # noqa: F401  (with pandas: also for the workers)

        simulate_scenario(scenario, requests=request_table([0.0, 0.0], [16, 16], [3, 3]))


class _Together:
    """Progress of several runs as that of one: what runs have not told yet is taken to be as long as the first."""

    def __init__(self, num_runs: int, progress: Progress) -> None:
        self._progress = progress
        self._simulated_s = 0.0
        self._num_done = [0] * num_runs
        self._num_requests: list[int | None] = [None] * num_runs

    def __call__(self, index: int, simulated_s: float, num_done: int, num_requests: int) -> None:
        self._simulated_s = max(self._simulated_s, simulated_s)
        self._num_done[index], self._num_requests[index] = num_done, num_requests
        total = sum(num_requests if number is None else number for number in self._num_requests)
        self._progress(self._simulated_s, sum(self._num_done), total)


def run_replications(
    scenario: Scenario,
    num: int,
    *,
    jobs: int | None = None,
    steps: bool = False,
    progress: Progress | None = None,
) -> Results:
    """Results of the scenario; with num > 1 also the headline metrics under the seeds after its own, num in all.

    jobs: processes at once, by default as many as there are cores; the results are the same for any number. steps: as
    in run_scenario, of a single run only. Raises HermesError for steps of several.
    """
    if steps and num > 1:
        raise HermesError("steps are recorded of one run: leave out replications, or steps")
    seeds = range(scenario.seed, scenario.seed + num)
    scenarios = [scenario.model_copy(update={"seed": seed}) for seed in seeds]
    if num == 1:
        return run_scenario(scenarios[0], steps=steps, progress=progress)
    first, *others = map_scenarios(scenarios, partial(_whole_or_headlines, scenario.seed), jobs=jobs, progress=progress)
    assert not isinstance(first, dict)
    return first.with_replications([one for one in others if isinstance(one, dict)])


def _whole_or_headlines(first_seed: int, results: Results) -> Results | dict[str, float]:
    """The tables only of the replication that is shown."""
    return results if results.seed == first_seed else results.headlines


def simulate(
    cluster: File,
    workload: File,
    *,
    overrides: Overrides = (),
    seed: int | None = None,
    replications: int = 1,
    jobs: int | None = None,
    exact_steps: bool = False,
    steps: bool = False,
    batching: Mapping[str, PythonBatching] | None = None,
    routing: PythonRouting | Mapping[str, PythonRouting] | None = None,
    devices: Mapping[str, DeviceLike] | None = None,
) -> Results:
    """Simulates a workload on a cluster: files, names in the library, or their content as dictionaries.

    overrides: {"cluster.KEY": value, "workload.KEY": value}, any key of either file; or a list of "cluster.KEY=VALUE"
    as on the command line. seed: instead of the workload's.
    replications: runs with consecutive seeds; the tables are those of the first. jobs: processes for them at once, by
    default as many as there are cores. exact_steps: one event per engine step, slower, the same results. steps: with
    it, also the tables `steps` and `decisions`: what was decided in every step.
    batching: engine name -> policy of your own, which takes the common options of the engine's file. routing: a router
    of your own, for all stages or by name or kind of stage (docs/writing-a-policy.md). devices: profile that the
    cluster names -> device that stands for it, as `hermes_sim.device` makes one, or a mapping like a device file.
    Raises ConfigError with every problem of the input, TraceError, SimulationError.
    """
    scenario = load_scenario(
        cluster, workload, overrides=overrides, seed=seed, exact_steps=exact_steps, devices=devices
    )
    if batching or routing is not None:
        scenario = with_policies(scenario, batching, routing)
    return run_replications(scenario, replications, jobs=jobs, steps=steps)
