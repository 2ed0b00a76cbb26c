"""Seconds of measured attention calls as the simulator prices them, by the kernels of each engine."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import (
    LayerKinds,
    layer_kinds,
    layers_of_heads,
    predict_decode,
    predict_mixed,
    predict_prefill,
)
from hermes_sim.calibration.mla import latent_layers
from hermes_sim.hardware.device import Device

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LATENT: Final = ("num_heads", "kv_dtype")
BY_PHASE: Final = "trtllm"
"""TensorRT-LLM calls the kernels of the context phase for prompts of any length; others look at the longest query."""


def decodes(device: Device, table: pd.DataFrame, engine: str) -> FloatArray:
    """One token a sequence."""
    return predict_decode(device, table, kinds=kinds_of(table), engine=engine)


def prompts(device: Device, table: pd.DataFrame, engine: str) -> FloatArray:
    """Prompt chunks over themselves and their history.

    A prompt of one token runs the kernels of decodes, but for engines that tell requests apart by phase.
    """
    out = np.empty(len(table))
    as_decodes = not engine.startswith(BY_PHASE)
    single = (table["new_tokens"] == 1).to_numpy() & as_decodes
    if single.any():
        rows = table[single].assign(context_tokens=table["history_tokens"] + 1.0)
        out[single] = decodes(device, rows.assign(max_context_tokens=rows["context_tokens"]), engine)
    if not single.all():
        rows = table[~single]
        out[~single] = predict_prefill(device, rows, kinds=kinds_of(rows), engine=engine)
    return out


def mixed(device: Device, table: pd.DataFrame, engine: str) -> FloatArray:
    """Prompt chunks and decodes of one step: in one kernel where the engine has one for both, else in two."""
    return predict_mixed(device, table, kinds=kinds_of(table), engine=engine)


def kinds_of(table: pd.DataFrame) -> LayerKinds:
    """Row -> kind of layer, and the kinds: latent attention where the table has its columns."""
    if "kv_lora_rank" in table:
        return layer_kinds(table[list(LATENT)], latent_layers)
    return layer_kinds(table, layers_of_heads)
