"""Seconds of measured attention calls as the simulator prices them: the form of its layers, one call at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.attention import fill_mixed, repeated_share
from hermes_sim.core.compiled import compiled
from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import Mla, ModelArchitecture
from hermes_sim.perf.attention_layers import attention_layers, layer_coefficients
from hermes_sim.perf.operators import attention as layer
from hermes_sim.perf.operators.attention import decode_attention_seconds, prefill_attention_seconds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DENSE: Final = ("num_heads", "num_kv_heads", "head_dim", "window_tokens", "kv_dtype", "engine")
LATENT: Final = (
    "num_heads",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "kv_dtype",
    "engine",
)
MODEL_LEN: Final = 1 << 20


def predict_prefill(device: Device, table: pd.DataFrame) -> FloatArray:
    """Prompt chunks over themselves and their history."""
    kinds, coefficients = _kinds(device, table)
    return _prompts(table, table["num_seqs"], kinds, coefficients)


def predict_decode(device: Device, table: pd.DataFrame) -> FloatArray:
    """One token a sequence, contexts by their mean and the longest.

    Benchmarks in a captured graph repeat one batch, and find a small cache of keys in the device's own.
    """
    kinds, coefficients = _kinds(device, table)
    share = repeated_share(table, kinds, coefficients)
    return _decodes(table, table["num_seqs"], kinds, coefficients, np.where(table["timing"] == "graph", share, 1.0))


def predict_mixed(device: Device, table: pd.DataFrame) -> FloatArray:
    """Prompt chunks and decodes of one step."""
    kinds, coefficients = _kinds(device, table)
    apart_s = _prompts(table, table["num_prefill"], kinds, coefficients)
    apart_s += _decodes(table, table["num_decode"], kinds, coefficients)
    launch_s = np.minimum(coefficients[:, layer.DECODE_LAUNCH_S], coefficients[:, layer.PREFILL_LAUNCH_S])[kinds]
    together_s = np.empty(len(table))
    fill_mixed(
        kinds,
        coefficients,
        table["num_prefill"].to_numpy(np.int64),
        table["num_decode"].to_numpy(np.int64),
        table["new_tokens"].to_numpy(np.float64),
        table["history_tokens"].to_numpy(np.float64),
        table["context_tokens"].to_numpy(np.float64),
        table["max_context_tokens"].to_numpy(np.float64),
        together_s,
    )
    one_kernel = coefficients[:, layer.MIXED_ROW_TOKENS][kinds] > 0.0
    return np.where(one_kernel, together_s, apart_s - launch_s)


def _prompts(table: pd.DataFrame, num_seqs: pd.Series, kinds: IntArray, coefficients: FloatArray) -> FloatArray:
    out = np.empty(len(table))
    new, history = table["new_tokens"].to_numpy(np.float64), table["history_tokens"].to_numpy(np.float64)
    _fill_prompts(kinds, coefficients, num_seqs.to_numpy(np.int64), new, history, out)
    return out


def _decodes(
    table: pd.DataFrame,
    num_seqs: pd.Series,
    kinds: IntArray,
    coefficients: FloatArray,
    share: FloatArray | None = None,
) -> FloatArray:
    """`share`: of the seconds per KV byte, for each row."""
    out = np.empty(len(table))
    share = np.ones(len(table)) if share is None else share
    mean, longest = (table[name].to_numpy(np.float64) for name in ("context_tokens", "max_context_tokens"))
    _fill_decodes(kinds, coefficients, num_seqs.to_numpy(np.int64), mean, longest, share, out)
    return out


@compiled
def _fill_prompts(
    kinds: IntArray, coefficients: FloatArray, num_seqs: IntArray, new: FloatArray, history: FloatArray, out: FloatArray
) -> None:
    for row in range(len(kinds)):
        total = num_seqs[row] * new[row]
        pairs = total * (history[row] + (new[row] + 1.0) / 2.0)
        context = num_seqs[row] * (history[row] + new[row])
        kind = coefficients[kinds[row]]
        window = kind[layer.WINDOW_TOKENS]
        if 0.0 < window < new[row] and history[row] == 0.0:  # the first tokens see less than a window
            pairs = total * window - num_seqs[row] * window * (window - 1.0) / 2.0
        out[row] = prefill_attention_seconds(num_seqs[row], total, pairs, context, 0, 0.0, 0.0, kind, 0)[0]


@compiled
def _fill_decodes(
    kinds: IntArray,
    coefficients: FloatArray,
    num_seqs: IntArray,
    mean: FloatArray,
    longest: FloatArray,
    share: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(kinds)):
        kind = coefficients[kinds[row]].copy()
        kind[layer.DECODE_BYTE_S] *= share[row]
        out[row] = decode_attention_seconds(
            num_seqs[row], num_seqs[row], num_seqs[row] * mean[row], longest[row], kind, 0
        )[0]


def _kinds(device: Device, table: pd.DataFrame) -> tuple[IntArray, FloatArray]:
    """Row -> kind of layer, and [num_kinds, NUM_LAYER_COEFFICIENTS]."""
    columns, model_of = (LATENT, _latent) if "kv_lora_rank" in table else (DENSE, _dense)
    kinds, shapes = _distinct(table, list(columns))
    coefficients = [_coefficients(model_of, shape, device) for shape in shapes]
    return kinds, np.array(coefficients)


def _distinct(table: pd.DataFrame, columns: list[str]) -> tuple[IntArray, list[tuple[Any, ...]]]:
    """Row -> number of its combination, and the combinations."""
    shapes = table[columns].drop_duplicates()
    numbered = shapes.assign(kind=np.arange(len(shapes)))
    kinds = table[columns].merge(numbered, on=columns, how="left")["kind"].to_numpy(np.int64)
    return kinds, list(shapes.itertuples(index=False, name=None))


def _coefficients(model_of: Callable[..., ModelArchitecture], shape: tuple[Any, ...], device: Device) -> FloatArray:
    *sizes, kv_dtype, engine = shape
    layers = attention_layers(model_of(*map(int, sizes)), tp=1, kv_dtype=cast(Dtype, kv_dtype))
    return layer_coefficients(layers[0], device, engine or "vllm")


def _dense(num_heads: int, num_kv_heads: int, head_dim: int, window_tokens: int) -> ModelArchitecture:
    windows: dict[str, Any] = {"sliding_window": window_tokens, "num_sliding_layers": 1} if window_tokens else {}
    return ModelArchitecture(**_one_layer(num_heads, num_kv_heads, head_dim), **windows)


def _latent(num_heads: int, kv_lora_rank: int, nope: int, rope: int, v_head_dim: int) -> ModelArchitecture:
    mla = Mla(kv_lora_rank=kv_lora_rank, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=v_head_dim)
    return ModelArchitecture(**_one_layer(num_heads, num_heads, nope + rope), mla=mla)


def _one_layer(num_heads: int, num_kv_heads: int, head_dim: int) -> dict[str, Any]:
    return {
        "name": "one_layer", "title": "One layer", "num_layers": 1, "hidden_size": num_heads * head_dim,
        "num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim,
        "intermediate_size": 4 * num_heads * head_dim, "vocab_size": 32_000, "max_model_len": MODEL_LEN,
        "sources": {},
    }  # fmt: skip
