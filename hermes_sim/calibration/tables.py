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


def read_prefill_attention(folder: Path, device: str) -> pd.DataFrame:
    """Causal attention over whole prompts of num_tokens > 1 (one token runs the decode kernels)."""
    table = _attention(folder, device, "context").rename(columns={"isl": "num_tokens"})
    return _medians(table[table["num_tokens"] > 1], _ATTENTION_COLUMNS)


def read_decode_attention(folder: Path, device: str) -> pd.DataFrame:
    """One new token per sequence; num_tokens is the context, the new token included."""
    table = _attention(folder, device, "generation")
    return _medians(table.assign(num_tokens=table["step"] + 1), _ATTENTION_COLUMNS)


_ATTENTION_COLUMNS = ["num_seqs", "num_tokens", "num_heads", "num_kv_heads", "head_dim", "kv_bytes"]


def _attention(folder: Path, device: str, phase: str) -> pd.DataFrame:
    """Rows without a window, of the engine's default kernels, head dimensions of common models."""
    table = _read(folder, device, f"vllm_{phase}_attention")
    keep = table["head_dim"].isin([64, 128]) & ~table["kernel_source"].astype(str).str.contains("triton")
    if "window_size" in table:
        keep &= table["window_size"] == 0
    table = table[keep].rename(columns={"batch_size": "num_seqs", "num_key_value_heads": "num_kv_heads"})
    return table.assign(kv_bytes=table["kv_cache_dtype"].astype(str).map({"bfloat16": 2.0, "fp8": 1.0}).astype(float))


def _read(folder: Path, device: str, name: str) -> pd.DataFrame:
    path = folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[device]}_{name}.parquet"
    return pd.DataFrame(pd.read_parquet(path))


def _medians(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Median over repeats of one shape, in seconds."""
    table = table.dropna(subset=["latency_ms"])
    found = table.groupby(keys, as_index=False)["latency_ms"].median()
    return pd.DataFrame(found.assign(measured_s=found["latency_ms"] * 1e-3).drop(columns="latency_ms"))
