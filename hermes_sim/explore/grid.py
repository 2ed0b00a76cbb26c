"""The points of axes: every combination of their values or drawn ones, which of them are left out, and the scenario of
each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.explore.draws import draw_shares
from hermes_sim.scenario.axis import Axis, AxisValue
from hermes_sim.scenario.constraint import Constraint
from hermes_sim.scenario.explored import Base, Skip
from hermes_sim.scenario.expression import Value
from hermes_sim.scenario.facts import FACTS, fact_or_key
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.overrides import Override, override_of
from hermes_sim.scenario.scenario import Scenario
from hermes_sim.scenario.sweep import SweepFile
from hermes_sim.scenario.sweep_checks import drawn_axes

GridPoint = Mapping[str, str]
"""Axis -> name of its value, in the order of the axes; without those that are not there at the point (`when`)."""


@dataclass(frozen=True, slots=True)
class Points:
    """The points of a sweep before any scenario is made, and why others are not among them."""

    points: tuple[GridPoint, ...]
    left_out: Mapping[str, int]
    """Reason -> number of points: conditions on axes, and `skip`."""
    num_twice: int = 0
    """Points that were drawn again, and are run once."""


def sweep_points(sweep: SweepFile) -> Points:
    """All points of a sweep, the last axis fastest, but those that its axes alone rule out.

    Raises ConfigError for a condition that cannot be worked out.
    """
    drawn = drawn_axes(sweep)
    groups = [tuple(axis.name for axis in sweep.axes)] if sweep.sampling.kind == "zip" else sweep.zipped
    on_axes = [one for one in sweep.constraints if not needs_scenario(one)]
    left_out: dict[str, int] = {}
    points: dict[tuple[tuple[str, str], ...], GridPoint] = {}
    num_twice = 0
    for point in _all_points(sweep.axes, groups, _rows(sweep, drawn)):
        reason = skipped(sweep.skip, point) or unfulfilled(on_axes, sweep.axes, point, called=sweep.name)
        if reason is not None:
            left_out[reason] = left_out.get(reason, 0) + 1
        elif (key := tuple(point.items())) in points:
            num_twice += 1
        else:
            points[key] = point
    return Points(tuple(points.values()), left_out, num_twice)


def _rows(sweep: SweepFile, drawn: Sequence[str]) -> list[dict[str, AxisValue]]:
    """For every draw the value of each drawn axis; one empty row without any."""
    if not drawn or sweep.sampling.num is None:
        return [{}]
    axes = [axis for axis in sweep.axes if axis.name in drawn]
    shares = draw_shares(sweep.sampling.kind, sweep.sampling.num, len(axes), sweep.sampling.seed)
    return [{axis.name: axis.value_at_share(share) for axis, share in zip(axes, row, strict=True)} for row in shares]


def _all_points(
    axes: Sequence[Axis], zipped: Sequence[Sequence[str]], rows: Sequence[Mapping[str, AxisValue]]
) -> Iterator[GridPoint]:
    """Every combination of the axes that are not drawn, and at each of them every draw."""
    drawn = rows[0].keys()
    units = list(_units([axis for axis in axes if axis.name not in drawn], zipped))
    known: set[tuple[tuple[str, str], ...]] = set()
    for chosen in product(*units):
        names = {name: value for part in chosen for name, value in part.items()}
        for row in rows:
            full = names | {name: value.name for name, value in row.items()}
            point: dict[str, str] = {}
            for axis in axes:
                if axis.exists_at(point):
                    point[axis.name] = full[axis.name]
            key = tuple(point.items())
            if len(point) == len(axes) or key not in known:  # an axis that is not there is not gone through
                known.add(key)
                yield point


def _units(axes: Sequence[Axis], zipped: Sequence[Sequence[str]]) -> Iterator[list[dict[str, str]]]:
    """For each axis, or group that moves together, its values in order; a group stands where its first axis does."""
    group_of = {name: tuple(group) for group in zipped for name in group}
    done: set[str] = set()
    for axis in axes:
        if axis.name in done:
            continue
        group = group_of.get(axis.name, (axis.name,))
        members = [one for one in axes if one.name in group]
        done |= {one.name for one in members}
        values = zip(*(one.names for one in members), strict=True)
        yield [dict(zip((one.name for one in members), names, strict=True)) for names in values]


def skipped(skip: Sequence[Skip], point: GridPoint) -> str | None:
    """Why the point makes no sense, if the file says so."""
    for one in skip:
        if all(point.get(axis) in names for axis, names in one.when.items()):
            return one.because
    return None


def unfulfilled(
    constraints: Sequence[Constraint],
    axes: Sequence[Axis],
    point: GridPoint,
    scenario: Scenario | None = None,
    *,
    called: str,
) -> str | None:
    """The first condition that the point does not fulfil, in words. Raises ConfigError where one cannot be worked out.

    scenario: of the point, for conditions on facts and keys. called: the sweep or file, for messages.
    """
    for index, constraint in enumerate(constraints):
        try:
            if not _holds(constraint, axes, point, scenario):
                return constraint.words
        except (ValueError, LookupError) as error:
            where = ", ".join(f"{axis} {value}" for axis, value in point.items())
            message = f"{error.args[0]} (at {where})"
            raise ConfigError([Problem(called, None, f"constraints[{index}]", message)]) from None
    return None


def _holds(constraint: Constraint, axes: Sequence[Axis], point: GridPoint, scenario: Scenario | None) -> bool:
    by_name = {axis.name: axis for axis in axes}
    if any(name in by_name and name not in point for name in constraint.expression.names):
        return True

    def lookup(name: str) -> Value:
        if name in by_name:
            number = by_name[name].number_named(point[name])
            return point[name] if number is None else number
        if scenario is None:
            raise LookupError(f"{name} needs a scenario")
        return fact_or_key(scenario, name)

    return constraint.expression.holds(lookup)


def needs_scenario(constraint: Constraint) -> bool:
    """Whether more than the values of axes must be known."""
    expression = constraint.expression
    return bool(expression.paths) or any(name in FACTS for name in expression.names)


def point_scenario(
    base: Base,
    axes: Sequence[Axis],
    point: GridPoint,
    *,
    called: str = "study",
    last: Mapping[str, Any] | None = None,
) -> Scenario:
    """The scenario of a point: the base, then what each axis sets, in their order, then `last`. Raises ConfigError.

    called: the study or file, for messages.
    """
    chosen = [(axis, axis.value_named(point[axis.name])) for axis in axes if axis.name in point]
    values = [value for _, value in reversed(chosen)]
    cluster = next((value.cluster for value in values if value.cluster is not None), base.cluster)
    workload = next((value.workload for value in values if value.workload is not None), base.workload)
    overrides = [*_overrides(base.overrides, f"{called} base")]
    for axis, value in chosen:
        overrides += _overrides(value.overrides, f"{called} {axis.name} {value.name!r}")
    overrides += _overrides(last or {}, f"{called} set")
    return load_scenario(cluster, workload, overrides=overrides)


def _overrides(sets: Mapping[str, Any], place: str) -> list[Override]:
    return [override_of(key, value, place) for key, value in sets.items()]


def narrowed(axes: Sequence[Axis], only: Mapping[str, Sequence[str]]) -> tuple[Axis, ...]:
    """The axes with the named values alone, where some are named."""
    return tuple(
        axis.model_copy(update={"values": _among(axis.choices, only[axis.name]), "range": None})
        if axis.name in only
        else axis
        for axis in axes
    )


def _among(values: Sequence[AxisValue], names: Sequence[str]) -> tuple[AxisValue, ...]:
    return tuple(value for value in values if value.name in names)
