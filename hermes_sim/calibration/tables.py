"""Measured tables of kernels: read, filtered, in seconds and base units."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd

from hermes_sim.core.schema import Dtype

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


def read_gemm(folder: Path, device: str, dtype: Dtype) -> pd.DataFrame | None:
    """Columns m, n, k, measured_s; None where the dtype was not measured."""
    table = _read(folder, device, "vllm_gemm")
    table = table[table["gemm_dtype"].astype(str) == GEMM_DTYPES.get(dtype, "")]
    if table.empty:
        return None
    return _medians(table, ["m", "n", "k"])


def _read(folder: Path, device: str, name: str) -> pd.DataFrame:
    path = folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[device]}_{name}.parquet"
    return pd.DataFrame(pd.read_parquet(path))


def _medians(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Median over repeats of one shape, in seconds."""
    table = table.dropna(subset=["latency_ms"])
    found = table.groupby(keys, as_index=False)["latency_ms"].median()
    return pd.DataFrame(found.assign(measured_s=found["latency_ms"] * 1e-3).drop(columns="latency_ms"))
