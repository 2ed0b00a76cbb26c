"""Devices that were measured only as parts of the layers of a few models: products and small kernels, some attention.

What is not measured of them (other dtypes, experts) comes from the class of the device, scaled by its data sheet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, get_args

import pandas as pd

from hermes_sim.calibration.elementwise import fit_elementwise
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseKind
from hermes_sim.measured import read_kernels

LAYERED_DEVICES: Final = ("rtx_pro_6000", "rtx_4090", "a6000", "a40", "a30", "tpu_v6e")
"""Measured by casys-kaist/LLMServingSim (RTX PRO 6000, RTX 4090, A6000, TPU v6e) and microsoft/vidur (A40, A30)."""

STREAMS: Final[dict[str, ElementwiseKind]] = {
    **{kind: kind for kind in get_args(ElementwiseKind)},
    "add": "residual_add",
}
"""Kernel of a measured table -> the kind whose coefficients it has a say in."""

FEWEST_STREAMS: Final = 30
"""A kind gets coefficients of its own from so many rows on."""

SHORTEST_S: Final = 2e-6
"""Tables in whole microseconds say little below."""


ROUTER: Final = "router"


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
    named = table["kernel"].astype(str).map(STREAMS)
    rows = table[named.notna() & (table["measured_s"] > 0.0)].assign(kind=named, model=table["model"].astype(str))
    names = ["model", "num_tokens", "num_bytes", "measured_s"]
    kinds = rows["kind"].value_counts()
    return {
        kind: rows.loc[rows["kind"] == kind, names].reset_index(drop=True)
        for kind in sorted(kinds.index)
        if kinds[kind] >= FEWEST_STREAMS
    }


def fit_layer_streams(device: Device, folder: Path) -> dict[ElementwiseKind, Any]:
    """Kind -> (efficiency, error on fitted, error on kept-out rows)."""
    return {kind: fit_elementwise(device, rows) for kind, rows in read_layer_streams(folder, device.name).items()}
