"""`profile cpu` and `profile gpu`: kernels and facts of this machine into tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from hermes_sim.profile.backend import Backend, DeviceKind, choose_backend
from hermes_sim.profile.case import interleave
from hermes_sim.profile.machine_facts import (
    measure_collectives,
    measure_copies,
    measure_launches,
    measure_power,
    measure_threads,
)
from hermes_sim.profile.numpy_backend import Clock, NumpyBackend
from hermes_sim.profile.provenance import write_provenance
from hermes_sim.profile.session import Session, Statistic, open_folder, progress_bar
from hermes_sim.profile.shapes import all_cases


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, for the line printed at its end."""

    num_measured: int
    num_found: int
    num_left_out: int
    num_unreached: int

    def words(self, folder: Path) -> str:
        """One line."""
        parts = [f"{self.num_measured} measured"]
        parts += [f"{self.num_found} found from before"] if self.num_found else []
        parts += [f"{self.num_left_out} left out (provenance says why)"] if self.num_left_out else []
        parts += [f"{self.num_unreached} not reached in the budget: run again to go on"] if self.num_unreached else []
        return f"{', '.join(parts)}; saved {folder}"


def profile_cpu(
    out: Path,
    *,
    budget_s: float,
    name: str | None = None,
    statistic: Statistic = "median",
    clock: Clock = "wall",
    shown: bool = False,
) -> Outcome:
    """NumPy and its BLAS on this machine's CPU: products, attention, norms, experts, streams by size and threads."""
    facts = (measure_threads, measure_copies)
    return _profile("cpu", NumpyBackend(clock), facts, out, budget_s, name, statistic, shown)


def profile_gpu(
    out: Path,
    *,
    budget_s: float,
    device: DeviceKind = "cuda",
    name: str | None = None,
    statistic: Statistic = "median",
    shown: bool = False,
) -> Outcome:
    """PyTorch's kernels: products per dtype, attention, experts, streams, copies, launches, all-reduce, power."""
    backend = choose_backend(device)
    facts = (measure_launches, measure_copies, measure_collectives, measure_power)
    return _profile("gpu", backend, facts, out, budget_s, name, statistic, shown)


def _profile(
    kind: str,
    backend: Backend,
    facts: tuple[Callable[[Session], None], ...],
    out: Path,
    budget_s: float,
    name: str | None,
    statistic: Statistic,
    shown: bool,
) -> Outcome:
    end_s = perf_counter() + budget_s
    session = Session(backend, open_folder(out), name or backend.device_name, end_s, statistic)
    try:
        for measure in facts:
            if session.in_time:
                measure(session)
        cases = list(interleave(all_cases(backend, large=backend.captures)))
        with progress_bar(shown) as progress:
            session.run(cases, progress)
    finally:
        session.save()
        write_provenance(session.folder, kind, session, budget_s)
    num_left_out = sum(left.num_shapes for left in session.not_measured)
    return Outcome(session.num_measured, session.num_found, num_left_out, session.num_unreached)
