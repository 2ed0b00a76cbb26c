"""Devices that were measured only as parts of the layers of a few models: products and small kernels, some attention.

What is not measured of them (other dtypes, experts) comes from the class of the device, scaled by its data sheet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.calibration.elementwise import fit_elementwise
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseKind
from hermes_sim.measured import read_kernels

LAYERED_DEVICES: Final = ("rtx_pro_6000", "rtx_4090", "a6000", "a40", "a30")
"""Measured by casys-kaist/LLMServingSim (RTX PRO 6000, RTX 4090, A6000) and microsoft/vidur (A40, A30)."""

STREAMS: Final[dict[str, ElementwiseKind]] = {
    "norm": "norm",
    "add_norm": "add_norm",
    "activation": "activation",
    "rope": "rope",
    "embedding": "embedding",
    "add": "residual_add",
    "residual_add": "residual_add",
    "sampler": "sampler",
}
"""Kernel of a measured table -> the kind whose coefficients it has a say in."""

SHORTEST_S: Final = 2e-6
"""Tables in whole microseconds say little below."""


ROUTER: Final = "router"

SLOWEST_FRAC: Final = 0.25
"""A norm that moves long streams below this share of the memory bandwidth is no kernel of an engine but several passes,
run operator by operator by PyTorch: such a model's rows say nothing of the kernel."""
NORMS: Final = frozenset({"norm", "add_norm"})
LONG_STREAMS: Final = 0.75
"""Quantile of the bytes from which on a stream counts as long."""


def read_layer_products(folder: Path, device: str) -> pd.DataFrame | None:
    """Products in 16 bits: columns m, n, k, measured_s, the median over models; None where there are none.

    A router's time is that of the whole layer, the choice of experts included: no time of a product.
    """
    table = read_kernels(folder, operators=["gemm"], devices=[device]).get("gemm")
    if table is None or table.empty:
        return None
    rows = table[table["dtype"].astype(str).isin(["bf16", "fp16"]) & (table["measured_s"] >= SHORTEST_S)]
    rows = rows[rows["part"] != ROUTER]
    return pd.DataFrame(rows.groupby(["m", "n", "k"], as_index=False)["measured_s"].median())


def read_layer_streams(folder: Path, device: str) -> dict[ElementwiseKind, pd.DataFrame]:
    """Kind -> columns model, num_tokens, num_bytes, measured_s."""
    table = read_kernels(folder, operators=["stream"], devices=[device]).get("stream")
    if table is None or table.empty:
        return {}
    kinds = table["kernel"].astype(str).map(STREAMS)
    rows = table[kinds.notna() & (table["measured_s"] > 0.0)].assign(kind=kinds, model=table["model"].astype(str))
    names = ["model", "num_tokens", "num_bytes", "measured_s"]
    return {kind: rows.loc[rows["kind"] == kind, names].reset_index(drop=True) for kind in sorted(set(rows["kind"]))}


def fit_layer_streams(device: Device, folder: Path) -> dict[ElementwiseKind, Any]:
    """Kind -> (efficiency, error on fitted, error on kept-out rows). Norms of several passes are left out."""
    tables = read_layer_streams(folder, device.name)
    tables |= {kind: single_passes(device, tables[kind]) for kind in tables if kind in NORMS}
    return {kind: fit_elementwise(device, rows) for kind, rows in tables.items() if len(rows)}


def single_passes(device: Device, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of those models whose long streams reach what one pass over the bytes can."""
    parts = []
    for _, rows in table.groupby("model"):
        long = rows[rows["num_bytes"] >= rows["num_bytes"].quantile(LONG_STREAMS)]
        reached = float((long["num_bytes"] / long["measured_s"]).median())
        if reached >= SLOWEST_FRAC * device.memory.bandwidth_bytes_per_s:
            parts.append(rows)
    return pd.concat(parts).sort_index() if parts else table.iloc[:0]
