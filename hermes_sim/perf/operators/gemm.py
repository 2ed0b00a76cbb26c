"""Time of a dense matrix multiply: tiles, waves, split-K and a stream of bytes, on one device.

C[m, n] = A[m, k] B[k, n] is cut into output tiles, one core computes a tile. The library's choice of tile and split is
taken to be the best one, or the one that a dispatch by rows and columns makes. Source of the form: CUTLASS, "Efficient
GEMM in CUDA" (threadblock tiles, split-K); NVIDIA, "Matrix Multiplication Background User's Guide" (tile and wave
quantisation, GEMM as a roofline).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.perf.operators.systolic import NUM_SYSTOLIC_COEFFICIENTS, SYSTOLIC_ROWS, systolic_gemm_seconds
from hermes_sim.perf.residual import residual_log_ratio

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
CACHE_BYTES = 12  # activations (A and C) up to this size are still in the last-level cache, beyond twice it none are
CACHE_SPEEDUP = 13  # bandwidth of that cache over the memory's, >= 1
WARM_BYTES = 14  # half of the weights of this size are still in the cache when a benchmark repeats; 0 when serving
QUANTIZE_ROW_S = 15  # seconds per row of A: the kernel that scales activations to a narrow dtype
QUANTIZE_ELEMENT_S = 16  # seconds per element of A in that kernel
OPERAND_SPEEDUP = 17  # bandwidth at which all tiles draw A and B from the cache, over the memory's; 0: not limited
WRITE_FRAC = 18  # bandwidth of writing C over that of reading
DISPATCH = 19  # index into DISPATCHES
RAMP_S = 20  # seconds until the memory streams at full bandwidth
WARM_COST = 21  # time of weights from that cache over that from memory
WIDEN_S = 22  # seconds that one core takes to widen one weight before it is multiplied; 0: multiplied as stored
SYSTOLIC = 23  # systolic arrays (perf/operators/systolic.py); 0 rows: none
NUM_GEMM_COEFFICIENTS = SYSTOLIC + NUM_SYSTOLIC_COEFFICIENTS

TILE_M = (16, 32, 64, 64, 128, 128, 192, 256, 64)
TILE_N = (64, 64, 64, 128, 128, 256, 128, 128, 256)
MAX_SPLITS = 16

WARM_EXPONENT = 6.0
"""How sharply weights stop being found in the cache as they outgrow it."""

DISPATCHES = ("best", "rows_sm89", "rows_sm90", "rows_sm100", "blocks_sm89")
"""Who chooses the tile: the library, well and with split sums; or rows and columns alone, as CUTLASS kernels of vLLM
(rows_*); or nobody, as TensorRT-LLM has one tile for fp8 in blocks on Ada.

