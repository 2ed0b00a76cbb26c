"""Rows of a serving table that repeat a measurement of another row, and say less of how it was taken.

Several exports of one benchmark run stand in such tables; some leave out how many workers prefill and decode had, and
with it degrees that follow from that number. Latencies are stated to six digits: where two rows agree in the load, the
system, the engine and both latencies, they are one measurement, and the layout of the row that states its workers
holds for both.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from hermes_sim.replay.silicon_table import Layout, ServingRun


def with_stated_layouts(runs: Sequence[ServingRun]) -> list[ServingRun]:
    """The runs in their order; those without numbers of workers take the layout of the first twin that has them."""
    stated: dict[Hashable, tuple[Layout, ...]] = {}
    for run in runs:
        if run.is_disaggregated and _states_workers(run):
            stated.setdefault(_measurement(run), run.engines)
    return [
        run
        if not run.is_disaggregated or _states_workers(run)
        else replace(run, engines=stated.get(_measurement(run), run.engines))
        for run in runs
    ]


def _states_workers(run: ServingRun) -> bool:
    return all(layout.num_workers is not None for layout in run.engines)


def _measurement(run: ServingRun) -> Hashable:
    """Without the model's name: exports call one architecture by several."""
    return run.system, run.backend, run.isl, run.osl, run.concurrency, run.ttft_s, run.tpot_s
