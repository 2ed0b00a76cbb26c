"""What is wrong with a study file beyond its schema: names of axes, values and metrics that do not exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.document import Document, KeyPath
from hermes_sim.scenario.library import FileKind, NotFound, find
from hermes_sim.scenario.overrides import override_of
from hermes_sim.scenario.study import TIER, StudyFile
from hermes_sim.scenario.study_finding import Best, Crossover, Finding, Rank, Ratio, Trend
from hermes_sim.scenario.study_metrics import METRICS, metric_of

RESERVED = ("seed", "status", "error", "scenario", "wall_time_s", TIER)
"""Columns of the table that an axis cannot be called."""

Found = tuple[KeyPath, str]


def check_study(study: StudyFile, document: Document) -> list[Problem]:
    """Names of files, axes, values, tiers and metrics, and keys to be set."""
    found = [*_files(study, document), *_found(study)]
    return [document.problem(path, message) for path, message in found]


def named_files(study: StudyFile) -> Iterator[tuple[KeyPath, FileKind, str]]:
    """Every cluster and workload that a study names: where, which kind, under which name."""
    yield ("base", "cluster"), "cluster", study.base.cluster
    yield ("base", "workload"), "workload", study.base.workload
    for index, axis in enumerate(study.axes):
        for position, value in enumerate(axis.values):
            path = ("axes", index, "values", position)
            if value.cluster is not None:
                yield (*path, "cluster"), "cluster", value.cluster
            if value.workload is not None:
                yield (*path, "workload"), "workload", value.workload


def _files(study: StudyFile, document: Document) -> Iterator[Found]:
    for path, kind, name in named_files(study):
        try:
            find(kind, name, document.path)
        except NotFound as missing:
            yield path, str(missing)


def _found(study: StudyFile) -> Iterator[Found]:
    yield from _axes(study)
    yield from _sets(study)
    own = {axis.name: axis.names for axis in study.axes}
    values = own | ({TIER: tuple(tier.name for tier in study.tiers)} if study.tiers else {})
    for index, skip in enumerate(study.skip):
        yield from _points(skip.when, own, ("skip", index, "when"))
    yield from _points({axis: (value,) for axis, value in study.reference.items()}, own, ("reference",))
    yield from _points(study.quick.axes, own, ("quick", "axes"))
    if study.best is not None:
        yield from _known(study.best.over, own, ("best", "over"))
        yield from _metric(study.best.by, ("best", "by"))
    for index, figure in enumerate(study.figures):
        path: KeyPath = ("figures", index)
        yield from _table(study, figure.table, path)
        for key, axis in (("x", figure.x), ("series", figure.series), ("facets", figure.facets)):
            if axis is not None:
                yield from _known([axis], values, (*path, key))
        for position, metric in enumerate(figure.y):
            yield from _metric(metric, (*path, "y", position))
        yield from _points(figure.where, values, (*path, "where"))
    for index, finding in enumerate(study.findings):
        yield from _finding(study, finding, values, ("findings", index))


def _axes(study: StudyFile) -> Iterator[Found]:
    seen: set[str] = set()
    for index, axis in enumerate(study.axes):
        path: KeyPath = ("axes", index)
        if axis.name in seen or axis.name in RESERVED or metric_of(axis.name) is not None:
            reason = "is another axis" if axis.name in seen else "is a column of the table"
            yield (*path, "name"), f"{axis.name!r} {reason}"
        seen.add(axis.name)
        yield from _values(axis, path)


def _values(axis: Axis, path: KeyPath) -> Iterator[Found]:
    names: set[str] = set()
    for index, value in enumerate(axis.values):
        here = (*path, "values", index)
        if value.name in names:
            yield here, f"another value is called {value.name!r} as well"
        names.add(value.name)
        if not value.model_fields_set & {"cluster", "workload", "overrides"}:
            yield here, f"{value.name!r} changes nothing: needs set, cluster or workload, or a `key` at the axis"


def _sets(study: StudyFile) -> Iterator[Found]:
    """Every key that is set anywhere starts with `cluster.` or `workload.`."""
    places: list[tuple[KeyPath, Mapping[str, object]]] = [
        (("base", "set"), study.base.overrides),
        (("quick", "set"), study.quick.overrides),
    ]
    for index, axis in enumerate(study.axes):
        places += [(("axes", index, "values", at, "set"), value.overrides) for at, value in enumerate(axis.values)]
    for path, sets in places:
        for key, value in sets.items():
            try:
                override_of(key, value, "")
            except ConfigError as error:
                yield (*path, key), error.problems[0].message


def _finding(study: StudyFile, finding: Finding, values: Mapping[str, Sequence[str]], path: KeyPath) -> Iterator[Found]:
    yield from _table(study, finding.table, path)
    yield from _points(finding.where, values, (*path, "where"))
    yield from _metric(getattr(finding, "by", ""), (*path, "by"))
    if isinstance(finding, Best | Rank):
        yield from _known([finding.of], values, (*path, "of"))
    if isinstance(finding, Crossover | Trend):
        yield from _known([finding.x], values, (*path, "x"))
    if isinstance(finding, Rank):
        yield from _known([finding.per], values, (*path, "per"))
    if isinstance(finding, Best | Crossover | Trend):
        yield from _known(finding.per, values, (*path, "per"))
    if isinstance(finding, Ratio | Crossover):
        for key, point in (("of", finding.of), ("to", finding.to)):
            yield from _points({axis: (value,) for axis, value in point.items()}, values, (*path, key))
        if finding.of.keys() != finding.to.keys():
            yield (*path, "to"), "names other axes than `of`: both must name the same"
    if isinstance(finding, Crossover) and finding.x != TIER:
        axis = next((axis for axis in study.axes if axis.name == finding.x), None)
        if axis is not None and axis.numbers is None:
            yield (*path, "x"), f"{finding.x!r} has values that are no numbers; `x` gives them places"


def _table(study: StudyFile, table: str, path: KeyPath) -> Iterator[Found]:
    if table == "best" and study.best is None:
        yield (*path, "table"), "the study has no `best`"


def _known(axes: Sequence[str], values: Mapping[str, Sequence[str]], path: KeyPath) -> Iterator[Found]:
    for axis in axes:
        if axis not in values:
            yield path, f"{axis!r} is not an axis ({listed(values)}).{did_you_mean(axis, values)}"


def _points(where: Mapping[str, Sequence[str]], values: Mapping[str, Sequence[str]], path: KeyPath) -> Iterator[Found]:
    yield from _known(list(where), values, path)
    for axis, names in where.items():
        for name in names:
            known = values.get(axis)
            if known is not None and name not in known:
                message = f"{name!r} is not a value of {axis} ({listed(known)}).{did_you_mean(name, known)}"
                yield (*path, axis), message


def _metric(name: str, path: KeyPath) -> Iterator[Found]:
    if metric_of(name) is None:
        yield path, f"{name!r} is not a metric ({listed(METRICS)}).{did_you_mean(name, METRICS)}"
