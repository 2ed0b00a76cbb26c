"""Work on text that processors do at a rate: splitting into tokens, putting tokens together, filtering.

Rates are of one core and of the text, not of the device: a job runs on one core, jobs of a batch side by side on the
cores of a worker.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from hermes_sim.core.schema import BytesPerSecond, PositiveFloat
from hermes_sim.models.operator import Operator
from hermes_sim.stages.stage import FloatArray, IntArray, Models, Stage
from hermes_sim.workload.requests import RequestTable


class TextStage(Stage):
    """Units: tokens of the text, or bytes."""

    runs_on: ClassVar[Literal["tokens", "jobs", "nowhere"]] = "jobs"

    @property
    @abstractmethod
    def units_per_s(self) -> float:
        """That one core works off."""

    def work(self, total_units: float, units_per_job: float, models: Models) -> tuple[Operator, ...]:
        if total_units <= 0.0:
            return ()
        num_jobs = max(1, round(total_units / max(units_per_job, 1.0)))
        core_s = total_units / self.units_per_s
        # every number of the text is read and written once
        return (Operator("text", "elementwise", bytes=8.0 * total_units, core_s=core_s, num_groups=num_jobs),)


class Tokenize(TextStage):
    """Turns the prompt's text into tokens. Units: tokens."""

    kind: Literal["tokenize"] = "tokenize"
    tokens_per_s_per_core: PositiveFloat = 5e5
    """An estimate: byte-pair encoding at some 2 MB/s and 4 bytes a token."""

    @property
    def units_per_s(self) -> float:
        return self.tokens_per_s_per_core

    def units(self, num_prompt_tokens: IntArray) -> FloatArray:
        return np.maximum(num_prompt_tokens, 1).astype(np.float64)


class Detokenize(TextStage):
    """Turns the answer's tokens into text. Units: tokens."""

    kind: Literal["detokenize"] = "detokenize"
    tokens_per_s_per_core: PositiveFloat = 1e6
    """An estimate: a look-up a token, and joining."""

    @property
    def units_per_s(self) -> float:
        return self.tokens_per_s_per_core

    def units_of(self, requests: RequestTable, seed: int) -> FloatArray:
        return np.maximum(requests.num_output_tokens, 1).astype(np.float64)

    def most_units(self, requests: RequestTable, seed: int) -> float:
        return float(self.units_of(requests, seed).max(initial=1.0))


class Filter(TextStage):
    """Looks for patterns in a text: words that are not wanted, addresses, secrets. Units: bytes."""

    kind: Literal["filter"] = "filter"
    reads: Literal["prompt", "answer"] = "answer"
    rate_bytes_per_s_per_core: BytesPerSecond = Field(alias="rate_per_core")
    """Of the matcher: some 10 MB/s for a list of backtracking expressions, 1 GB/s for an automaton over all of them."""
    bytes_per_token: PositiveFloat = 4.0

    @property
    def units_per_s(self) -> float:
        return self.rate_bytes_per_s_per_core

    def units_of(self, requests: RequestTable, seed: int) -> FloatArray:
        tokens = requests.num_prompt_tokens if self.reads == "prompt" else requests.num_output_tokens
        return np.maximum(tokens, 1) * self.bytes_per_token

    def most_units(self, requests: RequestTable, seed: int) -> float:
        return float(self.units_of(requests, seed).max(initial=1.0))
