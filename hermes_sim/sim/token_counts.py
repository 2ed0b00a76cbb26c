"""Tokens that every pass of a language model reads and writes: contexts grow by what stages add and decodes write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hermes_sim.scenario.visited import Visited, ancestors
from hermes_sim.sim.sequences import heads, sequence_from
from hermes_sim.sim.tree_draws import Tree, draw_tree, search_places
from hermes_sim.sim.written_tokens import written_tokens
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.prefill import Prefill
from hermes_sim.workload.requests import RequestTable

IntArray = npt.NDArray[np.int64]

WHOLE = np.iinfo(np.int32).max
"""Tokens in common of a visit whose text is all its request's."""


class TokenCounts(NamedTuple):
    """[num_stages, num_requests], or [num_visits]: see sim/lengths.Lengths; `text` by place of a stage, -1 for none."""

    prompt: IntArray
    output: IntArray
    text: IntArray
    common: IntArray


class PipelineTokens(NamedTuple):
    """Of the requests of one pipeline, [num_members] each."""

    counts: TokenCounts
    num_clipped: IntArray
    """Tokens that a limit of the model cuts off."""
    num_saved: IntArray
    num_probe: IntArray
    trees: list[Tree]
    """Searches of the pipeline, the rows of which sim/tree_rows.py fills."""


def token_counts(
    pipeline: str,
    stages: Sequence[Visited],
    requests: RequestTable,
    members: IntArray,
    passes: npt.NDArray[np.bool_],
    limit: int,
    seed: int,
) -> PipelineTokens:
    """Of the requests `members` of one pipeline.

    A pass reads the request's prompt, what the stages before it have added and what the decodes before it have
    written; where that is more than the limit leaves beside its own output, the rest is cut.
    """
    own_prompt, own_output = requests.num_prompt_tokens[members], requests.num_output_tokens[members]
    shape = (len(stages), len(members))
    counts = TokenCounts(*(np.zeros(shape, np.int64) for _ in range(4)))
    counts.text[:] = -1
    counts.common[:] = WHOLE
    counts.prompt[:] = np.maximum(own_prompt, 1)
    of_decodes = written_tokens(pipeline, stages, requests, members, passes, seed)
    written = of_decodes.written
    before = ancestors(stages)
    clipped = np.zeros(len(members), np.int64)
    trees = []
    for places in search_places(stages):
        start, _ = context(stages, places[0, 0], before[places[0, 0]], own_prompt, written, passes)
        tree = draw_tree(pipeline, stages, places, start, requests, members, passes, limit, seed)
        written[places[:, 1]] = np.where(passes[places[:, 1]], tree.gain, 0)
        trees.append(tree)
    in_trees = {int(place) for tree in trees for place in tree.places.ravel()[1:]}
    for head in heads(stages):
        if head in in_trees:
            continue
        sequence = sequence_from(stages, head)
        stage = stages[head].stage
        prompt, text_is_shared = context(stages, head, before[head], own_prompt, written, passes)
        if isinstance(stage, Prefill):
            prompt += stage.num_instruction_tokens
        decodes = [place for place in sequence if stages[place].kind == "decode"]
        output = sum((written[place] for place in decodes), start=np.zeros(len(members), np.int64))
        if not decodes:
            output = np.minimum(own_output, 1)
        kept_output = np.minimum(output, limit - 1)
        kept_prompt = np.minimum(np.maximum(prompt, 1), limit - kept_output)
        clipped += np.where(passes[head], np.maximum(prompt, 1) - kept_prompt + output - kept_output, 0)
        so_far = np.zeros(len(members), np.int64)
        for place in sequence:
            counts.prompt[place] = kept_prompt
            if place in decodes:
                so_far = so_far + written[place]
                is_last = place == decodes[-1]
                counts.output[place] = kept_output if is_last else np.minimum(so_far + 1, kept_output)
            else:
                counts.output[place] = np.minimum(kept_output, 1)
            if not text_is_shared:
                counts.text[place] = head
                counts.common[place] = np.minimum(own_prompt, kept_prompt)
    return PipelineTokens(counts, clipped, of_decodes.num_saved, of_decodes.num_probe, trees)


def context(
    stages: Sequence[Visited],
    head: int,
    before: frozenset[int],
    own_prompt: IntArray,
    written: IntArray,
    passes: npt.NDArray[np.bool_],
) -> tuple[IntArray, bool]:
    """[num_members] tokens that a pass reads, its own instructions aside; and whether all of it and all it writes is
    one text with every other pass of the request, so that KV blocks of one are good for the other.

    Passes share their text if each reads all that those before it have read and written, and none runs beside it.
    """
    stage = stages[head].stage
    reads_all = not isinstance(stage, Prefill) or stage.context == "all"
    prompt = own_prompt.copy()
    for place in before:
        one = stages[place].stage
        prompt += np.where(passes[place], one.added_prompt_tokens(), 0)
        if isinstance(one, Decode) and one.writes != "note" and reads_all:
            prompt += written[place]
    return prompt, is_one_text(stages, head, before)


def is_one_text(stages: Sequence[Visited], head: int, before: frozenset[int]) -> bool:
    """Whether a pass continues the request's one text: see `context`."""
    sequence = sequence_from(stages, head)
    stage = stages[head].stage
    last_writes = stages[sequence[-1]].stage
    if isinstance(last_writes, Decode) and last_writes.writes == "note":
        return False
    if isinstance(stage, Prefill) and stage.num_instruction_tokens > 0:
        return False
    others = [place for place in heads(stages) if place != head]
    of_all = ancestors(stages)
    for place in others:
        if place in before:
            is_note = any(getattr(stages[one].stage, "writes", "") == "note" for one in sequence_from(stages, place))
            reads_it = not isinstance(stage, Prefill) or stage.context == "all" or is_note
            if not reads_it:
                return False
        elif head not in of_all[place]:
            return False  # runs beside it
    return True
