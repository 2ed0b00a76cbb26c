"""Coefficients of kernels that only stream bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, Seconds
from hermes_sim.hardware.fit_error import FitError

ElementwiseKind = Literal["norm", "add_norm", "residual_add", "rope", "activation", "embedding", "sampler"]
"""`add_norm`: the addition and the norm behind it in one kernel, as engines run them."""


class ElementwiseEfficiency(Description):
    """Coefficients of one kind of streaming kernel (perf/operators/elementwise.py)."""

    launch_s: Seconds = Field(alias="launch")
    """One kernel with nothing to move, inside a captured graph."""
    memory_frac: Fraction
    """Share of the memory bandwidth a long stream reaches."""
    cache_speedup: float = Field(default=1.0, ge=1.0)
    """Bandwidth over the memory's for what fits the last-level cache."""
    in_sample: FitError | None = None
    held_out: FitError | None = None
