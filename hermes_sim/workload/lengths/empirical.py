"""Lengths as measured: drawn from a joint quantile table."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from hermes_sim.core.schema import PositiveInt
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.workload.lengths.law import Lengths
from hermes_sim.workload.lengths.quantile_table import read_table, shipped_tables
from hermes_sim.workload.paths import ResolvePath
from hermes_sim.workload.requests import IntArray


class Empirical(Lengths):
    """Prompt and output drawn together from a table derived from a real trace."""

    kind: Literal["empirical"] = "empirical"
    table: str | None = None
    """Name of a shipped table (traces/lengths)."""
    path: str | None = None
    """CSV file of the same form instead."""
    max_num_prompt_tokens: PositiveInt | None = None
    """Longer prompts are cut to this."""
    max_num_output_tokens: PositiveInt | None = None

    @field_validator("table")
    @classmethod
    def _check_table(cls, table: str | None) -> str | None:
        shipped = shipped_tables()
        if table is not None and table not in shipped:
            raise ValueError(f"{table!r} is not a length table ({listed(shipped)}).{did_you_mean(table, shipped)}")
        return table

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.table is None) == (self.path is None):
            raise ValueError("needs either table (a shipped one) or path (a file of your own)")
        return self

    def sample(
        self, rng: np.random.Generator, num_requests: int, resolve_path: ResolvePath
    ) -> tuple[IntArray, IntArray]:
        path = resolve_path(self.path) if self.path is not None else shipped_tables()[self.table or ""]
        prompt, output = read_table(path).sample(rng, num_requests)
        if self.max_num_prompt_tokens is not None:
            prompt = np.minimum(prompt, self.max_num_prompt_tokens)
        if self.max_num_output_tokens is not None:
            output = np.minimum(output, self.max_num_output_tokens)
        return prompt, output

    def describe(self) -> str:
        return f"lengths of {self.table or self.path}"
