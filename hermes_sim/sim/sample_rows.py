"""Parallel samples: further answers to one prompt, each a row of its own behind the rows of all visits.

Samples are alike, so their order says nothing: the longest one is the visit itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.scenario.visited import Visited
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.tree_search import WriteCandidates

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Members:
    """Requests of one pipeline."""

    pipeline: str
    stages: Sequence[Visited]
    requests: IntArray
    """[num_members]"""
    first_row: IntArray
    """[num_members] row of the first stage."""
    limit: int
    """Longest sequence."""


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
    pipelines: Sequence[Members], row_prompt: IntArray, row_output: IntArray, num_requests: int, seed: int
) -> Samples:
    """Lengths of all samples: a request's own, and those of other requests of its pipeline, drawn at random; with
    `join` cut off where the visit ends.

    row_prompt, row_output: [num_visits]. A visit without output has no samples. One draw a sample, which depends on no
    other request's.
    """
    visits, lengths = [], []
    for members in pipelines:
        for place, visited in enumerate(members.stages):
            stage = visited.stage
            if not isinstance(stage, Decode) or stage.num_samples == 1 or isinstance(stage, WriteCandidates):
                continue
            rows = members.first_row + place
            answered = row_output[rows] > 0
            rows, requests = rows[answered], members.requests[answered]
            if len(rows) == 0:
                continue
            name = f"samples {members.pipeline}.{visited.stream_name}"
            draws = stream(seed, name).random((num_requests, stage.num_samples - 1))[requests]
            others = row_output[rows][(draws * len(rows)).astype(np.int64)]
            others = np.minimum(others, (members.limit - row_prompt[rows])[:, None])
            of_all = -np.sort(-np.concatenate((row_output[rows, None], others), axis=1), axis=1)
            visits.append(rows)
            lengths.append(np.minimum(of_all, of_all[:, -stage.num_joined, None]))
    return Samples(
        visit=joined(visits),
        longest=joined([each[:, 0] for each in lengths]),
        num_others=joined([np.full(len(each), each.shape[1] - 1) for each in lengths]),
        output=joined([each[:, 1:].ravel() for each in lengths]),
    )


def joined(parts: Sequence[IntArray]) -> IntArray:
    """One after the other; none of none."""
    return np.concatenate([np.zeros(0, np.int64), *parts])
