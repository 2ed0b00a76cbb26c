"""The cost model of a device: what its kernels reach."""

from __future__ import annotations

from pydantic import Field

from hermes_sim.core.schema import Description, Dtype, Fraction, Seconds, Source
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency, AttentionKernel
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency, ExpertFormat
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency, GemmKernel
from hermes_sim.hardware.search_efficiency import SearchEfficiency


class CostModel(Description):
    """Efficiencies of this device's kernels (see docs/modelling.md for the equations)."""

    gemm: dict[Dtype, GemmEfficiency] = Field(min_length=1)
    """By dtype, as the device's most common engine multiplies (vLLM on GPUs)."""
    gemm_kernels: dict[GemmKernel, GemmEfficiency] = Field(default={})
    """Kernels of other engines and formats; what is not here takes the nearest one, `gemm` last."""
    attention_prefill_compute_frac: Fraction
    attention_decode_memory_frac: Fraction
    elementwise_memory_frac: Fraction
    elementwise_launch_s: Seconds = Field(default=2e-6, alias="elementwise_launch")
    """One small kernel inside a captured graph."""
    kernel_launch_s: Seconds = Field(alias="kernel_launch")
    """Host-side time per kernel when steps are not captured as graphs."""
    elementwise: dict[ElementwiseKind, ElementwiseEfficiency] = Field(default={})
    """Small kernels by kind; the others take `elementwise_memory_frac` and `elementwise_launch`."""
    experts: dict[ExpertFormat, ExpertEfficiency] = Field(default={})
    """By format; a format without an entry takes the nearest one, or what dense products of its dtype reach."""
    attention: AttentionEfficiency = AttentionEfficiency()
    """vLLM's default kernels on a cache of 16-bit numbers."""
    attention_kernels: dict[AttentionKernel, AttentionEfficiency] = Field(default={})
    """Kernels measured apart; what is not here takes the next less special, `attention` last."""
    search: SearchEfficiency | None = None
    """Vector search; if not given the class's, and the data sheet's `scan_rate_per_core`."""
    source: Source
