"""What a grid is to run: a scenario for every point and seed, told apart by a hash of all that decides its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hermes_sim.core.errors import ConfigError
from hermes_sim.explore.grid import GridPoint, grid_points, narrowed, point_scenario
from hermes_sim.explore.run_key import run_key
from hermes_sim.scenario.files import files_read_once
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.study import StudyFile, Tier


@dataclass(frozen=True, slots=True)
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

    @property
    def key(self) -> str:
        """Hash of scenario, tiers and program: a row of the same key has the same numbers. Empty without a scenario."""
        if self.scenario is None:
            return ""
        return run_key(self.scenario, self.reference, self.tiers)


def quick_version(study: StudyFile) -> StudyFile:
    """The study as small as its `quick` says."""
    axes = narrowed(study.axes, study.quick.axes)
    return study.model_copy(update={"axes": axes, "replications": study.quick.replications})


def plan_study(study: StudyFile, *, quick: bool = False) -> list[PlannedRun]:
    """The runs of a study, point by point, its seeds together.

    A point whose scenario is wrong is planned as a run that fails. Raises ConfigError where all are wrong, and where
    the values of `reference` are.
    """
    with files_read_once():
        return _planned(study, quick)


def _planned(study: StudyFile, quick: bool) -> list[PlannedRun]:
    last = study.quick.overrides if quick else {}
    small = quick_version(study) if quick else study
    planned: list[PlannedRun] = []
    references: dict[tuple[str, ...], Scenario] = {}
    error: ConfigError | None = None
    for point in grid_points(small.axes, study.skip):
        try:
            scenario = point_scenario(study.base, small.axes, point, called=study.name, last=last)
        except ConfigError as wrong:
            error = error or wrong
            planned.append(PlannedRun(point, None, None, problem=str(wrong)))
            continue
        reference = None
        if study.tiers and study.reference:
            at = {**point, **study.reference}
            if tuple(at.values()) not in references:
                references[tuple(at.values())] = point_scenario(
                    study.base, study.axes, at, called=study.name, last=last
                )
            reference = references[tuple(at.values())]
        planned += _replicated(point, scenario, reference, study.tiers, small.replications)
    if error is not None and all(run.scenario is None for run in planned):
        raise error
    return planned


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
