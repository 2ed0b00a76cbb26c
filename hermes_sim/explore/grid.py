"""The points of a grid: every combination of the values of its axes, and the scenario of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from hermes_sim.scenario.axis import Axis, AxisValue
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.overrides import Override, override_of
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.study import Skip, StudyBase

GridPoint = Mapping[str, str]
"""Axis -> name of its value, in the order of the axes."""


def grid_points(axes: Sequence[Axis], skip: Sequence[Skip] = ()) -> Iterator[GridPoint]:
    """All combinations, the last axis fastest, without those that are skipped."""
    for values in product(*(axis.names for axis in axes)):
        point = dict(zip((axis.name for axis in axes), values, strict=True))
        if not any(all(point[axis] in names for axis, names in one.when.items()) for one in skip):
            yield point


def point_scenario(
    base: StudyBase,
    axes: Sequence[Axis],
    point: GridPoint,
    *,
    called: str = "study",
    last: Mapping[str, Any] | None = None,
) -> Scenario:
    """The scenario of a point: the base, then what each axis sets, in their order, then `last`. Raises ConfigError.

    called: the study or file, for messages.
    """
    chosen = [next(value for value in axis.values if value.name == point[axis.name]) for axis in axes]
    cluster = next((value.cluster for value in reversed(chosen) if value.cluster is not None), base.cluster)
    workload = next((value.workload for value in reversed(chosen) if value.workload is not None), base.workload)
    overrides = [*_overrides(base.overrides, f"{called} base")]
    for axis, value in zip(axes, chosen, strict=True):
        overrides += _overrides(value.overrides, f"{called} {axis.name} {value.name!r}")
    overrides += _overrides(last or {}, f"{called} set")
    return load_scenario(cluster, workload, overrides=overrides)


def _overrides(sets: Mapping[str, Any], place: str) -> list[Override]:
    return [override_of(key, value, place) for key, value in sets.items()]


def narrowed(axes: Sequence[Axis], only: Mapping[str, Sequence[str]]) -> tuple[Axis, ...]:
    """The axes with the named values alone, where some are named."""
    return tuple(
        axis.model_copy(update={"values": _among(axis.values, only[axis.name])}) if axis.name in only else axis
        for axis in axes
    )


def _among(values: Sequence[AxisValue], names: Sequence[str]) -> tuple[AxisValue, ...]:
    return tuple(value for value in values if value.name in names)