Source of the ladders: vLLM, csrc/quantization/w8a8/cutlass, scaled_mm dispatch of fp8 for sm89, sm90, sm100;
TensorRT-LLM, cpp/tensorrt_llm/kernels/cutlass_kernels/fp8_blockscale_gemm, gemm_dispatch_sm89.
"""
LADDERS = (
    (
        (16, 8192, 16, 64, 1, 1), (16, 16384, 16, 128, 1, 1), (16, np.inf, 32, 64, 1, 1),
        (32, 8192, 32, 64, 1, 1), (32, 16384, 32, 128, 1, 1), (32, np.inf, 32, 64, 1, 1),
        (64, 8192, 64, 64, 1, 1), (64, 16384, 64, 128, 1, 1), (64, np.inf, 64, 64, 1, 1),
        (128, 8192, 64, 128, 1, 1), (128, 16384, 128, 128, 1, 1), (128, np.inf, 128, 64, 1, 1),
        (256, 4096, 64, 128, 1, 1), (256, np.inf, 128, 128, 1, 1),
        (np.inf, 4096, 128, 128, 1, 1), (np.inf, 8192, 256, 128, 1, 1), (np.inf, np.inf, 128, 128, 1, 1),
    ),
    (
        (16, 1280, 16, 64, 2, 1), (16, np.inf, 16, 64, 1, 1),
        (64, 1280, 16, 64, 4, 1), (64, np.inf, 64, 64, 1, 1),
        (128, np.inf, 64, 128, 2, 1),
        (np.inf, np.inf, 128, 128, 2, 1),
    ),
    (
        (16, np.inf, 32, 128, 1, 4), (64, np.inf, 64, 128, 1, 4),
        (256, np.inf, 64, 128, 2, 1),
        (np.inf, np.inf, 128, 128, 2, 2),
    ),
    (
        (np.inf, np.inf, 32, 128, 1, 1),
    ),
)  # fmt: skip
"""[dispatch - 1][step]: rows up to, columns up to, tile_m, tile_n, rows and columns of tiles in a cluster, which are
started together; the first step that holds a product is taken."""
STEPS = np.array([[*ladder, *ladder[-1:] * (max(map(len, LADDERS)) - len(ladder))] for ladder in LADDERS])
"""The same as one array: the last step again where a ladder is shorter."""


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
    if coefficients[SYSTOLIC + SYSTOLIC_ROWS] > 0.0:
        array_s, array_is_compute = systolic_gemm_seconds(
            m, n, k, num_products, weight_bytes, activation_bytes, coefficients[PEAK] * coefficients[COMPUTE_FRAC],
            coefficients[BANDWIDTH] * coefficients[MEMORY_FRAC], coefficients[SYSTOLIC:],
        )  # fmt: skip
        return coefficients[LAUNCH_S] + array_s, array_is_compute
    core_flops_per_s = coefficients[PEAK] * coefficients[COMPUTE_FRAC] / coefficients[NUM_CORES]
    stream_bytes_per_s = coefficients[BANDWIDTH] * coefficients[MEMORY_FRAC]
    operand_s = 0.0  # per row and column of a tile
    if coefficients[OPERAND_SPEEDUP] > 0.0:
        operand_s = weight_bytes / (num_products * n) / (coefficients[OPERAND_SPEEDUP] * stream_bytes_per_s)
    cached_frac = 1.0 - 1.0 / coefficients[CACHE_SPEEDUP]
    warm_bytes = coefficients[WARM_BYTES]
    if warm_bytes > 0.0:
        warm_frac = 1.0 / (1.0 + (weight_bytes / warm_bytes) ** WARM_EXPONENT)
        weight_bytes *= 1.0 - warm_frac * (1.0 - coefficients[WARM_COST])
    activation_bytes *= (k + n / coefficients[WRITE_FRAC]) / (k + n)
    if activation_bytes < 2.0 * coefficients[CACHE_BYTES]:
        activation_bytes *= 1.0 - min(2.0 - activation_bytes / coefficients[CACHE_BYTES], 1.0) * cached_frac
    quantize_s = num_products * m * (coefficients[QUANTIZE_ROW_S] + k * coefficients[QUANTIZE_ELEMENT_S])
    ramp_s = coefficients[RAMP_S]
    dispatch = int(coefficients[DISPATCH])
    num_shapes, max_splits = len(TILE_M), MAX_SPLITS
    if dispatch > 0:
        num_shapes, max_splits = 1, 1
    cluster_m, cluster_n = 1.0, 1.0
    best_s = math.inf
    best_is_compute = False
    for shape in range(num_shapes):
        tile_m, tile_n = float(TILE_M[shape]), float(TILE_N[shape])
        if dispatch > 0:
            step = 0
            while m > STEPS[dispatch - 1, step, 0] or n > STEPS[dispatch - 1, step, 1]:
                step += 1
            tile_m, tile_n = STEPS[dispatch - 1, step, 2], STEPS[dispatch - 1, step, 3]
            cluster_m, cluster_n = STEPS[dispatch - 1, step, 4], STEPS[dispatch - 1, step, 5]
        tile_s = 2.0 * tile_m * tile_n / core_flops_per_s + coefficients[DEPTH_S]
        tile_s += min(tile_n, n) * coefficients[WIDEN_S]  # each row of tiles widens the weights again
        num_columns = num_products * math.ceil(n / (tile_n * cluster_n)) * cluster_n
        num_tiles = math.ceil(m / (tile_m * cluster_m)) * cluster_m * num_columns
        tiles_s = num_tiles * (tile_m + tile_n) * operand_s
        splits = 1
        while splits <= max_splits:
            waves = num_tiles * splits / coefficients[NUM_CORES]
            compute_s = waves + coefficients[WAVE_FRAC] * (math.ceil(waves) - waves)
            compute_s = max(compute_s, 1.0) * (k / splits + coefficients[PROLOGUE]) * tile_s
            # row tiles share the stream of B: only columns and splits add to it
            weights_frac = num_columns * splits * coefficients[CORE_STREAMS] / coefficients[NUM_CORES]
            activations_frac = weights_frac * max(m / tile_m, 1.0)
            fixed_s = coefficients[LAUNCH_S]
            moved_bytes = activation_bytes
            if splits > 1:
                moved_bytes += 4.0 * num_products * m * n * splits * (1.0 - cached_frac)  # fp32 parts
                fixed_s += coefficients[SPLIT_S]
            memory_s = weight_bytes / min(weights_frac, 1.0) + moved_bytes / min(activations_frac, 1.0)
            memory_s /= stream_bytes_per_s
            if ramp_s > 0.0:
                memory_s += ramp_s * memory_s / (memory_s + ramp_s)
            memory_s = max(memory_s, tiles_s)
            seconds = fixed_s + max(compute_s, memory_s) + coefficients[SERIAL_FRAC] * min(compute_s, memory_s)
            if seconds < best_s:
                best_s = seconds
                best_is_compute = compute_s > memory_s
            if waves >= 2.0:
                break
            splits *= 2
    return best_s + quantize_s, best_is_compute


@compiled
def corrected_gemm_seconds(
    m: float, n: float, k: float, weight_bytes: float, activation_bytes: float, coefficients: FloatArray
) -> tuple[float, bool]:
    """Seconds of one dense product, corrected by the residual table that follows the coefficients, if there is one.

    A correction is at most a factor of two and never takes the time below the dense peak.
    """
    seconds, is_compute = gemm_seconds(m, n, k, 1.0, weight_bytes, activation_bytes, coefficients)
    if len(coefficients) > NUM_GEMM_COEFFICIENTS:
        log_ratio, _ = residual_log_ratio(coefficients[NUM_GEMM_COEFFICIENTS:], m, n, k, 1.0)
        seconds = max(seconds * math.exp(log_ratio), 2.0 * m * n * k / coefficients[PEAK])
    return seconds, is_compute
