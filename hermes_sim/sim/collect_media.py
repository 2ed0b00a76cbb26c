"""Pictures and sound of each request: encoded, found in a cache, drawn in so many steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.core.tables import Table
from hermes_sim.sim.collect_stages import StageRows
from hermes_sim.sim.lower import Lowered
from hermes_sim.stages.diffusion import Diffusion
from hermes_sim.stages.encode import Encode
from hermes_sim.stages.stage import Stage

IntArray = npt.NDArray[np.int64]


def media_columns(lowered: Lowered, stages: Sequence[StageRows]) -> Table:
    """Columns of the requests' table; the same number throughout where no stage has to do with media."""
    requests, seed = lowered.requests, lowered.scenario.seed
    number = requests.num_requests

    def encoded(stage: Stage, *, found: bool) -> IntArray:
        assert isinstance(stage, Encode)
        items = stage.items(requests)
        counted = ~stage.is_missing(items, seed) if found else np.ones(len(items.request))
        return np.bincount(items.request, counted, number).astype(np.int64)

    def drawn(stage: Stage) -> IntArray:
        assert isinstance(stage, Diffusion)
        return np.full(number, stage.num_images, np.int64)

    def steps(stage: Stage) -> IntArray:
        assert isinstance(stage, Diffusion)
        large, small = stage.steps_of(requests, seed)
        return stage.num_images * (large + small)

    return {
        "num_images": _total(lowered, stages, Encode, lambda stage: encoded(stage, found=False), idle=True),
        "num_cached_images": _total(lowered, stages, Encode, lambda stage: encoded(stage, found=True), idle=True),
        "num_drawn_images": _total(lowered, stages, Diffusion, drawn),
        "num_denoising_steps": _total(lowered, stages, Diffusion, steps),
    }


def _total(
    lowered: Lowered,
    stages: Sequence[StageRows],
    kind: type[Stage],
    count: Callable[[Stage], IntArray],
    *,
    idle: bool = False,
) -> IntArray:
    """[num_requests] summed over the visits to stages of a kind; `idle`: with those that had nothing left to do."""
    number = lowered.requests.num_requests
    chosen = [stage for stage in stages if isinstance(stage.plan.stage, kind)]
    if not chosen:
        return np.broadcast_to(np.int64(0), number)
    total = np.zeros(number, np.int64)
    for stage in chosen:
        counted = np.where(lowered.skipped[stage.rows], 0, 1) if not idle else 1
        total[stage.requests] += count(stage.plan.stage)[stage.requests] * counted
    return total
