"""Clocks of a call that runs on several threads: the wall's, or the CPU time of the thread that worked longest.

Where other processes want the same cores, wall time measures them. The busiest thread's CPU time is how long the call
would have taken with cores of its own, up to what threads wait for each other.
"""

from __future__ import annotations

from pathlib import Path
from threading import get_native_id
from time import perf_counter, thread_time
from typing import Final

TASKS: Final = Path("/proc/self/task")
NANOSECOND_S: Final = 1e-9


class WallClock:
    """The host's clock."""

    def __init__(self) -> None:
        self._start_s = 0.0

    def start(self) -> None:
        """From now on."""
        self._start_s = perf_counter()

    def elapsed_s(self) -> float:
        """Since the start."""
        return perf_counter() - self._start_s


class ThreadClock:
    """CPU seconds of the busiest thread of this process, the calling one included (Linux: schedstat of each task).

    A thread's own figure is up to date when it sleeps, as those of a pool do between calls.
    """

    def __init__(self) -> None:
        self._start_s = 0.0
        self._others_s: dict[str, float] = {}

    def start(self) -> None:
        """From now on."""
        self._others_s = _other_threads_s()
        self._start_s = thread_time()

    def elapsed_s(self) -> float:
        """Since the start, of the thread that ran longest."""
        own_s = thread_time() - self._start_s
        others = _other_threads_s()
        return max(own_s, *(ran_s - self._others_s.get(task, 0.0) for task, ran_s in others.items()), 0.0)


def _other_threads_s() -> dict[str, float]:
    """Thread -> CPU seconds so far, of all but the calling one; empty where the system does not say."""
    own = str(get_native_id())
    found = {}
    if TASKS.exists():
        for task in TASKS.iterdir():
            if task.name != own:
                found[task.name] = int((task / "schedstat").read_text(encoding="ascii").split()[0]) * NANOSECOND_S
    return found
