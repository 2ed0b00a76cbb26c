"""Measured tables of kernels: read, filtered, in seconds and base units."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.gemm_efficiency import GemmKernel

MEASURED_DEVICES: Final[tuple[str, ...]] = ("a100_sxm_80gb", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")

SYSTEMS: Final[dict[str, str]] = {
    "a100_sxm_80gb": "a100_sxm",
    "h100_sxm": "h100_sxm",
    "h200_sxm": "h200_sxm",
    "b200_sxm": "b200_sxm",
    "l40s": "l40s",
}
"""Device file -> the name the tables use."""

GEMM_DTYPES: Final[dict[Dtype, str]] = {"bf16": "bfloat16", "fp8": "fp8", "fp4": "nvfp4"}
"""Our dtype -> the table's. fp8: per-token activations, per-channel weights (CUTLASS scaled_mm)."""

GEMM_KERNELS: Final[dict[GemmKernel, str]] = {
    "trtllm_bf16": "bfloat16",
    "trtllm_fp8": "fp8",
    "trtllm_fp8_block": "fp8_block",
    "trtllm_fp4": "nvfp4",
    "trtllm_int8": "sq",
    "trtllm_w8a16": "int8_wo",
    "trtllm_w4a16": "int4_wo",
}
"""Kernel -> the name in TensorRT-LLM's tables.

vLLM's table of fp8_block is not fitted: no product in it takes less than 55 us (Hopper), 150 us (Blackwell) or 280 us
(Ada), the same floor for products that TensorRT-LLM's kernels do in 4 us: what the host takes to launch a call. Longer
products are 0 to 15% faster at the median than TensorRT-LLM's, on Ada (Triton) 20 to 35%.
"""


def read_gemm(folder: Path, device: str, dtype: Dtype) -> pd.DataFrame | None:
    """Columns m, n, k, measured_s; None where the dtype was not measured."""
    return _read_products(folder, device, "vllm_gemm", GEMM_DTYPES.get(dtype, ""))


def read_gemm_kernel(folder: Path, device: str, kernel: GemmKernel) -> pd.DataFrame | None:
    """The same of a kernel of TensorRT-LLM."""
    return _read_products(folder, device, "trtllm_gemm", GEMM_KERNELS.get(kernel, ""))


def _read_products(folder: Path, device: str, name: str, dtype: str) -> pd.DataFrame | None:
    table = _read(folder, device, name)
    table = table[table["gemm_dtype"].astype(str) == dtype]
    return None if table.empty else _medians(table, ["m", "n", "k"])


def _read(folder: Path, device: str, name: str) -> pd.DataFrame:
    path = folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[device]}_{name}.parquet"
    return pd.DataFrame(pd.read_parquet(path))


def _medians(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Median over repeats of one shape, in seconds."""
    table = table.dropna(subset=["latency_ms"])
    found = table.groupby(keys, as_index=False)["latency_ms"].median()
    return pd.DataFrame(found.assign(measured_s=found["latency_ms"] * 1e-3).drop(columns="latency_ms"))
