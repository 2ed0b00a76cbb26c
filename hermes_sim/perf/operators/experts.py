"""Time of a layer of experts on one device: routing, two grouped products, activation and combination.

A grouped product multiplies the rows of each expert with that expert's matrix in one kernel. Rows of one expert fill
tiles of their own, so few rows an expert waste most of a tile; weights of the experts that have any row are read once.
Sources of the form: MegaBlocks (arXiv 2211.15841, section 4: padded blocks of rows), vLLM's fused_moe kernel (rows
sorted by expert and padded to BLOCK_SIZE_M), CUTLASS grouped GEMM (tiles of all groups in one launch).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

FloatArray = npt.NDArray[np.float64]

PEAK = 0  # flop/s of the whole device, dense
BANDWIDTH = 1  # byte/s
NUM_CORES = 2
COMPUTE_FRAC = 3  # share of the peak inside a tile of many rows
MEMORY_FRAC = 4  # share of the bandwidth the weights are streamed at
LAUNCH_S = 5  # all kernels of the layer with nothing to do
HALF_RATE_ROWS = 6  # rows of a tile at which it reaches half of compute_frac
WAVE_FRAC = 7  # 0: waves of tiles count continuously, 1: only whole waves
SERIAL_FRAC = 8  # share of the shorter of compute and memory that is not hidden
DEPTH_S = 9  # seconds per element of k inside one tile
AWAY_FRAC = 10  # share of rows of other devices' experts that the small kernels still pass over
STREAM_FRAC = 11  # share of the bandwidth of activation and combination
TOKEN_S = 12  # choosing and sorting, per token
EXPERT_S = 13  # per expert that has rows
CACHE_BYTES = 14  # rows up to this size are still in the last-level cache
CACHE_SPEEDUP = 15  # bandwidth of that cache over the memory's, >= 1
NUM_EXPERT_COEFFICIENTS = 16

TILE_ROWS = (16, 32, 64, 128, 128)
TILE_COLUMNS = (64, 64, 128, 128, 256)

NUM_PRODUCTS = 2.0
"""Grouped products of a layer: its fixed times are shared out evenly."""


@compiled
def grouped_product_seconds(
    num_rows: float,
    num_active: float,
    n: float,
    k: float,
    weight_bytes: float,
    row_bytes: float,
    even: bool,
    coefficients: FloatArray,
) -> tuple[float, bool]:
    """Seconds of one grouped product over `num_active` experts that have `num_rows` rows together; True if compute.

    weight_bytes: of all active experts; row_bytes: inputs and outputs of all rows. even: every expert has as many
    rows; otherwise rows fall on experts by chance, and the expected tiles of an expert with a geometric number of rows
    of mean r are 1 / (1 - exp(-tile / r)): one for a few rows, r / tile + 1/2 for many. Rising in both.
    """
    rows_per_expert = num_rows / num_active
    memory_s = (weight_bytes + row_bytes) / (coefficients[BANDWIDTH] * coefficients[MEMORY_FRAC])
    core_flops_per_s = coefficients[PEAK] * coefficients[COMPUTE_FRAC] / coefficients[NUM_CORES]
    best_s = math.inf
    best_is_compute = False
    for shape in range(len(TILE_ROWS)):
        rows, columns = TILE_ROWS[shape], TILE_COLUMNS[shape]
        tiles = math.ceil(rows_per_expert / rows) if even else 1.0 / -math.expm1(-rows / rows_per_expert)
        waves = num_active * tiles * math.ceil(n / columns) / coefficients[NUM_CORES]
        waves = max(waves + coefficients[WAVE_FRAC] * (math.ceil(waves) - waves), 1.0)
        element_s = 2.0 * (rows + coefficients[HALF_RATE_ROWS]) * columns / core_flops_per_s + coefficients[DEPTH_S]
        compute_s = waves * k * element_s
        longer_s, shorter_s = max(compute_s, memory_s), min(compute_s, memory_s)
        seconds = longer_s + coefficients[SERIAL_FRAC] * shorter_s
        if seconds < best_s:
            best_s = seconds
            best_is_compute = compute_s > memory_s
    fixed_s = (coefficients[LAUNCH_S] + num_active * coefficients[EXPERT_S]) / NUM_PRODUCTS
    return fixed_s + best_s, best_is_compute


@compiled
def expert_stream_seconds(num_tokens: float, num_bytes: float, coefficients: FloatArray) -> float:
    """Seconds of one of the two passes over rows, activation or combination, with its half of sorting the tokens."""
    if num_bytes < coefficients[CACHE_BYTES]:
        num_bytes /= coefficients[CACHE_SPEEDUP]
    seconds = num_bytes / (coefficients[BANDWIDTH] * coefficients[STREAM_FRAC])
    return float(seconds + num_tokens * coefficients[TOKEN_S] / NUM_PRODUCTS)


@compiled
def passed_rows(num_rows: float, num_all_rows: float, coefficients: FloatArray) -> float:
    """Rows that activation and combination pass over: own ones, and a share of those of other devices' experts."""
    return float(num_rows + coefficients[AWAY_FRAC] * max(num_all_rows - num_rows, 0.0))
