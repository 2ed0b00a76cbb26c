"""How fast this machine is, in the unit that every figure is compared by: timeouts of a plain SimPy process."""

from __future__ import annotations

import resource
import sys
from collections.abc import Generator
from statistics import median
from time import process_time

import simpy

NUM_TIMEOUTS = 200_000


def simpy_timeouts_per_s() -> float:
    """Timeouts one SimPy process gets through in a CPU second, median of three."""
    return median(_timeouts_per_s() for _ in range(3))


def _timeouts_per_s() -> float:
    def ticks(environment: simpy.Environment) -> Generator[simpy.Event, None, None]:
        for _ in range(NUM_TIMEOUTS):
            yield environment.timeout(1.0)

    environment = simpy.Environment()
    environment.process(ticks(environment))
    started_s = process_time()
    environment.run()
    return NUM_TIMEOUTS / (process_time() - started_s)


def peak_memory_bytes() -> int:
    """The most that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
