"""Coefficients of the matrix-multiply model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, Seconds
from hermes_sim.hardware.fit_error import FitError

GemmDispatch = Literal["best", "rows_sm89", "rows_sm90", "rows_sm100", "blocks_sm89"]

GemmKernel = Literal[
    "fp8_block", "w8a16", "w4a16",
    "trtllm_bf16", "trtllm_fp8", "trtllm_fp8_block", "trtllm_fp4", "trtllm_int8", "trtllm_w8a16", "trtllm_w4a16",
]  # fmt: skip
"""Kernels with coefficients of their own beside those by dtype: [library_]format. fp8_block: weights with one scale for
each 128 x 128 block; w8a16, w4a16: integer weights that are widened to 16 bits where they are multiplied."""


class GemmEfficiency(Description):
    """Coefficients of the matrix-multiply model for one dtype (perf/operators/gemm.py).

    The defaults add nothing to a roofline with two efficiencies and a launch.
    """

    compute_frac: Fraction
    """Share of the dense peak reached inside a tile."""
    memory_frac: Fraction
    """Share of the memory bandwidth a large stream reaches."""
    launch_s: Seconds = Field(alias="launch")
    """Time of an empty kernel inside a captured graph."""
    prologue_elements: float = Field(default=0.0, ge=0.0)
    """Elements of k that filling the pipeline of a tile is worth."""
    wave_frac: Fraction = 0.0
    """0: waves of tiles count continuously; 1: only whole waves."""
    serial_frac: Fraction = 0.0
    """Share of the shorter of compute and memory time that is not hidden."""
    split_s: Seconds = Field(default=0.0, alias="split")
    """Synchronising the parts of a split sum."""
    core_streams: float = Field(default=2.0, ge=1.0)
    """One core can draw this multiple of its share of the memory bandwidth."""
    depth_s: Seconds = Field(default=0.0, alias="depth")
    """Latency of one element of k in a tile's main loop."""
    cache_speedup: float = Field(default=1.0, ge=1.0)
    """Bandwidth of the last-level cache over the memory's, for activations that fit it."""
    cache_frac: Fraction = 0.8
    """Share of the last-level cache that a product's activations find free."""
    operand_speedup: float | None = Field(default=None, ge=1.0)
    """Bandwidth at which all tiles together draw their operands from the cache, over the memory's; None: no limit."""
    write_frac: float = Field(default=1.0, gt=0.0, le=1.0)
    """Bandwidth of writing the result over that of reading."""
    ramp_s: Seconds = Field(default=0.0, alias="ramp")
    """Time until the memory streams at full bandwidth: short streams take up to twice as long."""
    dispatch: GemmDispatch = "best"
    """Who chooses the tile: `best`, the library, with split sums; `rows_*`, rows and columns alone
    (CUTLASS fp8); `blocks_*`, nobody: there is one (fp8 in blocks)."""
    quantize_row_s: Seconds = Field(default=0.0, alias="quantize_row")
    """Narrow dtypes: the kernel that scales the activations, per row."""
    quantize_element_s: Seconds = Field(default=0.0, alias="quantize_element")
    """... and per element."""
    dynamic_scale_s: Seconds = Field(default=0.0, alias="dynamic_scale")
    """Kernels that find the scale of all inputs, which a checkpoint that states the scale is spared: not served."""
    benchmark_warm_frac: Fraction = 0.0
    """A benchmark that repeats one product finds half of its weights in the last-level cache where they are this share
    of it. Says how a kernel was measured: weights that are served come from memory."""
    benchmark_warm_cost: Fraction = 1.0
    """Time of weights that are found there over that of weights from memory."""
    left_out: FitError | None = None
    """Where few shapes were measured: error on fitted ones that were left out in turn, with the band this gives."""
    in_sample: FitError | None = None
    """Error on the shapes that were fitted."""
    held_out: FitError | None = None
    """Error on shapes that were not fitted; None for estimates."""

    @property
    def band(self) -> FitError | None:
        """The error whose band is stated with a prediction."""
        return self.left_out or self.in_sample or self.held_out
