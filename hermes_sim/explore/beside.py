"""Clusters and workloads that lie beside the file that names them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from hermes_sim.scenario.explored import Explored
from hermes_sim.scenario.library import find

E = TypeVar("E", bound=Explored)


def with_files_beside(explored: E, path: Path) -> E:
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
