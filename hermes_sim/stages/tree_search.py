"""Search over the steps of a solution, led by a verifier: best of n, beam search, lookahead, tree search."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from hermes_sim.core.schema import Fraction, NonNegativeInt, PositiveInt, one_of
from hermes_sim.stages.count import COUNTS, Count, number_or_law
from hermes_sim.stages.decode import Decode
from hermes_sim.stages.prefill import Prefill
from hermes_sim.stages.repeat import Rounds
from hermes_sim.stages.stage import Stage

MOST_CANDIDATES = 256


class ReadBeams(Prefill):
    """The kept prefixes are read, each as a sequence of its own; before the first round there is the context alone."""

    num_beams: int


class WriteCandidates(Decode):
    """The next step, several times from each kept prefix: forks of the sequence that has read it."""


class ScoreCandidates(Prefill):
    """The verifier reads every candidate behind its prefix, all of a round at once."""

    num_candidates: int
    num_verdict_tokens: int


class TreeSearch(Rounds):
    """Rounds of candidates of the next step, written from the kept prefixes and scored by a verifier.

    In each, `num_beams` x `width` are written and `num_beams` are gone on from. After the last one the best candidate's
    path is in the context.

    Candidates are alike to the verifier: scores are drawn, independent of lengths and of each other. Sources: Snell et
    al., arXiv 2408.03314, section 5.2 (best of n, beam search, lookahead against a process reward model); Yao et al.,
    Tree of Thoughts, arXiv 2305.10601.
    """

    kind: Literal["tree_search"] = "tree_search"
    num_beams: PositiveInt = 1
    """Candidates that each round goes on from; the first has the context alone, and writes as many candidates."""
    width: PositiveInt
    """Candidates that are written from each of them."""
    selection: Literal["beam", "each_beam", "tree"] = "beam"
    """beam: the best of the round; each_beam: the best of each beam's own (diverse verifier tree search); tree: the
    best of all candidates so far that none has gone on from, so the search may go back (best first)."""
    num_output_tokens: Annotated[Count, one_of(COUNTS, "count kind"), BeforeValidator(number_or_law)] | None = None
    """Of one step. If not given, and there is one round: of a whole answer, the request's own and those of other
    requests of the pipeline."""
    num_lookahead_tokens: Annotated[Count, one_of(COUNTS, "count kind"), BeforeValidator(number_or_law)] | None = None
    """Written behind each step for the verifier to judge it by, then thrown away: lookahead, rollouts."""
    model: str | None = None
    """Writes the candidates; the engine's model if not given."""
    verifier: str | None = None
    """Model that scores them; the one that writes them if not given."""
    num_verifier_tokens: NonNegativeInt = 0
    """Instructions that the verifier reads behind each candidate."""
    num_verdict_tokens: NonNegativeInt = 0
    """What it writes about each: none for a reward head, a few for a model that is asked."""
    writes: Literal["answer", "thought"] = "thought"
    """answer: the kept path is the answer, which the client sees when the last candidate has been scored."""
    quality: Fraction | None = None
    """Proxy of the answer's quality; see decode."""

    @model_validator(mode="after")
    def _steps_and_candidates(self) -> TreeSearch:
        if self.num_candidates > MOST_CANDIDATES:
            raise ValueError(f"num_beams x width is {self.num_candidates}, more than {MOST_CANDIDATES} candidates")
        if self.num_output_tokens is None and self.most_rounds > 1:
            raise ValueError("several rounds need num_output_tokens: the length of one step")
        return self

    @property
    def num_candidates(self) -> int:
        """Of a round."""
        return self.num_beams * self.width

    @cached_property
    def _stages(self) -> tuple[Stage, ...]:
        """Built without checks: names and models have passed them."""
        return (
            ReadBeams(name="prefill", model=self.model, num_beams=self.num_beams),
            WriteCandidates(
                name="decode", model=self.model, after=("prefill",), writes=self.writes, quality=self.quality,
                num_samples=self.num_candidates,
            ),
            ScoreCandidates(
                name="verify", model=self.verifier or self.model, after=("decode",),
                num_instruction_tokens=self.num_verifier_tokens, num_candidates=self.num_candidates,
                num_verdict_tokens=self.num_verdict_tokens,
            ),
        )  # fmt: skip

    @property
    def inside(self) -> tuple[Stage, ...]:
        return self._stages
