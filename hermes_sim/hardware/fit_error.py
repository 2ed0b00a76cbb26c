"""How far a fitted model is from measurements."""

from __future__ import annotations

from hermes_sim.core.schema import Description, NonNegativeInt


class FitError(Description):
    """How far a fitted model is from measurements, as absolute percentage errors."""

    median_frac: float
    mean_frac: float
    bias_frac: float
    """Mean of the signed errors: below zero the model is too fast."""
    num_points: NonNegativeInt
    p90_frac: float | None = None
    low_frac: float | None = None
    """Measured over predicted that one measurement in twenty falls below ..."""
    high_frac: float | None = None
    """... and one in twenty exceeds: nine in ten lie between."""
