"""What is wrong with axes, constraints and sampling beyond their schema: names that do not exist, values that clash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed, shown
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.constraint import Constraint
from hermes_sim.scenario.document import Document, KeyPath
from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.facts import FACTS, ROOTS
from hermes_sim.scenario.library import FileKind, NotFound, find
from hermes_sim.scenario.overrides import override_of
from hermes_sim.scenario.study_metrics import METRICS, metric_of
from hermes_sim.scenario.sweep import TIER, SweepFile

RESERVED = ("seed", "status", "error", "scenario", "wall_time_s", TIER)
"""Columns of the table that an axis cannot be called."""

Found = tuple[KeyPath, str]


def check_sweep(sweep: SweepFile, document: Document) -> list[Problem]:
    """Names of files, axes, values and metrics, and keys to be set."""
    return [document.problem(path, message) for path, message in in_sweep(sweep, document)]


def in_sweep(sweep: SweepFile, document: Document) -> Iterator[Found]:
    """What is wrong with a sweep, and where."""
    drawn = drawn_axes(sweep)
    yield from in_explored(sweep, document, drawn)
    yield from _sampling(sweep, drawn)
    yield from in_points(sweep.reference, own_values(sweep), ("reference",))
    for index, name in enumerate(sweep.by):
        yield from in_metric(name, ("by", index))


def in_explored(explored: Explored, document: Document, drawn: Sequence[str]) -> Iterator[Found]:
    """What is wrong with a base, its axes and its constraints. drawn: axes whose range needs no spacing."""
    yield from _files(explored, document)
    yield from _axes(explored, drawn)
    yield from in_sets(explored.base.overrides, ("base", "set"))
    for index, axis in enumerate(explored.axes):
        for position, value in enumerate(axis.values):
            yield from in_sets(value.overrides, ("axes", index, "values", position, "set"))
        if axis.range is not None:
            yield from in_sets(dict.fromkeys(axis.key, ""), ("axes", index), at_key="key")
    yield from _zipped(explored, drawn)
    for index, constraint in enumerate(explored.constraints):
        yield from _constraint(constraint, explored.axes, ("constraints", index))
    for index, skip in enumerate(explored.skip):
        yield from in_wheres(skip.when, own_values(explored), ("skip", index, "when"))


def own_values(explored: Explored) -> dict[str, tuple[str, ...]]:
    """Axis -> names of its values; none where it can be any number."""
    return {axis.name: axis.names for axis in explored.axes}


def drawn_axes(sweep: SweepFile) -> tuple[str, ...]:
    """Names of the axes whose values are drawn at random."""
    if not sweep.sampling.draws:
        return ()
    with_range = tuple(axis.name for axis in sweep.axes if axis.range is not None)
    return sweep.sampling.axes or with_range or tuple(axis.name for axis in sweep.axes)


def named_files(explored: Explored) -> Iterator[tuple[KeyPath, FileKind, str]]:
    """Every cluster and workload that is named: where, which kind, under which name."""
    yield ("base", "cluster"), "cluster", explored.base.cluster
    yield ("base", "workload"), "workload", explored.base.workload
    for index, axis in enumerate(explored.axes):
        for position, value in enumerate(axis.values):
            path = ("axes", index, "values", position)
            if value.cluster is not None:
                yield (*path, "cluster"), "cluster", value.cluster
            if value.workload is not None:
                yield (*path, "workload"), "workload", value.workload


def _files(explored: Explored, document: Document) -> Iterator[Found]:
    for path, kind, name in named_files(explored):
        try:
            find(kind, name, document.path)
        except NotFound as missing:
            yield path, str(missing)


def _axes(explored: Explored, drawn: Sequence[str]) -> Iterator[Found]:
    seen: dict[str, tuple[str, ...]] = {}
    for index, axis in enumerate(explored.axes):
        path: KeyPath = ("axes", index)
        if axis.name in seen or axis.name in (*RESERVED, *FACTS) or metric_of(axis.name) is not None:
            reason = "is another axis" if axis.name in seen else "is a column of the table"
            yield (*path, "name"), f"{axis.name!r} {'is a fact of every scenario' if axis.name in FACTS else reason}"
        if axis.range is not None and axis.range.numbers is None and axis.name not in drawn:
            message = "needs num or step: how its numbers are spaced (or sampling that draws them)"
            yield (*path, "range"), message
        for name in axis.when:
            if name not in seen and name in (one.name for one in explored.axes):
                yield (*path, "when", name), f"{name!r} must stand before {axis.name!r}, whose axis depends on it"
        known = {name: values for name, values in seen.items() if name in axis.when}
        unknown = {name: names for name, names in axis.when.items() if name not in own_values(explored)}
        yield from in_wheres({name: axis.when[name] for name in known}, known, (*path, "when"))
        yield from in_wheres(unknown, seen, (*path, "when"))
        yield from _values(axis, path)
        seen[axis.name] = axis.names


def _values(axis: Axis, path: KeyPath) -> Iterator[Found]:
    names: set[str] = set()
    for index, value in enumerate(axis.values):
        here = (*path, "values", index)
        if value.name in names:
            yield here, f"another value is called {value.name!r} as well"
        names.add(value.name)
        if not value.model_fields_set & {"cluster", "workload", "overrides"}:
            yield here, f"{value.name!r} changes nothing: needs set, cluster or workload, or a `key` at the axis"


def _zipped(explored: Explored, drawn: Sequence[str]) -> Iterator[Found]:
    axes = {axis.name: axis for axis in explored.axes}
    grouped: set[str] = set()
    for index, group in enumerate(explored.zipped):
        path: KeyPath = ("zipped", index)
        yield from in_axis_names(group, axes, path)
        for name in group:
            if name in grouped:
                yield path, f"{name!r} moves with other axes already"
            if name in drawn:
                yield path, f"{name!r} is drawn: it cannot move with others"
            if name in axes and axes[name].when:
                yield path, f"{name!r} is not everywhere (when): it cannot move with others"
            grouped.add(name)
        yield from _equally_long([axes[name] for name in group if name in axes], path)


def _equally_long(axes: Sequence[Axis], path: KeyPath) -> Iterator[Found]:
    lengths = {axis.name: len(axis.names) for axis in axes}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        yield path, f"axes that move together need as many values each, got {counts}"


def _sampling(sweep: SweepFile, drawn: Sequence[str]) -> Iterator[Found]:
    yield from in_axis_names(sweep.sampling.axes, own_values(sweep), ("sampling", "axes"))
    if sweep.sampling.kind == "zip":
        yield from _equally_long(sweep.axes, ("sampling", "kind"))
        if sweep.zipped or any(axis.when for axis in sweep.axes):
            yield ("sampling", "kind"), "zip moves all axes together: it takes neither `zipped` nor axes with `when`"


def _constraint(constraint: Constraint, axes: Sequence[Axis], path: KeyPath) -> Iterator[Found]:
    names = [*(axis.name for axis in axes), *FACTS]
    for name in constraint.expression.names:
        if name not in names:
            text = f"{name!r} is neither an axis nor a fact ({listed(names)})"
            yield path, f"{text}.{did_you_mean(name, names) or ' Text needs quotes.'}"
    for key in constraint.expression.paths:
        root = key.replace("[", ".").split(".")[0]
        if root not in ROOTS:
            yield path, f"a key starts with {listed(ROOTS)}, got {shown(key)}.{did_you_mean(root, ROOTS)}"


def in_sets(sets: Mapping[str, object], path: KeyPath, *, at_key: str | None = None) -> Iterator[Found]:
    """Every key that is set starts with `cluster.` or `workload.`. at_key: where keys stand that are no mapping's."""
    for key, value in sets.items():
        try:
            override_of(key, value, "")
        except ConfigError as error:
            yield (*path, at_key or key), error.problems[0].message


def in_axis_names(names: Sequence[str], values: Mapping[str, object], path: KeyPath) -> Iterator[Found]:
    """Names that should be of axes."""
    for name in names:
        if name not in values:
            yield path, f"{name!r} is not an axis ({listed(values)}).{did_you_mean(name, values)}"


def in_wheres(
    where: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]], path: KeyPath
) -> Iterator[Found]:
    """Parts of a grid: axes and values that should exist."""
    yield from in_axis_names(list(where), values, path)
    for axis, names in where.items():
        for name in names:
            known = values.get(axis)
            if known is not None and name not in known:
                message = f"{name!r} is not a value of {axis} ({listed(known)}).{did_you_mean(name, known)}"
                yield (*path, axis), message


def in_points(point: Mapping[str, str], values: Mapping[str, Sequence[str]], path: KeyPath) -> Iterator[Found]:
    """One value each of some axes."""
    yield from in_wheres({axis: (value,) for axis, value in point.items()}, values, path)


def in_metric(name: str, path: KeyPath) -> Iterator[Found]:
    """A name that should be a metric's."""
    if metric_of(name) is None:
        yield path, f"{name!r} is not a metric ({listed(METRICS)}).{did_you_mean(name, METRICS)}"
