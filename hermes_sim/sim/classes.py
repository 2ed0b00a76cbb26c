"""Which class each request belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.scenario.workload import WorkloadFile

IntArray = npt.NDArray[np.int64]


def draw_classes(workload: WorkloadFile, request_pipeline: IntArray, seed: int) -> IntArray:
    """[num_requests] the class that claims the request's pipeline, else one drawn by weight; a request's draw does not
    depend on the others. All 0 where there are no classes."""
    number = len(request_pipeline)
    if not workload.classes:
        return np.broadcast_to(np.int64(0), number)
    open_to_all = [index for index, one in enumerate(workload.classes) if not one.pipelines]
    found = np.zeros(number, np.int64)
    if open_to_all:
        weights = np.array([workload.classes[index].weight for index in open_to_all])
        edges = np.cumsum(weights / weights.sum())
        drawn = np.searchsorted(edges, stream(seed, "classes").random(number), side="right")
        found = np.array(open_to_all, np.int64)[np.minimum(drawn, len(open_to_all) - 1)]
    names = [pipeline.name for pipeline in workload.pipelines]
    for index, one in enumerate(workload.classes):
        for name in one.pipelines:
            found[request_pipeline == names.index(name)] = index
    return found


def priorities(workload: WorkloadFile, request_class: IntArray) -> IntArray:
    """[num_requests] of the requests' classes."""
    return np.array([one.priority for one in workload.classes], np.int64)[request_class]
