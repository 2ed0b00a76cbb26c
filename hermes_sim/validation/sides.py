"""Which measured kernels are on which side of the split: the checksums of calibration/split.py, by operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.split import held_out
from hermes_sim.hardware.device import Device

SHAPE: Final[Mapping[str, tuple[str, ...]]] = {
    "gemm": ("n", "k"),
    "attention_prefill": ("num_heads", "num_kv_heads", "head_dim"),
    "attention_decode": ("num_heads", "num_kv_heads", "head_dim"),
    "attention_mixed": ("num_heads", "num_kv_heads", "head_dim"),
    "mla_prefill": ("num_heads",),
    "mla_decode": ("num_heads",),
    "moe": ("hidden", "width", "num_experts", "num_experts_per_token", "moe_ep"),
    "stream": ("model", "num_tokens"),
}
"""Operator -> the columns whose checksum decides; of collectives it is the size of the message."""
_MESSAGE: Final = ("num_bytes",)


def sides_of(operator: str, table: pd.DataFrame, device: Device) -> npt.NDArray[np.object_]:
    """fitted | held_out | unseen_device of every row, all of one device."""
    if device.cost_model.source.kind not in ("fitted", "measured"):
        return np.full(len(table), "unseen_device", dtype=object)
    if table.empty:
        return np.empty(0, dtype=object)
    columns = list(SHAPE.get(operator, _MESSAGE))
    shapes = table[columns].drop_duplicates()
    held = held_out(*(shapes[column] for column in columns))
    number = table.groupby(columns, sort=False).ngroup().to_numpy()
    return np.where(held[number], "held_out", "fitted").astype(object)
