"""Parallel samples: further answers to one prompt, each a row of its own behind the rows of all visits.

Samples are alike, so their order says nothing: the longest one is the visit itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.scenario.workload import Pipeline
from hermes_sim.stages.decode import Decode

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Decode visits of several samples, and one row for each sample beside the visit's own."""

    visit: IntArray
    """[num_sampled_visits] row."""
    longest: IntArray
    """[num_sampled_visits] output tokens of the longest sample."""
    num_others: IntArray
    """[num_sampled_visits] samples beside the visit itself: as many consecutive rows."""
    output: IntArray
    """[num_samples] output tokens of each further row, the visits' in turn, the longest first."""

    @property
    def parent(self) -> IntArray:
        """[num_samples] visit that each further row belongs to."""
        return np.repeat(self.visit, self.num_others)

    @property
    def first(self) -> IntArray:
        """[num_sampled_visits] place of a visit's first further row among them."""
        return np.cumsum(self.num_others) - self.num_others


def draw_samples(
    pipelines: Sequence[Pipeline],
    request_pipeline: IntArray,
    first_row: IntArray,
    num_output: IntArray,
    room: IntArray,
    seed: int,
) -> Samples:
    """Lengths of all samples: a request's own, and those of other requests of its pipeline, drawn at random.

    `room`: [num_requests] output tokens that the context limit leaves behind the prompt. A request without output has
    no samples. One draw a sample, which depends on no other request's.
    """
    visits, lengths = [], []
    for number, pipeline in enumerate(pipelines):
        answered = np.flatnonzero((request_pipeline == number) & (num_output > 0))
        for place, stage in enumerate(pipeline.stages):
            if not isinstance(stage, Decode) or stage.num_samples == 1 or len(answered) == 0:
                continue
            draws = stream(seed, f"samples {pipeline.name}.{stage.name}").random(
                (len(request_pipeline), stage.num_samples - 1)
            )
            others = num_output[answered][(draws[answered] * len(answered)).astype(np.int64)]
            others = np.minimum(others, room[answered, None])
            visits.append(first_row[answered] + place)
            lengths.append(-np.sort(-np.concatenate((num_output[answered, None], others), axis=1), axis=1))
    return Samples(
        visit=joined(visits),
        longest=joined([each[:, 0] for each in lengths]),
        num_others=joined([np.full(len(each), each.shape[1] - 1) for each in lengths]),
        output=joined([each[:, 1:].ravel() for each in lengths]),
    )


def joined(parts: Sequence[IntArray]) -> IntArray:
    """One after the other; none of none."""
    return np.concatenate([np.zeros(0, np.int64), *parts])
