"""Files of what is explored: found, checked, and with the clusters and workloads that lie beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hermes_sim.core.errors import ConfigError, Problem
from hermes_sim.scenario.document import Document
from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.files import FileOrMapping, find_document
from hermes_sim.scenario.library import FileKind, find
from hermes_sim.scenario.validate import validate

E = TypeVar("E", bound=Explored)


def load_described(
    kind: FileKind, schema: type[E], given: FileOrMapping, check: Callable[[E, Document], list[Problem]]
) -> E:
    """What a file describes, by its name in the library, its path or its content.

    check: what is wrong beyond the schema. Raises ConfigError with every problem of it.
    """
    document = find_document(kind, given)
    described = validate(schema, document)
    problems = check(described, document)
    if problems:
        raise ConfigError(problems)
    return described if document.path is None else _with_files_beside(described, document.path)


def _with_files_beside(explored: E, path: Path) -> E:
    """What the file at `path` describes, with the paths of the clusters and workloads that lie in its folder."""
    base = explored.base.model_copy(update=_beside(explored.base.cluster, explored.base.workload, path))
    axes = []
    for axis in explored.axes:
        values = [value.model_copy(update=_beside(value.cluster, value.workload, path)) for value in axis.values]
        axes.append(axis.model_copy(update={"values": tuple(values)}))
    return explored.model_copy(update={"base": base, "axes": tuple(axes)})


def _beside(cluster: str | None, workload: str | None, path: Path) -> dict[str, str]:
    found = {
        "cluster": None if cluster is None else find("cluster", cluster, path),
        "workload": None if workload is None else find("workload", workload, path),
    }
    return {kind: str(file) for kind, file in found.items() if file is not None and file.parent == path.parent}
