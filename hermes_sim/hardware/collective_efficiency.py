"""Coefficients of collectives between the devices of one node, as fitted to one library on one kind of link."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import BytesPerSecond, Description, Fraction, Seconds
from hermes_sim.hardware.fit_error import FitError

KernelLibrary = Literal["vllm", "sglang", "trtllm", "nccl"]
"""Whose kernels: an engine's own, or NCCL's."""
CollectiveKind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]


class CollectiveEfficiency(Description):
    """The quickest of a few algorithms (perf/operators/collective.py); bandwidth fractions are of the link's peak."""

    small_latency_s: Seconds = Field(alias="small_latency")
    """Two devices, a few bytes: one shot of an all-reduce, the low-latency protocol of others."""
    small_peer_s: Seconds = Field(default=0.0, alias="small_peer")
    """... and for each further device."""
    small_frac: Fraction
    large_latency_s: Seconds = Field(alias="large_latency")
    """Two shots of an all-reduce, the bandwidth protocol of others."""
    large_peer_s: Seconds = Field(default=0.0, alias="large_peer")
    large_frac: Fraction
    ring_latency_s: Seconds = Field(default=0.0, alias="ring_latency")
    """All-reduce of long messages: a ring, or the copy engines of the library behind the custom kernel."""
    ring_peer_s: Seconds = Field(default=0.0, alias="ring_peer")
    ring_frac: Fraction = 0.0
    """0: no such algorithm."""
    in_switch_frac: Fraction = 0.0
    """All-reduce of more than two devices added up inside the switch; 0: it cannot."""
    contention: float = Field(default=0.0, ge=0.0, le=2.5)
    """A device's bandwidth falls with (devices / 2)^-contention: 0 behind a switch, above 0 through shared bridges."""
    in_sample: FitError | None = None
    held_out: FitError | None = None
    eager_launch_s: Seconds = Field(default=0.0, alias="eager_launch")
    """Launched one by one instead of in a captured graph: what the host takes to issue a call, and no call is shorter;
    waiting for the slowest rank included. 0: not measured."""
    eager_copy_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="eager_copy")
    """... and at which rate it first copies its message to a buffer that the other devices can read; none: no copy."""
    eager_in_sample: FitError | None = None
    eager_held_out: FitError | None = None
