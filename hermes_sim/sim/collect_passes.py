"""What the language model has written of every request, pass by pass: answers, thoughts, notes, and their moments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from hermes_sim.sim.collect_stages import StageRows
from hermes_sim.sim.collect_visits import of_all_samples
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.stages.decode import Decode, Writes
from hermes_sim.stages.tree_search import ReadBeams

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Pass:
    """A prefill, or a decode without one, and the decodes that share its sequence."""

    head: StageRows
    decodes: tuple[StageRows, ...]
    writes: tuple[Writes, ...]
    """What each decode writes; of a prefill alone what its one token is."""
    verifier: StageRows | None = None
    """Of a round of a search: nobody knows the answer before its candidates have been scored."""

    @property
    def is_seen(self) -> bool:
        """Whether the client gets its tokens."""
        return self.writes[0] != "note"

    @property
    def last(self) -> StageRows:
        return self.decodes[-1] if self.decodes else self.head


def language_model_passes(stages: Sequence[StageRows]) -> Iterator[Pass]:
    """Of every pipeline, in order. A prefill that nothing follows answers if its pipeline has no decode."""
    for pipeline in dict.fromkeys(stage.pipeline for stage in stages):
        own = [stage for stage in stages if stage.pipeline == pipeline]
        taken = {stage.plan.decode for stage in own} | {stage.plan.more_decode for stage in own}
        any_decodes = any(stage.kind == "decode" for stage in own)
        for place, stage in enumerate(own):
            if stage.kind not in ("prefill", "decode") or place in taken:
                continue
            decodes = [stage] if stage.kind == "decode" else []
            following = stage.plan.decode if stage.kind == "prefill" else stage.plan.more_decode
            while following is not None:
                decodes.append(own[following])
                following = own[following].plan.more_decode
            writes = [decode.plan.stage.writes for decode in decodes if isinstance(decode.plan.stage, Decode)]
            verifier = None
            if isinstance(stage.plan.stage, ReadBeams):
                (scored,) = decodes[-1].plan.successors
                verifier = own[scored]
            kinds = tuple(writes) or ("note" if any_decodes else "answer",)
            yield Pass(stage, tuple(decodes), kinds, verifier)


@dataclass(frozen=True, slots=True)
class Written:
    """[num_requests] each."""

    num_tokens: dict[Writes, IntArray]
    num_longest_sample_tokens: IntArray
    """Tokens that the client sees, of the longest sample of every pass."""
    num_passes: IntArray
    """Passes whose tokens the client sees."""
    decode_s: FloatArray
    """From the first to the last token of each of them, added up."""
    first_s: FloatArray
    """First token that the client sees, at the engine; inf if there is none."""
    seen_first_s: FloatArray
    """The same with the message that brings it."""
    first_answer_s: FloatArray
    """First token of an answer, with its message; inf if there is none."""
    num_searched_tokens: IntArray
    """Written by all candidates of searches."""
    quality: FloatArray
    """Of the last decode that states one; NaN if none does."""


def written(coordinator: Coordinator, stages: Sequence[StageRows], finish_s: FloatArray) -> Written:
    """finish_s: [num_visits] the end of each visit."""
    lowered, state = coordinator.lowered, coordinator.state
    number = lowered.requests.num_requests
    generated = of_all_samples(lowered, state.row_generated, np.add)
    of_longest = state.row_generated[: lowered.num_visits]
    message_s = np.append(coordinator.front_end.detokenize_s, 0.0)
    found = Written(
        {kind: np.zeros(number, np.int64) for kind in get_args(Writes)},
        np.zeros(number, np.int64), np.zeros(number, np.int64), np.zeros(number), np.full(number, np.inf),
        np.full(number, np.inf), np.full(number, np.inf), np.zeros(number, np.int64), np.full(number, np.nan),
    )  # fmt: skip
    searched_s = np.full(number, np.nan)
    for one in language_model_passes(stages):
        requests = one.head.requests
        # the first token is there, or comes with the prompt's KV
        head_end_s = finish_s[one.head.rows] + coordinator.hand_over.first_token_delay_s[one.head.rows]
        messages_s = message_s[state.row_engine[one.head.rows]]
        before = np.zeros(len(head_end_s), np.int64)
        starts_s = head_end_s
        for decode, kind in zip(one.decodes or (one.head,), one.writes, strict=True):
            own = np.asarray(generated[decode.rows], np.int64) - before
            if decode is not one.last:  # it ends with the first token of what comes after it
                own = np.maximum(own - 1, 0)
            found.num_tokens[kind][requests] += own
            before = before + own
            if one.verifier is not None:
                found.num_searched_tokens[requests] += own
            if kind == "answer" and one.verifier is not None:
                searched_s[requests] = np.fmax(searched_s[requests], finish_s[one.verifier.rows] + messages_s)
            elif kind == "answer":
                found.first_answer_s[requests] = np.fmin(found.first_answer_s[requests], starts_s + messages_s)
            starts_s = finish_s[decode.rows]
            set_quality(found.quality, decode, own)
        if one.is_seen:
            tokens = np.asarray(of_longest[one.last.rows], np.int64)
            found.num_longest_sample_tokens[requests] += tokens
            found.num_passes[requests] += tokens > 0
            found.decode_s[requests] += np.where(tokens > 0, finish_s[one.last.rows] - head_end_s, 0.0)
            found.first_s[requests] = np.fmin(found.first_s[requests], head_end_s)
            found.seen_first_s[requests] = np.fmin(found.seen_first_s[requests], head_end_s + messages_s)
    found.first_answer_s[:] = np.fmin(found.first_answer_s, searched_s)
    rejected = coordinator.is_rejected
    of_all = found.num_tokens.values()
    for counts in (*of_all, found.num_longest_sample_tokens, found.num_searched_tokens, found.num_passes):
        counts[rejected] = 0
    return found


def set_quality(quality: FloatArray, decode: StageRows, num_tokens: IntArray) -> None:
    """A decode that has written something and states its quality sets it."""
    stage = decode.plan.stage
    if isinstance(stage, Decode) and stage.quality is not None:
        quality[decode.requests] = np.where(num_tokens > 0, stage.quality, quality[decode.requests])
