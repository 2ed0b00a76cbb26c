"""Coefficients of latent attention (MLA) from measured tables: prompts with expanded heads, decodes on the latent.

Sizes are DeepSeek's (arXiv 2412.19437): a latent of 512 and 64 rotary elements per token, shared by all heads; expanded
heads of 128 + 64 for queries and keys and 128 for values. The tables hold the attention kernels alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.calibration.attention import (
    DECODE_COEFFICIENTS,
    PREFILL_COEFFICIENTS,
    Structure,
    fit_structures,
    predict_decode,
    predict_prefill,
)
from hermes_sim.calibration.fit import ErrorSummary
from hermes_sim.calibration.split import held_out
from hermes_sim.calibration.tables import SYSTEMS
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.device import Device
from hermes_sim.perf.attention_layers import AttentionLayers

LATENT: Final = 512
ROTARY: Final = 64
QUERY_KEY: Final = 128 + ROTARY
VALUE: Final = 128

DECODE_STRUCTURES: Final[tuple[Structure, ...]] = (
    {"decode_group_rows": 64.0},
    {"decode_group_rows": 128.0},
    {"decode_group_rows": 16.0},
    {"decode_group_rows": 0.0, "decode_splits": False},
)
"""Query heads that share one reading of the latent; none, in kernels without matrix units."""
NOT_FITTED: Final = ("prefill_wide_frac", "prefill_dim_exponent", "decode_dim_exponent")
"""One head dimension says nothing about others."""


def read_mla(folder: Path, device: str, phase: str, engine: str) -> pd.DataFrame | None:
    """Measured latent attention of one engine: phase prefill or decode; None where it was not measured."""
    name = {"prefill": "context", "decode": "generation"}[phase]
    path = folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[device]}_{engine}_{name}_mla.parquet"
    if not path.is_file():
        return None
    table = pd.DataFrame(pd.read_parquet(path))
    tokens = "new_tokens" if phase == "prefill" else "context_tokens"
    table[tokens] = table["isl"] if phase == "prefill" else table["step"] + 1
    table["kv_dtype"] = table["kv_cache_dtype"].astype(str).map({"bfloat16": "bf16", "fp8": "fp8"})
    table = table[table[tokens] > 1].rename(columns={"batch_size": "num_seqs"}).dropna(subset=["latency_ms"])
    found = table.groupby(["num_seqs", tokens, "num_heads", "kv_dtype"], as_index=False)["latency_ms"].median()
    return pd.DataFrame(found.assign(measured_s=found["latency_ms"] * 1e-3).drop(columns="latency_ms"))


def fit_mla_decode(device: Device, table: pd.DataFrame) -> tuple[AttentionEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of latent decodes, and errors on fitted and held-out (heads, context)."""
    coefficients = [c for c in DECODE_COEFFICIENTS if c.name not in NOT_FITTED]
    held = held_out(table["num_heads"], table["context_tokens"])
    return fit_structures(device, table, held, DECODE_STRUCTURES, lambda _: coefficients, latent_layers, predict_decode)


def fit_mla_prefill(device: Device, table: pd.DataFrame) -> tuple[AttentionEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of prompts with expanded heads, and errors on fitted and held-out (heads, new tokens)."""
    coefficients = [c for c in PREFILL_COEFFICIENTS if c.name not in NOT_FITTED]
    held = held_out(table["num_heads"], table["new_tokens"])
    return fit_structures(device, table, held, ({},), lambda _: coefficients, latent_layers, predict_prefill)


def latent_layers(shape: tuple[Any, ...]) -> AttentionLayers:
    """One layer of latent attention from (heads of one device, dtype of the cache)."""
    num_heads, kv_dtype = int(shape[0]), shape[1]
    cache_bytes = (LATENT + ROTARY) * (1.0 if kv_dtype == "fp8" else 2.0)
    return AttentionLayers(
        kind="latent",
        num_layers=1,
        num_prompt_layers=1,
        window_tokens=0,
        num_heads=num_heads,
        num_kv_heads=1,
        decode_flops_per_token=2.0 * num_heads * (2 * LATENT + ROTARY),
        decode_bytes_per_token=cache_bytes,
        decode_bytes_per_query=2.0 * num_heads * (2 * LATENT + ROTARY),
        flops_per_pair=2.0 * num_heads * (QUERY_KEY + VALUE),
        prefill_bytes_per_token=2.0 * num_heads * (QUERY_KEY + VALUE),
        prefill_bytes_per_query=2.0 * num_heads * (QUERY_KEY + VALUE),
        cache_write_bytes=2.0 * 2.0 * (LATENT + ROTARY),
        history_flops_per_token=0.0,
        dtype="bf16",
        kv_dtype=kv_dtype,
    )
