"""The clock: the only code that knows SimPy. A Scenario goes in, result tables come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_sim.core.tables import RunTables
    from hermes_sim.scenario.scenario import Scenario
    from hermes_sim.sim.so_far import StopWhen
    from hermes_sim.workload.requests import RequestTable

__all__ = ["simulate_scenario"]


def simulate_scenario(
    scenario: Scenario,
    *,
    requests: RequestTable | None = None,
    steps: bool = False,
    progress: Callable[[float, int, int], None] | None = None,
    stop_when: StopWhen | None = None,
) -> RunTables:
    """Run a scenario to its end. Pure: the same scenario gives the same tables, byte for byte.

    `requests` stand in for the traffic of the workload file, if given. `steps`: record every step and decision of the
    token engines, with one event per step.
    `progress(simulated_s, num_done, num_requests)` is called about ten times a second. `stop_when(so_far)`: asked at
    some arrivals why the run need not go on (sim/so_far.py); RunStopped is raised then. Raises SimulationError where
    the run cannot go on.
    """
    # compiled code is loaded on the first run, not when a schema or a step function is imported
    from hermes_sim.sim.collect import collect
    from hermes_sim.sim.coordinator import Coordinator
    from hermes_sim.sim.lower import lower
    from hermes_sim.workload.generate import generate_requests

    if requests is None:
        requests = generate_requests(scenario.workload.traffic, scenario.seed)
    coordinator = Coordinator(lower(scenario, requests), progress, steps=steps, stop_when=stop_when)
    coordinator.run()
    return collect(coordinator)
