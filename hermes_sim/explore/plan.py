"""What a grid is to run: a scenario for every point and seed, told apart by a hash of all that decides its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.explore.grid import (
    GridPoint,
    narrowed,
    needs_scenario,
    point_scenario,
    sweep_points,
    unfulfilled,
)
from hermes_sim.explore.run_key import run_key
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.files import files_read_once
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.sweep import SweepFile, Tier


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid, or the reason why there can be none."""

    point: GridPoint
    seed: int | None
    """None where no scenario could be made."""
    scenario: Scenario | None
    tiers: tuple[Tier, ...] = ()
    reference: Scenario | None = None
    """Whose unloaded requests the multiples of the tiers refer to; the scenario itself if None."""
    problem: str | None = None

    @cached_property
    def key(self) -> str:
        """Hash of scenario, tiers and program: a row of the same key has the same numbers. Empty without a scenario."""
        if self.scenario is None:
            return ""
        return run_key(self.scenario, self.reference, self.tiers)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a sweep, and what is not run."""

    runs: tuple[PlannedRun, ...]
    """Point by point, its seeds together."""
    left_out: Mapping[str, int]
    """Reason -> number of points: conditions that they do not fulfil."""
    num_twice: int
    """Points that were drawn again, and are run once."""

    @property
    def num_points(self) -> int:
        """That are run, or fail."""
        return len({tuple(run.point.items()) for run in self.runs})


def quick_version(study: StudyFile) -> StudyFile:
    """The study as small as its `quick` says."""
    axes = narrowed(study.axes, study.quick.axes)
    return study.model_copy(update={"axes": axes, "replications": study.quick.replications})


def plan_sweep(
    sweep: SweepFile, *, last: Mapping[str, Any] | None = None, reference_axes: Sequence[Axis] | None = None
) -> Plan:
    """What a sweep runs. last: keys that are set whatever the axes say. reference_axes: where `reference` finds its
    values, if the sweep's own axes are narrowed.

    A point whose scenario is wrong is planned as a run that fails. Raises ConfigError where all are wrong, where a
    condition cannot be worked out or leaves no point, and where the values of `reference` are.
    """
    with files_read_once():
        return _planned(sweep, last or {}, sweep.axes if reference_axes is None else reference_axes)


def _planned(sweep: SweepFile, last: Mapping[str, Any], reference_axes: Sequence[Axis]) -> Plan:
    found = sweep_points(sweep)
    left_out = dict(found.left_out)
    conditions = [one for one in sweep.constraints if needs_scenario(one)]
    runs: list[PlannedRun] = []
    references = _References(sweep, last, reference_axes)
    error: ConfigError | None = None
    for point in found.points:
        try:
            scenario = point_scenario(sweep.base, sweep.axes, point, called=sweep.name, last=last)
        except ConfigError as wrong:
            error = error or wrong
            runs.append(PlannedRun(point, None, None, problem=str(wrong)))
            continue
        reason = unfulfilled(conditions, sweep.axes, point, scenario, called=sweep.name)
        if reason is None:
            runs += _replicated(point, scenario, references.of(point), sweep.tiers, sweep.replications)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    if error is not None and all(run.scenario is None for run in runs):
        raise error
    if not runs:
        reasons = "; ".join(f"{reason}: {number:,}" for reason, number in left_out.items())
        raise ConfigError([Problem(sweep.name, None, "", f"no point is left to run ({reasons})")])
    return Plan(tuple(runs), left_out, found.num_twice)


class _References:
    """The scenarios that `reference` makes of the points, each made once."""

    def __init__(self, sweep: SweepFile, last: Mapping[str, Any], axes: Sequence[Axis]) -> None:
        self._sweep = sweep
        self._axes = axes
        self._last = last
        self._known: dict[tuple[tuple[str, str], ...], Scenario] = {}

    def of(self, point: GridPoint) -> Scenario | None:
        """None where the point is its own reference, or no tier asks for one."""
        sweep = self._sweep
        if not sweep.tiers or not sweep.reference:
            return None
        named = {**point, **sweep.reference}
        at: dict[str, str] = {}
        for axis in self._axes:  # an axis that is at the point need not be there with the values of the reference
            if axis.name in named and axis.exists_at(at):
                at[axis.name] = named[axis.name]
        key = tuple(at.items())
        if key not in self._known:
            self._known[key] = point_scenario(sweep.base, self._axes, at, called=sweep.name, last=self._last)
        return self._known[key]


def _replicated(
    point: GridPoint, scenario: Scenario, reference: Scenario | None, tiers: Sequence[Tier], num: int
) -> list[PlannedRun]:
    return [
        PlannedRun(
            point,
            seed,
            scenario.model_copy(update={"seed": seed}),
            tuple(tiers),
            None if reference is None else reference.model_copy(update={"seed": seed}),
        )
        for seed in range(scenario.seed, scenario.seed + num)
    ]
