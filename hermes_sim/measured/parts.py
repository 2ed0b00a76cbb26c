"""Parts of a transformer's layer as products and streams: what tables that name layers leave to the model's shape."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

ELEMENT_BYTES = 2.0
"""Activations in 16 bits."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of one device's share of a layer; one number, or one for each row."""

    hidden: pd.Series | float
    num_heads: pd.Series | float
    num_kv_heads: pd.Series | float
    head_dim: pd.Series | float
    width: pd.Series | float
    """Of the feed-forward; of one expert where the layer has experts."""


def product(part: str, m: pd.Series, n: pd.Series | float, k: pd.Series | float, tp: pd.Series | int) -> pd.DataFrame:
    """Columns of `gemm`."""
    return pd.DataFrame({"part": part, "num_tokens": m, "m": m, "n": n, "k": k, "tp": tp}, index=m.index)


def stream(
    part: str, num_tokens: pd.Series, elements_per_token: pd.Series | float, tp: pd.Series | int = 1
) -> pd.DataFrame:
    """Columns of `stream`; elements_per_token: read and written."""
    moved = ELEMENT_BYTES * num_tokens * elements_per_token
    return pd.DataFrame(
        {"part": part, "kernel": part, "num_tokens": num_tokens, "num_bytes": moved, "tp": tp}, index=num_tokens.index
    )


def one_share(size: pd.Series, tp: pd.Series) -> pd.Series:
    """One device's share of heads: at least one, key-value heads are repeated where there are fewer than devices."""
    return (size // tp).clip(lower=1)
