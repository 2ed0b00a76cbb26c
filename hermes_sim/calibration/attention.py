"""Coefficients of the attention model from measured tables of prompts and of decodes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.device import Device
from hermes_sim.perf.attention_layers import AttentionLayers, layer_coefficients
from hermes_sim.perf.operators.attention import decode_attention_seconds, prefill_attention_seconds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WARM: Final = Coefficient("warm_bytes", 8e6, 0.0, 1e8, 1e6)
"""The benchmark reads one cache again and again: a small one stays in the device's. Not part of the serving model."""

DECODE_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("decode_launch_s", 1e-5, 1e-6, 4e-5, 1e-6),
    Coefficient("attention_decode_memory_frac", 0.8, 0.3, 1.0),
    Coefficient("decode_compute_frac", 0.3, 0.02, 1.0, 0.1),
    Coefficient("decode_core_streams", 30.0, 0.5, 300.0, 10.0),
    Coefficient("decode_serial_frac", 0.3, 0.0, 1.0),
    Coefficient("decode_head_s", 2e-8, 0.0, 1e-6, 1e-8),
)
PREFILL_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("prefill_launch_s", 1e-5, 1e-6, 4e-5, 1e-6),
    Coefficient("attention_prefill_compute_frac", 0.65, 0.2, 1.0),
    Coefficient("softmax_s", 5e-14, 0.0, 1e-11, 1e-13),
    Coefficient("diagonal_pairs", 64.0, 0.0, 512.0, 64.0),
    Coefficient("sequence_pairs", 4096.0, 0.0, 65536.0, 4096.0),
    Coefficient("row_tokens", 128.0, 0.0, 512.0, 128.0),
    Coefficient("prefill_serial_frac", 0.3, 0.0, 1.0),
    Coefficient("prefill_memory_frac", 0.6, 0.1, 1.0),
)

SHAPE = ["num_heads", "num_kv_heads", "head_dim"]


def fit_decode(device: Device, table: pd.DataFrame) -> tuple[dict[str, float], ErrorSummary, ErrorSummary]:
    """Coefficients of decode attention, and errors on fitted and held-out head shapes."""
    return _fit(device, table, (*DECODE_COEFFICIENTS, WARM), predict_decode)


def fit_prefill(device: Device, table: pd.DataFrame) -> tuple[dict[str, float], ErrorSummary, ErrorSummary]:
    """Coefficients of prompt attention, and errors on fitted and held-out head shapes."""
    return _fit(device, table, PREFILL_COEFFICIENTS, predict_prefill)


def with_attention(device: Device, values: dict[str, float]) -> Device:
    """The device with some coefficients of its attention model replaced."""
    own = {name: value for name, value in values.items() if name in AttentionEfficiency.model_fields}
    shares = {name: value for name, value in values.items() if name.startswith("attention_")}
    attention = device.cost_model.attention.model_copy(update=own)
    return device.model_copy(
        update={"cost_model": device.cost_model.model_copy(update={"attention": attention, **shares})}
    )


def predict_decode(device: Device, table: pd.DataFrame, warm_bytes: float = 0.0) -> FloatArray:
    """Seconds of equal decodes; warm_bytes > 0 predicts a benchmark that repeats one batch."""
    kinds, coefficients = _layer_kinds(device, table)
    num_seqs = table["num_seqs"].to_numpy(np.int64)
    context = table["num_tokens"].to_numpy(np.float64)
    kv_bytes = num_seqs * context * 2.0 * table["num_kv_heads"] * table["head_dim"] * table["kv_bytes"]
    warm = np.minimum(kv_bytes.to_numpy(np.float64) / warm_bytes, 1.0) if warm_bytes > 0.0 else np.ones(len(table))
    out = np.empty(len(table))
    _fill_decode(kinds, coefficients, num_seqs, context * warm, out)
    return out


def predict_prefill(device: Device, table: pd.DataFrame) -> FloatArray:
    """Seconds of whole prompts of equal length."""
    kinds, coefficients = _layer_kinds(device, table)
    out = np.empty(len(table))
    _fill_prefill(
        kinds, coefficients, table["num_seqs"].to_numpy(np.int64), table["num_tokens"].to_numpy(np.float64), out
    )
    return out


@compiled
def _fill_decode(
    kinds: IntArray, coefficients: FloatArray, num_seqs: IntArray, context: FloatArray, out: FloatArray
) -> None:
    for row in range(len(kinds)):
        out[row] = decode_attention_seconds(
            num_seqs[row], num_seqs[row], num_seqs[row] * context[row], context[row], coefficients[kinds[row]], 0
        )[0]


@compiled
def _fill_prefill(
    kinds: IntArray, coefficients: FloatArray, num_seqs: IntArray, num_tokens: FloatArray, out: FloatArray
) -> None:
    for row in range(len(kinds)):
        total = num_seqs[row] * num_tokens[row]
        pairs = total * (num_tokens[row] + 1.0) / 2.0
        out[row] = prefill_attention_seconds(num_seqs[row], total, pairs, total, coefficients[kinds[row]], 0)[0]


def _fit(
    device: Device, table: pd.DataFrame, coefficients: tuple[Coefficient, ...], predict: object
) -> tuple[dict[str, float], ErrorSummary, ErrorSummary]:
    assert callable(predict)
    held = held_out(*(table[name] for name in SHAPE))
    fitted_rows = table[thin(~held)]

    def seconds(values: dict[str, float], rows: pd.DataFrame) -> FloatArray:
        warm = {"warm_bytes": values["warm_bytes"]} if "warm_bytes" in values else {}
        found: FloatArray = predict(with_attention(device, values), rows, **warm)
        return found

    values = fit_coefficients(
        coefficients, lambda values: seconds(values, fitted_rows), fitted_rows["measured_s"].to_numpy()
    )
    predicted_s, measured_s = seconds(values, table), table["measured_s"].to_numpy()
    return values, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def _layer_kinds(device: Device, table: pd.DataFrame) -> tuple[IntArray, FloatArray]:
    """Row -> kind, and [num_kinds, NUM_LAYER_COEFFICIENTS]."""
    keys = [*SHAPE, "kv_bytes"]
    groups = table.groupby(keys, sort=True)
    kinds: IntArray = np.asarray(groups.ngroup(), np.int64)
    shapes = table[keys].drop_duplicates().sort_values(keys).to_numpy(np.float64).tolist()
    coefficients = [layer_coefficients(_layers(*shape), device) for shape in shapes]
    return kinds, np.array(coefficients)


def _layers(num_heads: float, num_kv_heads: float, head_dim: float, kv_bytes: float) -> AttentionLayers:
    query_bytes = 2.0 * num_heads * head_dim * 2.0
    token_bytes = 2.0 * num_kv_heads * head_dim * kv_bytes
    flops = 4.0 * num_heads * head_dim
    return AttentionLayers(
        kind="full",
        num_layers=1,
        num_prompt_layers=1,
        window_tokens=0,
        num_heads=int(num_heads),
        num_kv_heads=int(num_kv_heads),
        decode_flops_per_token=flops,
        decode_bytes_per_token=token_bytes,
        decode_bytes_per_query=query_bytes,
        flops_per_pair=flops,
        prefill_bytes_per_token=token_bytes,
        prefill_bytes_per_query=query_bytes,
        cache_write_bytes=2.0 * 2.0 * num_kv_heads * head_dim * 2.0,
        history_flops_per_token=0.0,
        dtype="bf16",
    )
