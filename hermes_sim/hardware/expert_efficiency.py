"""Coefficients of the model of a layer of experts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Bytes, Description, Fraction, NonNegativeFloat, Seconds
from hermes_sim.hardware.fit_error import FitError

ExpertFormat = Literal[
    "bf16", "fp8", "fp8_block", "fp4", "mxfp4", "w4a16", "w4a8",
    "trtllm_bf16", "trtllm_fp8", "trtllm_fp8_block", "trtllm_fp4", "trtllm_mxfp4", "trtllm_w4a8",
    "bf16_cutlass", "fp8_cutlass", "fp8_block_modular", "fp8_block_triton", "fp4_cutlass", "fp4_modular",
    "mxfp4_marlin", "trtllm_bf16_nongated", "trtllm_fp8_nongated", "trtllm_fp4_nongated", "trtllm_fp4_min_latency",
]  # fmt: skip
"""What the experts' kernels multiply: weights and activations alike (fp8_block: scales of 128 x 128 blocks), or 4-bit
weights with activations in bf16 (mxfp4, with a scale per 32; w4a16, integers) or in fp8 (w4a8). `trtllm_`:
TensorRT-LLM's kernels; without: vLLM's. With a name behind: another kernel of the same format than the library's usual
one on the device; only measured tables that name this kernel are compared with it."""


class ExpertEfficiency(Description):
    """Coefficients of a layer of experts for one format (perf/operators/experts.py)."""

    compute_frac: Fraction
    """Share of the dense peak reached inside a tile of many rows."""
    memory_frac: Fraction
    """Share of the memory bandwidth the weights are streamed at."""
    launch_s: Seconds = Field(default=0.0, alias="launch")
    """All kernels of a layer with nothing to do."""
    half_rate_rows: NonNegativeFloat = 0.0
    """Rows of a tile at which it reaches half of compute_frac."""
    wave_frac: Fraction = 0.0
    """0: waves of tiles count continuously; 1: only whole waves."""
    serial_frac: Fraction = 0.0
    """Share of the shorter of compute and memory time that is not hidden."""
    depth_s: Seconds = Field(default=0.0, alias="depth")
    """Latency of one element of k in a tile's main loop."""
    away_frac: Fraction = 0.0
    """Share of the rows of other devices' experts that activation and combination still pass over."""
    stream_frac: Fraction = 1.0
    """Share of the memory bandwidth of activation and combination."""
    token_s: Seconds = Field(default=0.0, alias="token")
    """Choosing and sorting, per token."""
    expert_s: Seconds = Field(default=0.0, alias="expert")
    """Per expert that has rows."""
    cache_speedup: float = Field(default=1.0, ge=1.0)
    """Bandwidth of the last-level cache over the memory's, for rows that fit it."""
    benchmark_warm_bytes: Bytes = Field(default=0.0, alias="benchmark_warm")
    """The tables' benchmark repeats one layer: half of the weights of a layer this large are still in the cache. Served
    layers find none."""
    benchmark_warm_exponent: NonNegativeFloat = 4.0
    """How sharply small layers stay and large ones do not: the share that stays is 1 / (1 + (size / warm)^exponent)."""
    benchmark_warm_cost: Fraction = 0.0
    """Time of a weight from the cache over that of one from memory."""
    in_sample: FitError | None = None
    held_out: FitError | None = None
