"""Coefficients of the attention model."""

from __future__ import annotations

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, Seconds
from hermes_sim.hardware.fit_error import FitError


class AttentionEfficiency(Description):
    """Coefficients of the attention model beside its two efficiencies (perf/operators/attention.py).

    The defaults add nothing to a roofline but a short launch.
    """

    decode_launch_s: Seconds = Field(default=2e-6, alias="decode_launch")
    """The kernels of one layer (cache write, attention, combination) with nothing to read."""
    decode_compute_frac: Fraction = 0.25
    decode_core_streams: float = Field(default=8.0, gt=0.0)
    """What one KV head of one sequence can draw, in shares of the bandwidth per core: its keys are split over cores."""
    decode_serial_frac: Fraction = 0.0
    decode_head_s: Seconds = Field(default=0.0, alias="decode_head")
    """Per sequence and KV head: scheduling its block and filling its last tile."""
    prefill_launch_s: Seconds = Field(default=2e-6, alias="prefill_launch")
    prefill_memory_frac: Fraction = 0.5
    prefill_serial_frac: Fraction = 0.0
    softmax_s: Seconds = Field(default=0.0, alias="softmax")
    """Per query-key pair and head, whole device: exponentials that the matrix units wait for."""
    diagonal_pairs: float = Field(default=0.0, ge=0.0)
    """Pairs per new token in the half-filled tiles on the diagonal."""
    sequence_pairs: float = Field(default=0.0, ge=0.0)
    """Pairs per prompt and head in its last tile of queries."""
    row_tokens: float = Field(default=128.0, ge=0.0)
    """Queries in the block that one core walks over the whole context."""
    decode_in_sample: FitError | None = None
    prefill_in_sample: FitError | None = None
    decode_held_out: FitError | None = None
    prefill_held_out: FitError | None = None
