"""Numbers of a device in the order in which compiled cost functions read them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency
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


def gemm_efficiency(device: Device, dtype: Dtype) -> GemmEfficiency:
    """The dtype's own coefficients, else those of the nearest wider dtype, else the first ones given."""
    table = device.cost_model.gemm
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in table and candidate in device.peak_flops_per_s:
            return table[candidate]
    return next(iter(table.values()))


def gemm_coefficients(device: Device, dtype: Dtype) -> FloatArray:
    """[NUM_GEMM_COEFFICIENTS] of one dtype, for serving: weights always come from memory."""
    efficiency = gemm_efficiency(device, dtype)
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
    return values


def gemm_table(device: Device, dtypes: Sequence[Dtype]) -> FloatArray:
    """[num_dtypes, NUM_GEMM_COEFFICIENTS + longest residual table]: what `corrected_gemm_seconds` reads."""
    residuals = [pack_residual(gemm_residual(device, dtype)) for dtype in dtypes]
    coefficients = np.array([gemm_coefficients(device, dtype) for dtype in dtypes])
    return np.hstack([coefficients.reshape(len(dtypes), gemm.NUM_GEMM_COEFFICIENTS), pad_residuals(residuals)])


def gemm_residual(device: Device, dtype: Dtype) -> ResidualTable | None:
    """The residual table that belongs to the coefficients in use for `dtype`."""
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in device.cost_model.gemm and candidate in device.peak_flops_per_s:
            return device.residuals.tables.get(f"gemm_{candidate}") if device.residuals else None
    return None
