"""How long a start takes: `python -m benchmarks.startup [--cold]`. Wall and CPU time, the shortest of five.

Measured from outside, as a person sees it: the command's help, an import, the main job up to its first event and to its
end. `--cold` also runs the main job with an empty cache of machine code, once.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

REPEATS = 5
MAIN_JOB = ("--cluster", "a100x8.yaml", "--workload", "rag.yaml", "--quiet", "--out")
TO_FIRST_EVENT = """
import os, sys
from hermes_sim import cli
from hermes_sim.sim.clock import Clock

def stop(self):
    os._exit(0)

Clock.step = stop
cli.main(sys.argv[1:])
"""
"""Ends the process where the first event would be taken from the queue."""


@dataclass(frozen=True, slots=True, order=True)
class Taken:
    """What one process took. On a busy machine the CPU time is nearer to the wall time of a quiet one."""

    wall_s: float
    cpu_s: float


def seconds(*arguments: str, environment: Mapping[str, str] | None = None, status: int = 0) -> Taken:
    """Time of one Python process."""
    before_s, started_s = _children_cpu_s(), perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **(environment or {})}, capture_output=True, check=False
    )
    taken = Taken(perf_counter() - started_s, _children_cpu_s() - before_s)
    if done.returncode != status:
        raise RuntimeError(f"{arguments}: status {done.returncode}\n{done.stderr.decode()}")
    return taken


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(*, cold: bool = False) -> dict[str, Taken]:
    """What -> seconds."""
    with tempfile.TemporaryDirectory() as folder:
        job = [*MAIN_JOB, os.path.join(folder, "run")]
        runs = {
            "`hermes-sim --help`": ["-m", "hermes_sim", "--help"],
            "`import hermes_sim`": ["-c", "import hermes_sim"],
            "main job to its first event": ["-c", TO_FIRST_EVENT, *job],
            "main job, whole command (2,000 RAG requests, saved)": ["-m", "hermes_sim", *job],
        }
        found = {}
        for name, arguments in runs.items():
            seconds(*arguments)  # fills the caches
            found[name] = min(seconds(*arguments) for _ in range(REPEATS))
        if cold:
            empty = {"HERMES_CACHE": os.path.join(folder, "empty")}
            found["main job, first ever, compiling"] = seconds("-m", "hermes_sim", *job, environment=empty)
        return found


def render(found: Mapping[str, Taken]) -> str:
    """As docs/performance.md has it."""
    rows = [f"| {name} | {taken.wall_s:.2f} | {taken.cpu_s:.2f} |" for name, taken in found.items()]
    return "\n".join(["| | wall, s | CPU, s |", "|---|---|---|", *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How long a start takes.")
    parser.add_argument("--cold", action="store_true", help="also with an empty cache of machine code")
    sys.stdout.write(render(measure(cold=parser.parse_args(arguments).cold)) + "\n")


if __name__ == "__main__":
    main()
