"""Output tokens after the first, one a step."""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from hermes_sim.core.schema import Fraction, PositiveInt, one_of
from hermes_sim.stages.count import COUNTS, Count, number_or_law
from hermes_sim.stages.early_exit import Reduction, ThoughtExit
from hermes_sim.stages.stage import Stage

Writes = Literal["answer", "thought", "note"]


class Decode(Stage):
    """Generates the output tokens of a pass of the language model whose prompt has been computed.

    A decode right after a decode goes on in the same sequence: thoughts, then the answer.
    """

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "tokens"

    kind: Literal["decode"] = "decode"
    model: str | None = None
    """The engine's model if not given."""
    num_output_tokens: Annotated[Count, one_of(COUNTS, "count kind"), BeforeValidator(number_or_law)] | None = None
    """At least one. If not given: the request's, less what other decodes take of them by `output_share`."""
    reduction: Reduction | None = None
    """Of the tokens drawn, those that are written; the others are saved, not left to other decodes."""
    early_exit: ThoughtExit | None = None
    """Of the tokens that a reduction leaves."""
    writes: Writes = "answer"
    """answer; thought: reasoning that the client sees but that is not the answer; note: text for the system's own use
    (a rewritten query, a score), which the client never sees."""
    num_samples: PositiveInt = 1
    """Answers to one prompt (n, best of n). They share its KV blocks; the lengths of the others are those of other
    requests of the pipeline, drawn at random."""
    join: Literal["all", "majority", "first"] = "all"
    """Of several samples: the visit ends with the last of them, with more than half, or with the first; the others are
    cut off there. Samples advance side by side, so that is where they have as many tokens as it."""
    quality: Fraction | None = None
    """Proxy of the answer's quality that this model gives (accuracy on a benchmark, say); reported beside latency and
    cost where a route chooses between models."""

    def model_names(self) -> tuple[str, ...]:
        return (self.model,) if self.model else ()

    @property
    def num_joined(self) -> int:
        """Samples that must have ended for the visit to end."""
        return {"all": self.num_samples, "majority": ceil((self.num_samples + 1) / 2), "first": 1}[self.join]
