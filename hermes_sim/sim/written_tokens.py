"""Tokens that every decode of a pipeline writes: laws of lengths, shares of the output, reasoning that is cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.core.rng import stream
from hermes_sim.scenario.visited import Visited
from hermes_sim.stages.count import ShareCount
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.tree_search import WriteCandidates
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WrittenTokens:
    """Of the requests of one pipeline."""

    written: IntArray
    """[num_stages, num_members] by each decode itself; 0 where it is left out."""
    num_saved: IntArray
    """[num_members] that reductions and early exits have left unwritten."""
    num_probe: IntArray
    """[num_members] of what was written, trial answers at checkpoints."""


def written_tokens(
    pipeline: str,
    stages: Sequence[Visited],
    requests: RequestTable,
    members: IntArray,
    passes: npt.NDArray[np.bool_],
    seed: int,
) -> WrittenTokens:
    """A decode without a law of its own writes what decodes by `output_share` leave of the request's output.

    What the path of a search gets is drawn with it.
    """
    own_output = requests.num_output_tokens[members]
    number = len(members)
    found = WrittenTokens(*(np.zeros(shape, np.int64) for shape in ((len(stages), number), number, number)))
    taken = np.zeros(number, np.int64)
    decodes = [
        (place, visited.stage, visited.stream_name)
        for place, visited in enumerate(stages)
        if isinstance(visited.stage, Decode) and not isinstance(visited.stage, WriteCandidates)
    ]

    def uniforms(purpose: str, name: str) -> npt.NDArray[np.float64]:
        return stream(seed, f"{purpose} {pipeline}.{name}").random(requests.num_requests)[members]

    def put(place: int, stage: Decode, name: str, drawn: IntArray) -> None:
        """What is left of the tokens drawn, with trial answers."""
        tokens, probe = drawn, np.zeros(number, np.int64)
        if stage.reduction is not None:
            tokens = np.where(drawn > 0, stage.reduction.apply(drawn), 0)
        if stage.early_exit is not None:
            tokens, probe = stage.early_exit.apply(tokens, uniforms("early exit", name))
        found.written[place] = np.where(passes[place], tokens + probe, 0)
        found.num_saved[passes[place]] += (drawn - tokens)[passes[place]]
        found.num_probe[passes[place]] += probe[passes[place]]

    for place, stage, name in decodes:
        if stage.num_output_tokens is not None:
            drawn = np.maximum(stage.num_output_tokens.quantiles(uniforms("output", name), own_output), 1)
            put(place, stage, name, drawn)
            if isinstance(stage.num_output_tokens, ShareCount):
                taken += np.where(passes[place], drawn, 0)
    rest = np.maximum(own_output - taken, np.minimum(own_output, 1))
    for place, stage, name in decodes:
        if stage.num_output_tokens is None:
            put(place, stage, name, rest)
    return found
