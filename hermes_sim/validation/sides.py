"""Which measured kernels are on which side of the split: the checksums of calibration/split.py, by operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import MIXED_SHAPE
from hermes_sim.calibration.retrieval import SHAPE as SEARCHED
from hermes_sim.calibration.split import held_out
from hermes_sim.core.schema import Description
from hermes_sim.hardware.device import Device

SHAPE: Final[Mapping[str, tuple[str, ...]]] = {
    "gemm": ("n", "k"),
    "attention_prefill": ("num_heads", "num_kv_heads", "head_dim"),
    "attention_decode": ("num_heads", "num_kv_heads", "head_dim"),
    "attention_mixed": MIXED_SHAPE,
    "mla_prefill": ("num_heads", "new_tokens"),
    "mla_decode": ("num_heads", "context_tokens"),
    "retrieval": SEARCHED,
    "moe": ("hidden", "width", "num_experts", "num_experts_per_token", "moe_tp", "moe_ep"),
}
"""Operator -> the columns whose checksum decides; of collectives and streams it is the number of bytes."""
ONE_BY_ONE: Final[Mapping[str, tuple[str, ...]]] = {
    "attention_prefill": ("num_heads", "num_kv_heads", "new_tokens", "history_tokens"),
    "attention_decode": ("num_heads", "num_kv_heads", "num_seqs", "context_tokens"),
}
"""The same of calls that were launched one by one: their tables have few shapes of heads."""
_MESSAGE: Final = ("num_bytes",)


def is_fitted(operator: str, device: Device) -> bool:
    """Whether measurements of this very device gave the coefficients of the operator.

    They carry their errors then; those taken over from another device carry none, those of a class errors of no
    measurement. Collectives belong to links.
    """
    cost = device.cost_model
    if operator == "gemm":
        return any(_has_errors(one, "") for one in cost.gemm.values())
    if operator.startswith(("attention", "mla")):
        kernels = (cost.attention, *cost.attention_kernels.values())
        return any(_has_errors(one, "prefill_") or _has_errors(one, "decode_") for one in kernels)
    if operator == "moe":
        return any(_has_errors(one, "") for one in cost.experts.values())
    if operator == "stream":
        return any(_has_errors(one, "") for one in cost.elementwise.values())
    if operator == "retrieval":
        return cost.search is not None and _has_errors(cost.search, "")
    return cost.source.kind in ("fitted", "measured")


def _has_errors(coefficients: Description, prefix: str) -> bool:
    errors = (getattr(coefficients, f"{prefix}{side}") for side in ("in_sample", "held_out"))
    return any(error is not None and error.num_points > 0 for error in errors)


def sides_of(operator: str, table: pd.DataFrame, device: Device) -> npt.NDArray[np.object_]:
    """fitted | held_out | unseen_device of every row, all of one device."""
    if not is_fitted(operator, device):
        return np.full(len(table), "unseen_device", dtype=object)
    if table.empty:
        return np.empty(0, dtype=object)
    columns = SHAPE.get(operator, _MESSAGE)
    found = _sides(operator, table, columns)
    if operator in ONE_BY_ONE:
        single = (table["timing"] != "graph").to_numpy()
        found[single] = _sides(operator, table[single], ONE_BY_ONE[operator])
    return found


def _sides(operator: str, table: pd.DataFrame, columns: tuple[str, ...]) -> npt.NDArray[np.object_]:
    names = list(columns)
    shapes = table[names].drop_duplicates()
    if operator == "mla_decode":  # tables of equal contexts count them in whole tokens
        shapes = shapes.astype({"context_tokens": np.int64})
    held = held_out(*(shapes[name] for name in names)).astype(bool)
    number = table.groupby(names, sort=False).ngroup().to_numpy(np.int64)
    return np.where(held[number], "held_out", "fitted").astype(object)
