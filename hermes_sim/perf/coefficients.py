"""Numbers of a device in the order in which compiled cost functions read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency, GemmKernel
from hermes_sim.hardware.narrow_weights import EXPANDING_OPS, UNSTATED_VECTOR_SHARE, WIDENING_OPS
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.hardware.systolic import Systolic
from hermes_sim.models.sparsity import Sparsity
from hermes_sim.perf.operators import gemm, systolic
from hermes_sim.perf.residual import pack_residual, pad_residuals

FloatArray = npt.NDArray[np.float64]

WIDER: dict[Dtype, tuple[Dtype, ...]] = {
    "fp32": ("tf32",),
    "tf32": ("fp32",),
    "bf16": ("fp16", "tf32", "fp32"),
    "fp16": ("bf16", "tf32", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "fp6": ("fp8", "bf16", "fp16", "fp32"),
    "int6": ("int8", "bf16", "fp16", "fp32"),
    "int5": ("int8", "bf16", "fp16", "fp32"),
    "fp4": ("fp8", "bf16", "fp16", "fp32"),
    "int4": ("int8", "bf16", "fp16", "fp32"),
    "int3": ("int4", "int8", "bf16", "fp16", "fp32"),
    "int2": ("int4", "int8", "bf16", "fp16", "fp32"),
}
"""Where a device lacks a dtype: formats its kernels widen to, nearest first (weight-only kernels such as Marlin)."""

BLOCK_SCALE_BYTES = 4.0 / 128**2
"""Of one weight of a 128 x 128 block with one scale; one scale a column is far less."""

MEASURED_LIBRARY: KernelLibrary = "trtllm"
"""Whose kernels stand for formats of which no others are measured: fp8 by blocks (CUTLASS on Hopper, DeepGEMM on
Blackwell, as in vLLM and SGLang) and integers (their own for CUTLASS and Marlin)."""


class StoredWeights(NamedTuple):
    """How the weights of a product lie in memory, where that is not as they are multiplied."""

    dtype: Dtype
    sparsity: Sparsity | None = None


class Product(NamedTuple):
    """What a product multiplies in, and the kernel with coefficients of its own, if any."""

    dtype: Dtype
    kernel: GemmKernel | None = None
    stored: StoredWeights | None = None


CACHE_SHARE_FRAC = 0.8
"""Share of the last-level cache that the activations of one small kernel find free."""


def supported_dtype(device: Device, dtype: Dtype) -> Dtype | None:
    """The dtype in which the device multiplies what is stored as `dtype`; None where it has none."""
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in device.peak_flops_per_s:
            return candidate
    return None


def peak_flops_per_s(device: Device, dtype: Dtype) -> float:
    """Dense peak for operands stored as `dtype`, after widening."""
    supported = supported_dtype(device, dtype)
    if supported is None:
        raise ValueError(f"device '{device.name}' multiplies neither {dtype} nor anything wider")
    return device.peak_flops_per_s[supported]


def gemm_kernel(
    device: Device, dtype: Dtype, bytes_per_weight: float, library: KernelLibrary = "vllm"
) -> GemmKernel | None:
    """The kernel with coefficients of its own that an engine of this library runs; None: those by dtype stand.

    bytes_per_weight: as stored, scales included; it tells blocks from columns, and weight-only formats.
    """
    own, by_dtype = device.cost_model.gemm_kernels, device.cost_model.gemm
    for candidate in (dtype, *WIDER[dtype]):
        if candidate not in device.peak_flops_per_s:
            continue
        plain = "bf16" if candidate == "fp16" else candidate
        form = _weight_format(plain, bytes_per_weight)
        names = [f"{library}_{form}", *([form, f"{MEASURED_LIBRARY}_{form}"] if form != plain else [])]
        names += [f"{library}_{plain}", *([f"{MEASURED_LIBRARY}_{plain}"] if candidate not in by_dtype else [])]
        for name, kernel in ((name, kernel) for name in names for kernel in own):
            if kernel == name:
                return kernel
        if candidate in by_dtype:
            return None
    return None


def _weight_format(dtype: str, bytes_per_weight: float) -> str:
    """Format of weights of so many bytes that are multiplied in `dtype`."""
    if dtype == "fp8" and bytes_per_weight > DTYPE_BYTES["fp8"] + 0.5 * BLOCK_SCALE_BYTES:
        return "fp8_block"
    if dtype == "bf16" and bytes_per_weight < 1.5 * DTYPE_BYTES["int8"]:
        return "w8a16" if bytes_per_weight > 0.75 * DTYPE_BYTES["int8"] else "w4a16"
    return dtype


def gemm_efficiency(device: Device, dtype: Dtype, kernel: GemmKernel | None = None) -> GemmEfficiency:
    """The kernel's or dtype's own coefficients, else those of the nearest wider dtype, else the first ones given."""
    if kernel is not None:
        return device.cost_model.gemm_kernels[kernel]
    table = device.cost_model.gemm
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in table and candidate in device.peak_flops_per_s:
            return table[candidate]
    return next(iter(table.values()))


def vector_ops_per_s(device: Device) -> float:
    """Instructions of all lanes of the vector units per second: half of their FLOPs, a multiply-add being two."""
    peaks = device.peak_flops_per_s
    if device.vector_flops_per_s is not None:
        return device.vector_flops_per_s / 2.0
    widest = max(peaks, key=lambda held: DTYPE_BYTES[held])
    return (peaks["fp32"] if "fp32" in peaks else peaks[widest] * UNSTATED_VECTOR_SHARE) / 2.0


def widening_ops(
    device: Device, dtype: Dtype, kernel: GemmKernel | None = None, stored: StoredWeights | None = None
) -> float:
    """Vector instructions per weight before a product in `dtype`; 0 where the units take weights as they are stored.

    Coefficients of a kernel measured with such weights have them inside. Looked-up weights are not widened.
    """
    stored = stored or StoredWeights(dtype)
    multiplied = supported_dtype(device, dtype) or dtype
    is_measured = kernel is not None and kernel.removeprefix(f"{MEASURED_LIBRARY}_") not in DTYPE_BYTES
    is_looked_up = is_measured or stored.dtype in device.lut_flops_per_s
    ops = 0.0
    if DTYPE_BYTES[stored.dtype] < DTYPE_BYTES[multiplied] and not is_looked_up:
        ops = WIDENING_OPS.get(stored.dtype, 0.0)
    if stored.sparsity is None:
        return ops
    held = (frac for pattern, frac in stored.sparsity.parts() if pattern and pattern not in device.sparse_speedup)
    return ops + EXPANDING_OPS * sum(held)


def product_peak_flops_per_s(device: Device, dtype: Dtype, stored: StoredWeights | None) -> float:
    """Peak of a product, zeros of its weights counted: looked up, or dense, or skipping zeros.

    Layers of several patterns: the peak at which all of them take as long as each at its own.
    """
    peak = peak_flops_per_s(device, dtype)
    if stored is None:
        return peak
    if stored.dtype in device.lut_flops_per_s and DTYPE_BYTES[stored.dtype] < DTYPE_BYTES[dtype]:
        peak = device.lut_flops_per_s[stored.dtype]
    if stored.sparsity is None:
        return peak
    return peak / sum(frac / device.sparse_speedup.get(pattern or "", 1.0) for pattern, frac in stored.sparsity.parts())


def borrows_for_narrow(device: Device, dtype: Dtype) -> bool:
    """Whether a product below 16 bits takes coefficients of a wider one, which know no scaling of the activations."""
    if supported_dtype(device, dtype) != dtype or DTYPE_BYTES[dtype] >= DTYPE_BYTES["bf16"]:
        return False
    return dtype not in device.cost_model.gemm


def gemm_coefficients(
    device: Device,
    dtype: Dtype,
    kernel: GemmKernel | None = None,
    stored: StoredWeights | None = None,
    *,
    benchmark: bool = False,
) -> FloatArray:
    """[NUM_GEMM_COEFFICIENTS] of one dtype or kernel, for serving: weights always come from memory.

    stored: the weights' form in memory, where it is another. benchmark: of the measurement instead, which repeats one
    product.
    """
    efficiency = gemm_efficiency(device, dtype, kernel)
    values = np.zeros(gemm.NUM_GEMM_COEFFICIENTS)
    values[gemm.PEAK] = product_peak_flops_per_s(device, dtype, stored)
    values[gemm.BANDWIDTH] = device.memory.bandwidth_bytes_per_s
    values[gemm.NUM_CORES] = device.num_cores
    values[gemm.COMPUTE_FRAC] = efficiency.compute_frac
    values[gemm.MEMORY_FRAC] = efficiency.memory_frac
    values[gemm.LAUNCH_S] = efficiency.launch_s
    values[gemm.PROLOGUE] = efficiency.prologue_elements
    values[gemm.WAVE_FRAC] = efficiency.wave_frac
    values[gemm.SERIAL_FRAC] = efficiency.serial_frac
    values[gemm.SPLIT_S] = efficiency.split_s
    values[gemm.CORE_STREAMS] = efficiency.core_streams
    values[gemm.DEPTH_S] = efficiency.depth_s
    values[gemm.CACHE_BYTES] = efficiency.cache_frac * device.cache.capacity_bytes if device.cache else 0.0
    values[gemm.CACHE_SPEEDUP] = efficiency.cache_speedup
    values[gemm.QUANTIZE_ROW_S] = efficiency.quantize_row_s
    values[gemm.QUANTIZE_ELEMENT_S] = efficiency.quantize_element_s
    values[gemm.OPERAND_SPEEDUP] = efficiency.operand_speedup or 0.0
    values[gemm.WRITE_FRAC] = efficiency.write_frac
    values[gemm.RAMP_S] = efficiency.ramp_s
    values[gemm.DISPATCH] = gemm.DISPATCHES.index(efficiency.dispatch)
    if kernel is None and borrows_for_narrow(device, dtype):
        moved = DTYPE_BYTES["bf16"] + DTYPE_BYTES[dtype]
        values[gemm.QUANTIZE_ELEMENT_S] = moved / (values[gemm.BANDWIDTH] * device.cost_model.elementwise_memory_frac)
        values[gemm.LAUNCH_S] += device.cost_model.elementwise_launch_s
    ops = widening_ops(device, dtype, kernel, stored)
    values[gemm.WIDEN_S] = ops * device.num_cores / vector_ops_per_s(device)
    if device.systolic is not None:
        values[gemm.SYSTOLIC : gemm.NUM_GEMM_COEFFICIENTS] = systolic_coefficients(device.systolic)
    if benchmark and device.cache is not None:
        values[gemm.WARM_BYTES] = efficiency.benchmark_warm_frac * device.cache.capacity_bytes
        values[gemm.WARM_COST] = efficiency.benchmark_warm_cost
    return values


def systolic_coefficients(arrays: Systolic) -> FloatArray:
    """[NUM_SYSTOLIC_COEFFICIENTS]"""
    values = np.zeros(systolic.NUM_SYSTOLIC_COEFFICIENTS)
    values[systolic.SYSTOLIC_ROWS] = arrays.rows
    values[systolic.SYSTOLIC_COLUMNS] = arrays.columns
    values[systolic.NUM_ARRAYS] = arrays.num_arrays
    values[systolic.OUTPUT_STATIONARY] = arrays.dataflow == "output_stationary"
    values[systolic.PRELOADS] = arrays.preloads_weights
    usable = 0.5 if arrays.double_buffering else 1.0
    values[systolic.BUFFER_BYTES] = usable * (arrays.buffer_bytes or 0.0)
    values[systolic.OVERLAPS] = arrays.double_buffering
    return values


def gemm_table(device: Device, products: Sequence[tuple[Any, ...]], *, benchmark: bool = False) -> FloatArray:
    """[num_products, NUM_GEMM_COEFFICIENTS + longest residual table]: what `corrected_gemm_seconds` reads.

    products: Product, or what it is made of.
    """
    named = [Product(*product) for product in products]
    residuals = [pack_residual(gemm_residual(device, product.dtype, product.kernel)) for product in named]
    coefficients = np.array([gemm_coefficients(device, *product, benchmark=benchmark) for product in named])
    return np.hstack([coefficients.reshape(len(named), gemm.NUM_GEMM_COEFFICIENTS), pad_residuals(residuals)])


def gemm_residual(device: Device, dtype: Dtype, kernel: GemmKernel | None = None) -> ResidualTable | None:
    """The residual table that belongs to the coefficients in use for the dtype or the kernel."""
    if kernel is not None:
        return device.residuals.tables.get(f"gemm_{kernel}") if device.residuals else None
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in device.cost_model.gemm and candidate in device.peak_flops_per_s:
            return device.residuals.tables.get(f"gemm_{candidate}") if device.residuals else None
    return None
