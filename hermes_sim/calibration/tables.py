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


SHORTEST_ELEMENTWISE_BYTES = 8e6
"""Vidur's tables count microseconds: shorter kernels say little."""


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


def read_elementwise(folder: Path, device: str) -> pd.DataFrame | None:
    """Norms and activations of vidur's layer tables, long ones only; None where not measured.

    Columns kernel, model, num_tokens, bytes, measured_s. A norm reads and writes the hidden state.
    """
    short = device.split("_", maxsplit=1)[0]
    files = sorted((folder / "kernels" / "vidur").glob(f"mlp_{short}_*.csv.gz"))
    if not files:
        return None
    parts = []
    for path in files:
        table = pd.read_csv(path)
        token_bytes = 2.0 * table["num_tokens"]
        hidden = table["n_embd"]
        width = table["n_expanded_embd"] / table["tp"]
        for column, elements in (
            ("post_attention_layernorm_ms", 2.0 * hidden),
            ("mlp_act_ms", 3.0 * width.where(table["use_gated_mlp"], width * 2.0 / 3.0)),
        ):
            if column in table:
                parts.append(
                    pd.DataFrame(
                        {
                            "kernel": column.removesuffix("_ms"),
                            "model": table["model"],
                            "num_tokens": table["num_tokens"],
                            "bytes": token_bytes * elements,
                            "measured_s": table[column] * 1e-3,
                        }
                    )
                )
    found = pd.concat(parts, ignore_index=True).dropna()
    return found[(found["bytes"] > SHORTEST_ELEMENTWISE_BYTES) & (found["measured_s"] > 0.0)].reset_index(drop=True)


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
