"""The visits of a run stage by stage: which rows are visits to it, and of which requests.

Columns of the visits are reduced to columns of the requests one stage after the other, without a table of the kinds of
all visits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hermes_sim.scenario.workload import stage_kind
from hermes_sim.sim.lower import Lowered
from hermes_sim.sim.plans import StagePlan

Array = npt.NDArray[Any]
Index = slice | npt.NDArray[np.int64]

BY_LANGUAGE_MODEL = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class StageRows:
    """One stage of one pipeline."""

    pipeline: int
    name: str
    kind: str
    plan: StagePlan
    requests: Index
    """Those that go through the pipeline."""
    rows: Index
    """Their visits to the stage, in the same order."""


def stage_rows(lowered: Lowered) -> tuple[StageRows, ...]:
    """Every stage of every pipeline; slices where there is one pipeline."""
    found = []
    for number, plan in enumerate(lowered.pipelines):
        requests: Index = slice(None)
        if len(lowered.pipelines) > 1:
            requests = np.flatnonzero(lowered.request_pipeline == number)
        for place, stage in enumerate(plan.stages):
            rows: Index = slice(place, lowered.num_visits, len(plan.stages))
            if isinstance(requests, np.ndarray):
                rows = lowered.first_row[requests] + place
            found.append(StageRows(number, stage.name, stage_kind(stage.stage), stage, requests, rows))
    return tuple(found)


def per_request(
    stages: Sequence[StageRows],
    values: Array,
    reduce: np.ufunc,
    *,
    out: Array,
    kinds: Collection[str] | None = None,
) -> Array:
    """Reduce a column of visits over each request's stages (of some kinds) onto `out`, [num_requests]; returns it."""
    for stage in stages:
        if kinds is None or stage.kind in kinds:
            if isinstance(stage.requests, slice):
                reduce(out, values[stage.rows], out=out)
            else:
                out[stage.requests] = reduce(out[stage.requests], values[stage.rows])
    return out
