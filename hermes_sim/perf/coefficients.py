"""Numbers of a device in the order in which compiled cost functions read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency, GemmKernel
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.operators import gemm
from hermes_sim.perf.residual import pack_residual, pad_residuals

FloatArray = npt.NDArray[np.float64]

WIDER: dict[Dtype, tuple[Dtype, ...]] = {
    "fp32": ("tf32",),
    "tf32": ("fp32",),
    "bf16": ("fp16", "tf32", "fp32"),
    "fp16": ("bf16", "tf32", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "fp4": ("fp8", "bf16", "fp16", "fp32"),
    "int4": ("int8", "bf16", "fp16", "fp32"),
}
"""Where a device lacks a dtype: formats its kernels widen to, nearest first (weight-only kernels such as Marlin)."""

BLOCK_SCALE_BYTES = 4.0 / 128**2
"""Of one weight of a 128 x 128 block with one scale; one scale a column is far less."""

MEASURED_LIBRARY: KernelLibrary = "trtllm"
"""Whose kernels stand for formats of which no others are measured: fp8 by blocks (CUTLASS on Hopper, DeepGEMM on
Blackwell, as in vLLM and SGLang) and integers (their own for CUTLASS and Marlin)."""

Product = tuple[Dtype, GemmKernel | None]
"""What a product multiplies in, and the kernel with coefficients of its own, if any."""

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


def gemm_coefficients(
    device: Device, dtype: Dtype, kernel: GemmKernel | None = None, *, benchmark: bool = False
) -> FloatArray:
    """[NUM_GEMM_COEFFICIENTS] of one dtype or kernel, for serving: weights always come from memory.

    benchmark: of the measurement instead, which repeats one product.
    """
    efficiency = gemm_efficiency(device, dtype, kernel)
    values = np.zeros(gemm.NUM_GEMM_COEFFICIENTS)
    values[gemm.PEAK] = peak_flops_per_s(device, dtype)
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
    if benchmark and device.cache is not None:
        values[gemm.WARM_BYTES] = efficiency.benchmark_warm_frac * device.cache.capacity_bytes
        values[gemm.WARM_COST] = efficiency.benchmark_warm_cost
    return values


def gemm_table(device: Device, products: Sequence[Product], *, benchmark: bool = False) -> FloatArray:
    """[num_products, NUM_GEMM_COEFFICIENTS + longest residual table]: what `corrected_gemm_seconds` reads."""
    residuals = [pack_residual(gemm_residual(device, *product)) for product in products]
    coefficients = np.array([gemm_coefficients(device, *product, benchmark=benchmark) for product in products])
    return np.hstack([coefficients.reshape(len(products), gemm.NUM_GEMM_COEFFICIENTS), pad_residuals(residuals)])


def gemm_residual(device: Device, dtype: Dtype, kernel: GemmKernel | None = None) -> ResidualTable | None:
    """The residual table that belongs to the coefficients in use for the dtype or the kernel."""
    if kernel is not None:
        return device.residuals.tables.get(f"gemm_{kernel}") if device.residuals else None
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in device.cost_model.gemm and candidate in device.peak_flops_per_s:
            return device.residuals.tables.get(f"gemm_{candidate}") if device.residuals else None
    return None
