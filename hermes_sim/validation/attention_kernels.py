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
    predict_prefill,
)
from hermes_sim.calibration.mla import latent_layers
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.device import Device
from hermes_sim.perf.attention_residual import corrected_coefficients
from hermes_sim.perf.operators import attention as layer
from hermes_sim.perf.operators.corrected_attention import corrected_decode_seconds, corrected_prefill_seconds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LATENT: Final = ("num_heads", "kv_dtype")


def decodes(device: Device, table: pd.DataFrame, engine: str) -> FloatArray:
    """One token a sequence. Contexts that differ within a batch count by their mean and the longest."""
    out = np.empty(len(table))
    even = (table["max_context_tokens"] <= table["context_tokens"]).to_numpy()
    if even.any():
        rows = table[even]
        out[even] = predict_decode(device, rows, kinds=kinds_of(rows), engine=engine)
    if not even.all():
        out[~even] = _calls(device, table[~even], engine, num_decode="num_seqs")
    return out


def prompts(device: Device, table: pd.DataFrame, engine: str) -> FloatArray:
    """Prompt chunks over themselves and their history. A prompt of one token runs the kernels of decodes."""
    out = np.empty(len(table))
    single = (table["new_tokens"] == 1).to_numpy()
    if single.any():
        rows = table[single].assign(context_tokens=table["history_tokens"] + 1.0)
        out[single] = decodes(device, rows.assign(max_context_tokens=rows["context_tokens"]), engine)
    if not single.all():
        rows = table[~single]
        out[~single] = predict_prefill(device, rows, kinds=kinds_of(rows), engine=engine)
    return out


def mixed(device: Device, table: pd.DataFrame, engine: str) -> FloatArray:
    """Prompt chunks and decodes of one step: in one kernel where the engine has one for both, else in two."""
    return _calls(device, table, engine, num_decode="num_decode", num_prefill="num_prefill")


def kinds_of(table: pd.DataFrame) -> LayerKinds:
    """Row -> kind of layer, and the kinds: latent attention where the table has its columns."""
    if "kv_lora_rank" in table:
        return layer_kinds(table[list(LATENT)], latent_layers)
    return layer_kinds(table, layers_of_heads)


def _calls(
    device: Device, table: pd.DataFrame, engine: str, *, num_decode: str, num_prefill: str | None = None
) -> FloatArray:
    rows, layers = kinds_of(table)
    coefficients = corrected_coefficients(layers, device, engine)
    nothing = pd.Series(0.0, index=table.index)

    def numbers(name: str | None) -> FloatArray:
        return np.asarray(nothing if name is None else table[name], np.float64)

    out = np.empty(len(table))
    _fill_calls(
        rows,
        coefficients,
        numbers(num_prefill),
        numbers("new_tokens" if num_prefill else None),
        numbers("history_tokens" if num_prefill else None),
        numbers(num_decode),
        numbers("context_tokens"),
        numbers("max_context_tokens"),
        out,
    )
    return out


@compiled
def _fill_calls(
    kinds: IntArray,
    coefficients: FloatArray,
    num_prefill: FloatArray,
    new: FloatArray,
    history: FloatArray,
    num_decode: FloatArray,
    mean: FloatArray,
    longest: FloatArray,
    out: FloatArray,
) -> None:
    """As perf/step_kernel.py puts the attention of one layer together."""
    for row in range(len(kinds)):
        kind = coefficients[kinds[row]]
        prefills, decodes = int(num_prefill[row]), int(num_decode[row])
        context = decodes * mean[row]
        one_kernel = prefills > 0 and kind[layer.MIXED_ROW_TOKENS] > 0.0
        out[row] = 0.0
        if not one_kernel:
            out[row] = corrected_decode_seconds(decodes, decodes, context, longest[row], kind, 0)[0]
        if prefills > 0:
            total = prefills * new[row]
            pairs = total * (history[row] + (new[row] + 1.0) / 2.0)
            all_context = total + prefills * history[row]
            if one_kernel:
                out[row] += corrected_prefill_seconds(
                    prefills, total, pairs, all_context, decodes, context, longest[row], kind, 0
                )[0]
            else:
                out[row] -= min(kind[layer.DECODE_LAUNCH_S], kind[layer.PREFILL_LAUNCH_S])
                out[row] += corrected_prefill_seconds(prefills, total, pairs, all_context, 0, 0.0, 0.0, kind, 0)[0]
