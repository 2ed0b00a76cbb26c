"""Coefficients of kernels that only stream bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, NonNegativeFloat, Seconds
from hermes_sim.hardware.fit_error import FitError

ElementwiseKind = Literal[
    "norm", "add_norm", "qk_norm", "residual_add", "rope", "activation", "embedding", "sampler",
    "unfused_norm", "unfused_rope", "unfused_activation",
]  # fmt: skip
"""`add_norm`: the addition and the norm behind it in one kernel, as engines run them. `qk_norm`: of each head's query
and key. `unfused_`: the same work by a chain of PyTorch's own kernels, as the modules of Transformers run it."""


class ElementwiseEfficiency(Description):
    """Coefficients of one kind of streaming kernel (perf/operators/elementwise.py)."""

    launch_s: Seconds = Field(alias="launch")
    """One kernel with nothing to move, inside a captured graph."""
    memory_frac: Fraction
    """Share of the memory bandwidth a long stream reaches."""
    cache_speedup: float = Field(default=1.0, ge=1.0)
    """Bandwidth over the memory's for what is still in the last-level cache."""
    cache_share: NonNegativeFloat = 0.8
    """Size of a stream of which half is still there, over the cache's capacity."""
    row_s_per_byte: NonNegativeFloat = 0.0
    """A block of threads walks one row (a token's bytes): seconds for each byte of it, however few rows there are."""
    in_sample: FitError | None = None
    held_out: FitError | None = None
