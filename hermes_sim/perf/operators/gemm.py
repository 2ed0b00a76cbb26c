"""Time of a dense matrix multiply: tiles, waves, split-K and a stream of bytes, on one device.

C[m, n] = A[m, k] B[k, n] is cut into output tiles, one core computes a tile. The library's choice of tile and split is
taken to be the best one. Source of the form: CUTLASS, "Efficient GEMM in CUDA" (threadblock tiles, split-K);
NVIDIA, "Matrix Multiplication Background User's Guide" (tile and wave quantisation, GEMM as a roofline).
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
COMPUTE_FRAC = 3  # share of the peak reached inside the largest tile
MEMORY_FRAC = 4  # share of the bandwidth a long stream reaches
LAUNCH_S = 5  # an empty kernel inside a captured graph
PROLOGUE = 6  # elements of k: filling the pipeline of a tile
WAVE_FRAC = 7  # 0: waves count continuously, 1: only whole waves
SERIAL_FRAC = 8  # share of the shorter of compute and memory that is not hidden
SPLIT_S = 9  # seconds: synchronising the parts of a split sum
CORE_STREAMS = 10  # one core can draw this multiple of its share of the bandwidth
DEPTH_S = 11  # seconds per element of k inside one tile: the latency chain of its main loop
CACHE_BYTES = 12  # activations (A and C) up to this size are still in the last-level cache
CACHE_SPEEDUP = 13  # bandwidth of that cache over the memory's, >= 1
WARM_BYTES = 14  # a benchmark that repeats one product finds weights below this size in the cache; 0 when serving
QUANTIZE_ROW_S = 15  # seconds per row of A: the kernel that scales activations to a narrow dtype
QUANTIZE_ELEMENT_S = 16  # seconds per element of A in that kernel
NUM_GEMM_COEFFICIENTS = 17

TILE_M = (16, 32, 64, 128, 128)
TILE_N = (64, 64, 128, 128, 256)
SPLITS = (1, 2, 4, 8, 16)


@compiled
def gemm_seconds(
    m: float,
    n: float,
    k: float,
    num_products: float,
    weight_bytes: float,
    activation_bytes: float,
    coefficients: FloatArray,
) -> tuple[float, bool]:
    """Seconds of `num_products` equal products A[m, k] B[k, n] in one kernel, and whether compute limits it.

    weight_bytes: all B together; activation_bytes: all A and C together. `m` and `num_products` may be fractional:
    expected values of a grouped product. Non-decreasing in m, num_products and bytes; never below the dense roofline
    of the memory level that holds the operands.
    """
    core_flops_per_s = coefficients[PEAK] * coefficients[COMPUTE_FRAC] / coefficients[NUM_CORES]
    stream_bytes_per_s = coefficients[BANDWIDTH] * coefficients[MEMORY_FRAC]
    if weight_bytes < coefficients[WARM_BYTES]:
        weight_bytes *= weight_bytes / coefficients[WARM_BYTES]
    if activation_bytes < coefficients[CACHE_BYTES]:
        activation_bytes /= coefficients[CACHE_SPEEDUP]
    quantize_s = num_products * m * (coefficients[QUANTIZE_ROW_S] + k * coefficients[QUANTIZE_ELEMENT_S])
    best_s = math.inf
    best_is_compute = False
    for shape in range(len(TILE_M)):
        tile_m, tile_n = TILE_M[shape], TILE_N[shape]
        tile_s = 2.0 * tile_m * tile_n / core_flops_per_s + coefficients[DEPTH_S]
        num_columns = num_products * math.ceil(n / tile_n)
        num_rows = math.ceil(m / tile_m)
        for split in SPLITS:
            waves = num_rows * num_columns * split / coefficients[NUM_CORES]
            waves += coefficients[WAVE_FRAC] * (math.ceil(waves) - waves)
            compute_s = max(waves, 1.0) * (k / split + coefficients[PROLOGUE]) * tile_s
            # row tiles share the stream of B: only columns and splits add to it
            weights_frac = num_columns * split * coefficients[CORE_STREAMS] / coefficients[NUM_CORES]
            activations_frac = weights_frac * max(m / tile_m, 1.0)
            fixed_s = coefficients[LAUNCH_S]
            moved_bytes = activation_bytes
            if split > 1:
                moved_bytes += 4.0 * num_products * m * n * split  # fp32 parts
                fixed_s += coefficients[SPLIT_S]
            memory_s = weight_bytes / min(weights_frac, 1.0) + moved_bytes / min(activations_frac, 1.0)
            memory_s /= stream_bytes_per_s
            longer_s, shorter_s = max(compute_s, memory_s), min(compute_s, memory_s)
            seconds = fixed_s + longer_s + coefficients[SERIAL_FRAC] * shorter_s
            if seconds < best_s:
                best_s = seconds
                best_is_compute = compute_s > memory_s
    return best_s + quantize_s, best_is_compute
