"""One run of the simulator, timed: lowering, event loop and result tables in CPU seconds."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from time import process_time
from typing import Any

from hermes_sim import Scenario
from hermes_sim.sim.collect import collect
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.workload.generate import generate_requests


@dataclass(frozen=True, slots=True)
class TimedRun:
    """CPU seconds of a run's parts; and what came of it."""

    lowering_s: float
    loop_s: float
    tables_s: float
    lowered: Lowered
    tables: Any

    @property
    def run_s(self) -> float:
        """What grows with the requests while the clock runs: the event loop and the result tables."""
        return self.loop_s + self.tables_s


def time_run(scenario: Scenario) -> TimedRun:
    """From a loaded scenario to its tables."""
    gc.collect()
    started_s = process_time()
    lowered = lower(scenario, generate_requests(scenario.workload.traffic, scenario.seed))
    coordinator = Coordinator(lowered)
    lowered_s = process_time()
    coordinator.run()
    ran_s = process_time()
    tables = collect(coordinator)
    return TimedRun(lowered_s - started_s, ran_s - lowered_s, process_time() - ran_s, lowered, tables)
