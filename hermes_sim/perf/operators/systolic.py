"""Time of a matrix multiply on systolic arrays: cycles from the shape, bytes from what the buffer can hold.

C[m, n] = A[m, k] B[k, n], B the weights. An array of R x C multiply-accumulate cells holds one operand (weight
stationary: a tile of B) or the results (output stationary: a tile of C) and streams the others through. A fold is one
tile; with T rows or elements streamed it takes

    2 R + C + T - 2 cycles:  R to load (or drain) the cells, R + C - 2 for the skew of the wave front, T for the stream.

Sources: Samajdar et al., "SCALE-Sim", arXiv 1811.02883, and ISPASS 2020, equations 1 to 3 (cycles of a fold, number of
folds); Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit", ISCA 2017 (weights of the next
tile are shifted in behind those in use); Chen et al., "Eyeriss", ISCA 2016 (bytes from the reuse that a buffer allows).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

FloatArray = npt.NDArray[np.float64]

SYSTOLIC_ROWS = 0
SYSTOLIC_COLUMNS = 1
NUM_ARRAYS = 2
OUTPUT_STATIONARY = 3  # 1: results stay in the cells; 0: weights do
PRELOADS = 4  # 1: the next tile's weights are loaded behind the present one
BUFFER_BYTES = 5  # on-chip memory that one operand's tiles find room in; 0: no limit
OVERLAPS = 6  # 1: the next tiles are read while these are multiplied (double buffering)
NUM_SYSTOLIC_COEFFICIENTS = 7


@compiled
def systolic_cycles(m: float, n: float, k: float, num_products: float, arrays: FloatArray) -> float:
    """Cycles of `num_products` products until the last array is done; folds are dealt out evenly."""
    rows, columns = arrays[SYSTOLIC_ROWS], arrays[SYSTOLIC_COLUMNS]
    if arrays[OUTPUT_STATIONARY] > 0.0:
        folds, streamed = math.ceil(m / rows) * math.ceil(n / columns), k
    else:
        folds, streamed = math.ceil(k / rows) * math.ceil(n / columns), m
    folds = math.ceil(num_products * folds / arrays[NUM_ARRAYS])
    cycles: float = folds * (2.0 * rows + columns + streamed - 2.0)
    if arrays[PRELOADS] > 0.0:
        cycles = rows + (folds - 1) * max(streamed, rows) + streamed + rows + columns - 2.0
    return cycles


@compiled
def systolic_bytes(
    m: float, n: float, k: float, num_products: float, weight_bytes: float, activation_bytes: float, arrays: FloatArray
) -> float:
    """Bytes from and to memory: each operand once, one of them again for each part of the other that the buffer holds.

    The cheaper of two loops: a part of the weights stays while all activations pass, or a part of the inputs stays
    while all weights pass. Partial sums of a k that does not fit are written and read again.
    """
    room = arrays[BUFFER_BYTES]
    if room <= 0.0:
        return weight_bytes + activation_bytes
    inputs = activation_bytes * k / (k + n)
    outputs = activation_bytes - inputs
    one_weights, one_inputs = weight_bytes / num_products, inputs / num_products
    weights_stay = weight_bytes + inputs * math.ceil(one_weights / room)
    inputs_stay = inputs + weight_bytes * math.ceil(one_inputs / room)
    column_bytes = one_weights / n * min(n, arrays[SYSTOLIC_COLUMNS])  # all of k for one column of arrays
    passes = math.ceil(column_bytes / room)
    moved: float = min(weights_stay, inputs_stay) + outputs * (2.0 * passes - 1.0)
    return moved


@compiled
def systolic_gemm_seconds(
    m: float,
    n: float,
    k: float,
    num_products: float,
    weight_bytes: float,
    activation_bytes: float,
    peak_flops_per_s: float,
    stream_bytes_per_s: float,
    arrays: FloatArray,
) -> tuple[float, bool]:
    """Seconds of the products without their launch, and whether the arrays limit them.

    One cycle is what the peak says, stalls included: two FLOPs in each cell of each array.
    """
    cells = arrays[SYSTOLIC_ROWS] * arrays[SYSTOLIC_COLUMNS] * arrays[NUM_ARRAYS]
    compute_s = systolic_cycles(m, n, k, num_products, arrays) * 2.0 * cells / peak_flops_per_s
    memory_s = systolic_bytes(m, n, k, num_products, weight_bytes, activation_bytes, arrays) / stream_bytes_per_s
    longer_s = max(compute_s, memory_s)
    if arrays[OVERLAPS] > 0.0:
        return longer_s, compute_s > memory_s
    return compute_s + memory_s, compute_s > memory_s
