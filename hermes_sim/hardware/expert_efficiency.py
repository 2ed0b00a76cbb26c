"""Coefficients of the model of a layer of experts."""

from __future__ import annotations

from pydantic import Field

from hermes_sim.core.schema import Description, Seconds
from hermes_sim.hardware.fit_error import FitError


class ExpertEfficiency(Description):
    """What a layer of experts costs beyond equal dense products (perf/lowering.py)."""

    slowdown: float = Field(default=1.0, ge=1.0)
    """Time of a grouped product of experts over that of equal dense products."""
    launch_s: Seconds = Field(default=0.0, alias="launch")
    """Per layer of experts: choosing, sorting and gathering."""
    in_sample: FitError | None = None
    held_out: FitError | None = None
