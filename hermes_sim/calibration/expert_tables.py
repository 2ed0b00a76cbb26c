"""Measured layers of experts, read into the columns of the public kernel table."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.hardware.expert_efficiency import ExpertFormat

FORMATS: Final[dict[str, ExpertFormat]] = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "fp4", "w4a16_mxfp4": "mxfp4",
    "int4_wo": "w4a16", "w4a8_mxfp4_mxfp8": "w4a8",
}  # fmt: skip
"""The tables' names -> ours."""

SHAPE: Final = ("hidden", "width", "num_experts", "num_experts_per_token", "moe_tp", "moe_ep")
KEYS: Final = ("dtype", "kernel", "num_tokens", *SHAPE, "distribution")

UNGATED: Final = frozenset({(1856, 128, 6), (5120, 512, 22), (2688, 512, 22)})
"""(width, experts, experts per token) of models whose experts have one input matrix (Nemotron 3, squared ReLU)."""

ALWAYS_GATED: Final = "vllm_fused_moe"
"""Kernel that was measured with two input matrices for every model: vLLM 0.14's, as its times show."""


def read_expert_table(path: Path) -> pd.DataFrame:
    """One row a shape: KEYS, and `measured_s` as the median over repeats. num_tokens before routing."""
    table = pd.read_parquet(path).dropna(subset=["latency_ms"])
    table = table.rename(
        columns={
            "hidden_size": "hidden", "inter_size": "width", "topk": "num_experts_per_token",
            "moe_tp_size": "moe_tp", "moe_ep_size": "moe_ep", "kernel_source": "kernel",
        }
    )  # fmt: skip
    table = table.assign(
        dtype=table["moe_dtype"].astype(str).map(FORMATS),
        kernel=table["kernel"].astype(str),
        distribution=table["distribution"].astype(str),
        measured_s=table["latency_ms"] * 1e-3,
    ).dropna(subset=["dtype"])
    return pd.DataFrame(table.groupby(list(KEYS), as_index=False)["measured_s"].median())


def shares_weights(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of layers whose weights on one device have the same shape as those of another layer of the table."""
    local = [table["hidden"], table["num_experts"] // table["moe_ep"], table["width"] // table["moe_tp"]]
    layer = table.groupby(list(SHAPE), sort=False).ngroup()
    return np.asarray(layer.groupby(local).transform("nunique") > 1, bool)


OTHER_KERNELS: Final = ("min_latency", "nongated", "modular", "marlin", "triton", "cutlass")
"""What tells the kernels of one format apart in a library's names for them."""

FEWEST_ROWS: Final = 400
"""Another kernel than the main one gets coefficients of its own from so many rows on."""


def kernel_suffix(kernel: str) -> str:
    """`_triton`, `_marlin` ... of a kernel's name; nothing where it has no known part."""
    return next((f"_{part}" for part in OTHER_KERNELS if part in kernel), "")


def tables_by_kernel(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of one format by suffix: nothing for the main kernel, then those of others that have enough rows."""
    main = main_kernel(table)
    others = table[table["kernel"] != main["kernel"].iloc[0]]
    found = {"": main}
    for suffix, rows in others.groupby(others["kernel"].map(kernel_suffix)):
        if suffix and len(rows) >= FEWEST_ROWS:
            found[str(suffix)] = rows.reset_index(drop=True)
    return found


def main_kernel(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the kernel with most shapes: what the engine runs by default. Kernels for small batches are left out."""
    return pd.DataFrame(table[table["kernel"] == table["kernel"].value_counts().index[0]].reset_index(drop=True))
