"""Nearest-neighbour search: the query's vector to the documents that join the prompt."""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar, Literal

import numpy as np

from hermes_sim.core.schema import PositiveInt, one_of
from hermes_sim.models.operator import Operator
from hermes_sim.stages.index import Index
from hermes_sim.stages.index_kinds import INDEX_KINDS
from hermes_sim.stages.stage import FloatArray, IntArray, Models, Stage


class Retrieve(Stage):
    """Searches an index of document vectors. Units: queries."""

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"

    kind: Literal["retrieve"] = "retrieve"
    index: Annotated[Index, one_of(INDEX_KINDS, "index kind")]
    top_k: PositiveInt
    """Documents that join the prompt."""
    tokens_per_document: PositiveInt
    num_candidates: PositiveInt | None = None
    """Documents fetched for a reranker, which keeps top_k of them; top_k if not given."""
    queries_per_request: PositiveInt = 1
    """Rewritten or decomposed questions searched at once."""

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        return np.full(len(num_prompt_tokens), float(self.queries_per_request))

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        return self.index.search_operators(ceil(total_units), self.num_candidates or self.top_k)

    def added_prompt_tokens(self) -> int:
        return self.top_k * self.tokens_per_document

    def resident_bytes(self, models: Models) -> float:
        return self.index.index_bytes()
