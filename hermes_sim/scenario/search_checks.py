"""What is wrong with a search file beyond its schema: names that do not exist, limits without a meaning."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_sim.core.errors import Problem
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.search import SearchFile, limit_number
from hermes_sim.scenario.study_metrics import metric_of
from hermes_sim.scenario.sweep_checks import Found, in_explored, in_metric

COLUMNS = ("trial", "reason", "requests_frac", "num_runs", "excess", "num_seeds", "on_front", "is_knee")
"""Of the tables of a search, beside those of all tables: an axis cannot be called so."""


def check_search(search: SearchFile, document: Document) -> list[Problem]:
    """Names of files, axes, values and metrics, keys to be set, limits."""
    return [document.problem(path, message) for path, message in _found(search, document)]


def _found(search: SearchFile, document: Document) -> Iterator[Found]:
    with_range = [axis.name for axis in search.axes if axis.range is not None]
    yield from in_explored(search, document, with_range)
    for index, axis in enumerate(search.axes):
        if axis.name in COLUMNS:
            yield ("axes", index, "name"), f"{axis.name!r} is a column of the table"
    if search.zipped:
        yield ("zipped",), "a search has no axes that move together: give one axis values that set several keys"
    seen: set[str] = set()
    for index, objective in enumerate(search.objectives):
        yield from in_metric(objective.metric, ("objectives", index))
        if objective.metric in seen:
            yield ("objectives", index), f"{objective.metric!r} is an objective already"
        seen.add(objective.metric)
    for metric, limit in search.within.items():
        yield from in_metric(metric, ("within", metric))
        try:
            if metric_of(metric) is not None:
                limit_number(metric, limit)
        except ValueError as error:
            yield ("within", metric), str(error)
