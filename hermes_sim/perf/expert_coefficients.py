"""Numbers of a device for layers of experts, in the order in which compiled cost functions read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency, ExpertFormat
from hermes_sim.hardware.expert_residual import ExpertResidual
from hermes_sim.perf.coefficients import (
    BLOCK_SCALE_BYTES,
    CACHE_SHARE_FRAC,
    StoredWeights,
    gemm_efficiency,
    product_peak_flops_per_s,
    vector_ops_per_s,
    widening_ops,
)
from hermes_sim.perf.operators import experts

FloatArray = npt.NDArray[np.float64]

TRTLLM: Final = "trtllm_"

NEAREST: Final[dict[str, tuple[str, ...]]] = {
    "fp8": ("fp8_block",),
    "fp8_block": ("fp8",),
    "fp4": ("w4a8",),
    "mxfp4": ("w4a16",),
    "w4a16": ("mxfp4",),
    "w4a8": ("fp4", "mxfp4"),
}
"""Formats whose kernels are alike, nearest first."""

PEAK_DTYPES: Final[dict[str, Dtype]] = {
    "bf16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "fp4": "fp4", "mxfp4": "bf16", "w4a16": "bf16", "w4a8": "fp8",
}  # fmt: skip
"""Format without its library -> the dtype its products are multiplied in."""

GENERATED: Final = ("fp4", "fp8_block")
"""Block-scaled formats that TensorRT-LLM serves on datacenter Blackwell with its generated kernels (moe_config.backend
TRTLLM), the ones that FlashInfer hands to vLLM and SGLang; most of its tables time the CUTLASS ones."""

UNMEASURED_KERNELS: Final = 2.0
"""Launches of a layer of experts where nothing is known about its kernels: its two products."""


TYPICAL_TILE_COLUMNS: Final = 128.0
"""Columns of a tile of experts' products."""


def expert_format(dtype: Dtype, bytes_per_weight: float) -> ExpertFormat:
    """Format of experts that multiply in `dtype` and whose weights take so many bytes each, scales included."""
    if dtype in ("fp4", "int4"):
        return "fp4" if dtype == "fp4" else "w4a16"
    if dtype in ("fp8", "int8"):
        if bytes_per_weight < 0.75 * DTYPE_BYTES["fp8"]:
            return "w4a8"
        return "fp8_block" if bytes_per_weight > 1.0 + 0.5 * BLOCK_SCALE_BYTES else "fp8"
    return "bf16" if bytes_per_weight > 0.75 * DTYPE_BYTES["fp8"] else "mxfp4"


def plain_format(name: str) -> str:
    """The format alone of an entry `[trtllm_]format[_kernel]`; the name itself where it holds no known one."""
    own = name.removeprefix(TRTLLM)
    known = [plain for plain in PEAK_DTYPES if own == plain or own.startswith(f"{plain}_")]
    return max(known, key=len, default=own)


def expert_efficiency(device: Device, name: str) -> ExpertEfficiency | None:
    """The format's own coefficients, else those of the nearest format, of the same library first; None without any."""
    table: Mapping[str, ExpertEfficiency] = {str(own): one for own, one in device.cost_model.experts.items()}
    plain = name.removeprefix(TRTLLM)
    alike = (plain, *NEAREST.get(plain, ()))
    own = [f"{TRTLLM}{candidate}" for candidate in alike] if name.startswith(TRTLLM) else []
    return next((table[candidate] for candidate in (*own, *alike) if candidate in table), None)


def served_entry(device: Device, name: ExpertFormat, kernels: KernelLibrary) -> str:
    """Entry of `cost_model.experts` with the kernels that an engine of the library runs."""
    is_generated = device.device_class == "datacenter_blackwell" and name in GENERATED
    return f"{TRTLLM}{name}" if kernels == "trtllm" and not is_generated else name


def expert_coefficients(
    device: Device,
    dtype: Dtype,
    name: ExpertFormat,
    kernels: KernelLibrary = "vllm",
    stored: StoredWeights | None = None,
) -> FloatArray:
    """[NUM_EXPERT_COEFFICIENTS] of one format, for serving: weights always come from memory.

    stored: the weights' form in memory, where it is another.
    """
    efficiency = expert_efficiency(device, served_entry(device, name, kernels))
    peak = product_peak_flops_per_s(device, dtype, stored)
    return pack(device, peak, efficiency or _as_dense(device, dtype, stored))


def expert_residual(device: Device, name: ExpertFormat, kernels: KernelLibrary = "vllm") -> ExpertResidual | None:
    """What is left over by the format's own coefficients; None where another format's stand for them."""
    form = served_entry(device, name, kernels)
    if device.residuals is None or form not in device.cost_model.experts:
        return None
    return device.residuals.experts.get(form)


def pack(device: Device, peak: float, efficiency: ExpertEfficiency) -> FloatArray:
    """[NUM_EXPERT_COEFFICIENTS] from named coefficients; peak in flop/s."""
    values = np.zeros(experts.NUM_EXPERT_COEFFICIENTS)
    values[experts.PEAK] = peak
    values[experts.BANDWIDTH] = device.memory.bandwidth_bytes_per_s
    values[experts.NUM_CORES] = device.num_cores
    values[experts.COMPUTE_FRAC] = efficiency.compute_frac
    values[experts.MEMORY_FRAC] = efficiency.memory_frac
    values[experts.LAUNCH_S] = efficiency.launch_s
    values[experts.HALF_RATE_ROWS] = efficiency.half_rate_rows
    values[experts.WAVE_FRAC] = efficiency.wave_frac
    values[experts.SERIAL_FRAC] = efficiency.serial_frac
    values[experts.DEPTH_S] = efficiency.depth_s
    values[experts.AWAY_FRAC] = efficiency.away_frac
    values[experts.STREAM_FRAC] = efficiency.stream_frac
    values[experts.TOKEN_S] = efficiency.token_s
    values[experts.EXPERT_S] = efficiency.expert_s
    values[experts.CACHE_BYTES] = CACHE_SHARE_FRAC * device.cache.capacity_bytes if device.cache else 0.0
    values[experts.CACHE_SPEEDUP] = efficiency.cache_speedup
    return values


def _as_dense(device: Device, dtype: Dtype, stored: StoredWeights | None) -> ExpertEfficiency:
    """What dense products of the dtype and small kernels reach, with nothing for routing.

    A core widens the weights of a tile's columns before it multiplies them.
    """
    dense = gemm_efficiency(device, dtype)
    widen_s = widening_ops(device, dtype, None, stored) * device.num_cores / vector_ops_per_s(device)
    return ExpertEfficiency.model_construct(
        compute_frac=dense.compute_frac,
        memory_frac=dense.memory_frac,
        launch_s=UNMEASURED_KERNELS * (dense.launch_s + device.cost_model.elementwise_launch_s),
        serial_frac=dense.serial_frac,
        depth_s=TYPICAL_TILE_COLUMNS * widen_s,
        stream_frac=device.cost_model.elementwise_memory_frac,
    )
