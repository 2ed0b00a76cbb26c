"""What is wrong with a study file beyond its schema: names of axes, values and metrics that do not exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hermes_sim.core.errors import Problem
from hermes_sim.scenario.document import Document, KeyPath
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_finding import Best, Crossover, Finding, Rank, Ratio, Trend
from hermes_sim.scenario.sweep import TIER
from hermes_sim.scenario.sweep_checks import (
    Found,
    in_axis_names,
    in_metric,
    in_points,
    in_sets,
    in_sweep,
    in_wheres,
    own_values,
)


def check_study(study: StudyFile, document: Document) -> list[Problem]:
    """Names of files, axes, values, tiers and metrics, and keys to be set."""
    return [document.problem(path, message) for path, message in (*in_sweep(study, document), *_found(study))]


def _found(study: StudyFile) -> Iterator[Found]:
    own = own_values(study)
    values = own | ({TIER: tuple(tier.name for tier in study.tiers)} if study.tiers else {})
    yield from in_sets(study.quick.overrides, ("quick", "set"))
    yield from in_wheres(study.quick.axes, own, ("quick", "axes"))
    if study.best is not None:
        yield from in_axis_names(study.best.over, own, ("best", "over"))
        yield from in_metric(study.best.by, ("best", "by"))
    for index, figure in enumerate(study.figures):
        path: KeyPath = ("figures", index)
        yield from _table(study, figure.table, path)
        for key, axis in (("x", figure.x), ("series", figure.series), ("facets", figure.facets)):
            if axis is not None:
                yield from in_axis_names([axis], values, (*path, key))
        for position, metric in enumerate(figure.y):
            yield from in_metric(metric, (*path, "y", position))
        yield from in_wheres(figure.where, values, (*path, "where"))
    for index, finding in enumerate(study.findings):
        yield from _finding(study, finding, values, ("findings", index))


def _finding(study: StudyFile, finding: Finding, values: Mapping[str, Sequence[str]], path: KeyPath) -> Iterator[Found]:
    yield from _table(study, finding.table, path)
    yield from in_wheres(finding.where, values, (*path, "where"))
    yield from in_metric(getattr(finding, "by", ""), (*path, "by"))
    if isinstance(finding, Best | Rank):
        yield from in_axis_names([finding.of], values, (*path, "of"))
    if isinstance(finding, Crossover | Trend):
        yield from in_axis_names([finding.x], values, (*path, "x"))
    if isinstance(finding, Rank):
        yield from in_axis_names([finding.per], values, (*path, "per"))
    if isinstance(finding, Best | Crossover | Trend):
        yield from in_axis_names(finding.per, values, (*path, "per"))
    if isinstance(finding, Ratio | Crossover):
        for key, point in (("of", finding.of), ("to", finding.to)):
            yield from in_points(point, values, (*path, key))
        if finding.of.keys() != finding.to.keys():
            yield (*path, "to"), "names other axes than `of`: both must name the same"
    if isinstance(finding, Crossover) and finding.x != TIER:
        axis = next((axis for axis in study.axes if axis.name == finding.x), None)
        if axis is not None and axis.numbers is None:
            yield (*path, "x"), f"{finding.x!r} has values that are no numbers; `x` gives them places"


def _table(study: StudyFile, table: str, path: KeyPath) -> Iterator[Found]:
    if table == "best" and study.best is None:
        yield (*path, "table"), "the study has no `best`"
