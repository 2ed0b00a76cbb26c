"""Coefficients of the attention model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import Description, Fraction, Seconds
from hermes_sim.hardware.fit_error import FitError

AttentionKernel = Literal[
    "fp8", "mla", "mla_fp8",
    "trtllm", "trtllm_fp8", "trtllm_fmha_fp8", "trtllm_mla", "trtllm_mla_fp8",
    "sglang_mla", "sglang_mla_fp8", "vllm_mla", "vllm_mla_fp8", "vllm_eager",
]  # fmt: skip
"""Kernels with coefficients of their own: [engine][_eager: of an older version, called one by one][_fmha: multiplies in
fp8][_mla: latent attention][_fp8: KV cache of fp8]."""


class AttentionEfficiency(Description):
    """Coefficients of the attention model (perf/operators/attention.py): shares, cycles of a core, a few launches.

    The defaults add nothing to a roofline but a short launch. Cycles are at the device's clock.
    """

    decode_launch_s: Seconds = Field(default=2e-6, alias="decode_launch")
    """The kernels of one layer (cache write, attention) with nothing to read."""
    decode_memory_frac: Fraction | None = None
    """Not given: the device's `attention_decode_memory_frac`."""
    decode_compute_frac: Fraction = 0.25
    decode_group_rows: float = Field(default=64.0, ge=0.0)
    """Query heads of one KV head that share a tile; 0: every query head has its own."""
    decode_largest_group: float | None = Field(default=None, gt=0.0)
    """Larger groups have a tile for every query head: no kernel for them."""
    decode_window_groups: bool = True
    """Whether they share a tile under a sliding window too, and without grouped heads keys are split."""
    decode_splits: bool = True
    """Keys of few tiles are split over idle cores."""
    decode_tile_cycles: float = Field(default=0.0, ge=0.0)
    """One tile on one core, for a head dimension of 128 ..."""
    decode_single_tile_frac: Fraction = 1.0
    """The same with one query head, where kernels for single heads have lighter tiles, as a share of it."""
    decode_dim_exponent: float = Field(default=0.0, ge=0.0, le=1.0)
    """... and its power of (head dimension / 128)."""
    decode_wave_frac: Fraction = 0.0
    """How much of a full wave of tiles a broken one costs."""
    decode_block_cycles: float = Field(default=0.0, ge=0.0)
    """128 keys of one tile, all cores busy."""
    decode_walk_cycles: float = Field(default=0.0, ge=0.0)
    """128 keys of one tile, on a core that has nothing else to do."""
    decode_serial_frac: Fraction = 0.0
    decode_hidden_blocks: float = Field(default=32.0, gt=0.0)
    """Blocks of keys per core behind which half of the tiles' fixed cost is hidden."""
    decode_combine_s: Seconds = Field(default=0.0, alias="decode_combine")
    """Adding up the parts of split keys ..."""
    decode_combine_log_s: Seconds = Field(default=0.0, alias="decode_combine_log")
    """... and per doubling of the context."""
    decode_regroup_s: Seconds = Field(default=0.0, alias="decode_regroup")
    """Copies that bring the queries of one KV head together, more than one sequence and KV head."""
    decode_ramp_s: Seconds = Field(default=0.0, alias="decode_ramp")
    """Bytes that memory reads within this time take up to twice as long: too few are under way at once."""
    decode_window_s: Seconds = Field(default=0.0, alias="decode_window")
    """Masking of contexts longer than the window."""
    prefill_launch_s: Seconds = Field(default=2e-6, alias="prefill_launch")
    prefill_compute_frac: Fraction | None = None
    """Not given: the device's `attention_prefill_compute_frac`."""
    prefill_memory_frac: Fraction = 0.5
    prefill_memory_serial_frac: Fraction = 0.0
    prefill_cache_frac: float = Field(default=1.0, gt=0.0)
    """Bytes of new tokens, in shares of the last-level cache, that are half found in it."""
    prefill_cache_speedup: float = Field(default=1.0, ge=1.0)
    """How much faster than memory it is."""
    prefill_write_factor: float = Field(default=1.0, ge=1.0)
    """Keys and values are written to scattered slots: their bytes count so many times."""
    prefill_token_cycles: float = Field(default=0.0, ge=0.0)
    """Cycles of one core per new token, to write it to its slot."""
    prefill_groups: bool = False
    """Tiles hold queries of all heads of one KV head."""
    prefill_tile_cycles: float = Field(default=0.0, ge=0.0)
    prefill_dim_exponent: float = Field(default=0.0, ge=0.0, le=1.0)
    prefill_wave_frac: Fraction = 0.0
    prefill_serial_frac: Fraction = 0.0
    prefill_wide_frac: float = Field(default=0.0, ge=0.0)
    """Head dimensions above 128 take longer by this share per further 128."""
    softmax_cycles: float = Field(default=0.0, ge=0.0)
    """Cycles of one core per query-key pair and head: exponentials that the matrix units wait for."""
    diagonal_pairs: float = Field(default=0.0, ge=0.0)
    """Pairs per new token in the half-filled tiles on the diagonal."""
    row_tokens: float = Field(default=128.0, ge=0.0)
    """Queries in the tile that one core walks over the whole context."""
    window_row_tokens: float = Field(default=0.0, ge=0.0)
    """Keys beyond the window that this tile walks over."""
    mixed_row_tokens: float = Field(default=0.0, ge=0.0, le=128.0)
    """Rows that a decode fills where prompts and decodes go through one kernel; 0: they have kernels of their own."""
    mixed_tile_cycles: float = Field(default=0.0, ge=0.0)
    """One tile of a decode there, beside its keys."""
    mixed_empty_cycles: float = Field(default=0.0, ge=0.0)
    """One of the tiles that such a kernel launches for every sequence as for a prompt, without rows in it."""
    mixed_cache_frac: float = Field(default=1.0, gt=0.0)
    """Keys of one KV head of all decodes, in shares of the last-level cache, that it half keeps for the next head."""
    benchmark_cache_frac: float = Field(default=1.0, gt=0.0)
    """A benchmark repeats one batch of decodes: KV bytes, in shares of the last-level cache, that it half finds there.
    Servers, whose weights pass through the cache between two steps, are priced without it."""
    benchmark_cache_speedup: float = Field(default=1.0, ge=1.0)
    decode_in_sample: FitError | None = None
    prefill_in_sample: FitError | None = None
    decode_held_out: FitError | None = None
    prefill_held_out: FitError | None = None
