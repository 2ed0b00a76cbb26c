"""Coefficients of the attention model from measured tables of prompts and of decodes.

Tables have the columns of the public format: num_seqs, new_tokens or context_tokens (per sequence, new token
included), num_heads, num_kv_heads, head_dim, window_tokens (0: none), kv_dtype, measured_s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.calibration.tables import SYSTEMS
from hermes_sim.core.compiled import compiled
from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.attention_efficiency import AttentionEfficiency
from hermes_sim.hardware.device import Device
from hermes_sim.perf.attention_layers import AttentionLayers, layer_coefficients
from hermes_sim.perf.attention_residual import corrected_coefficients
from hermes_sim.perf.operators import attention as layer
from hermes_sim.perf.operators.corrected_attention import corrected_decode_seconds, corrected_prefill_seconds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Values = dict[str, float]
Structure = dict[str, Any]
LayersOf = Callable[[tuple[Any, ...]], AttentionLayers]
LayerKinds = tuple[IntArray, list[AttentionLayers]]

DECODE_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("decode_launch_s", 1.1e-5, 1e-6, 4e-4, 1e-6),
    Coefficient("decode_memory_frac", 0.9, 0.1, 1.0),
    Coefficient("decode_compute_frac", 0.3, 0.01, 1.0, 0.1),
    Coefficient("decode_tile_cycles", 6000.0, 0.0, 2e5, 1000.0),
    Coefficient("decode_dim_exponent", 0.3, 0.0, 1.0),
    Coefficient("decode_wave_frac", 0.5, 0.0, 1.0),
    Coefficient("decode_block_cycles", 500.0, 0.0, 5e4, 1000.0),
    Coefficient("decode_walk_cycles", 1500.0, 500.0, 5e4, 1000.0),  # a core reads no more than 64 to 128 bytes a cycle
    Coefficient("decode_serial_frac", 0.1, 0.0, 1.0),
    Coefficient("decode_hidden_blocks", 35.0, 1.0, 500.0, 20.0),
    Coefficient("decode_combine_s", 1e-6, 0.0, 2e-5, 1e-6),
    Coefficient("decode_combine_log_s", 2e-7, 0.0, 3e-6, 1e-7),
    Coefficient("benchmark_cache_frac", 0.9, 0.05, 2.0),
    Coefficient("benchmark_cache_speedup", 2.5, 1.0, 10.0),
)
REGROUP: Final = Coefficient("decode_regroup_s", 4e-6, 0.0, 2e-5, 1e-6)
SINGLE_TILE: Final = Coefficient("decode_single_tile_frac", 0.4, 0.02, 1.0)
RAMP: Final = Coefficient("decode_ramp_s", 1e-5, 0.0, 1e-4, 1e-5)
WINDOW: Final = Coefficient("decode_window_s", 1e-6, 0.0, 2e-5, 1e-6)

PREFILL_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("prefill_launch_s", 1.1e-5, 1e-6, 4e-4, 1e-6),
    Coefficient("prefill_compute_frac", 0.8, 0.1, 1.0, 0.1),
    Coefficient("softmax_cycles", 0.05, 0.0, 10.0, 0.05),
    Coefficient("prefill_wide_frac", 0.2, 0.0, 2.0, 0.5),
    Coefficient("diagonal_pairs", 64.0, 0.0, 512.0, 64.0),
    Coefficient("row_tokens", 100.0, 0.0, 512.0, 64.0),
    Coefficient("prefill_serial_frac", 0.3, 0.0, 1.0),
    Coefficient("prefill_tile_cycles", 5000.0, 0.0, 2e5, 1000.0),
    Coefficient("prefill_dim_exponent", 0.2, 0.0, 1.0),
    Coefficient("prefill_wave_frac", 0.5, 0.0, 1.0),
    Coefficient("prefill_memory_frac", 0.6, 0.05, 1.0),
    Coefficient("prefill_memory_serial_frac", 0.7, 0.0, 1.0),
    Coefficient("prefill_cache_frac", 0.8, 0.05, 3.0),
    Coefficient("prefill_cache_speedup", 1.5, 1.0, 10.0),
    Coefficient("prefill_write_factor", 1.5, 1.0, 10.0),
    Coefficient("prefill_token_cycles", 200.0, 0.0, 20000.0, 200.0),
)
WINDOW_ROWS: Final = Coefficient("window_row_tokens", 128.0, 0.0, 512.0, 128.0)

MIXED_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("mixed_row_tokens", 64.0, 1.0, 128.0, 16.0),
    Coefficient("mixed_tile_cycles", 8000.0, 0.0, 2e5, 1000.0),
    Coefficient("mixed_empty_cycles", 1000.0, 0.0, 2e4, 500.0),
    Coefficient("mixed_cache_frac", 1.0, 0.1, 3.0),
)
MIXED_CALL: Final = (
    "num_prefill", "new_tokens", "history_tokens", "num_decode", "context_tokens", "max_context_tokens",
)  # fmt: skip
MIXED_SHAPE: Final = ("num_heads", "new_tokens", "history_tokens", "num_decode", "context_tokens", "max_context_tokens")

GROUPED: Final[Structure] = {"decode_group_rows": 64.0, "decode_window_groups": True, "decode_splits": True}
DECODE_STRUCTURES: Final[tuple[Structure, ...]] = (
    GROUPED,
    {**GROUPED, "decode_window_groups": False, "mixed_row_tokens": 64.0},
    {**GROUPED, "decode_largest_group": 32.0},
    {"decode_group_rows": 0.0, "decode_window_groups": True, "decode_splits": False},
)
"""FlashAttention 3, FlashInfer; FlashAttention 2, which groups no heads under a window; TensorRT-LLM, whose XQA kernels
take up to 32 heads; a tile for each query head. FlashAttention 2 takes decodes along with prompts, in tiles of 64
rows."""
PREFILL_STRUCTURES: Final[tuple[Structure, ...]] = ({"prefill_groups": False}, {"prefill_groups": True})

MATH: Final = "math_dtype"
"""Column of tables of kernels that multiply in something else than the 16 bits of their queries."""
SHAPE = ["num_heads", "num_kv_heads", "head_dim"]
KIND: Final = [*SHAPE, "window_tokens", "kv_dtype", MATH]
LARGEST_HEAD_DIM: Final = 256
NUM_FITTED_SHAPES: Final = 80
NUM_STRUCTURE_SHAPES: Final = 25
ROWS_OF_A_SHAPE: Final = 20


def read_attention(
    folder: Path, device: str, phase: str, engine: str = "vllm", math_dtype: Dtype = "bf16"
) -> pd.DataFrame | None:
    """Measured attention of one engine: phase prefill or decode; None where it was not measured.

    math_dtype: of the products; a table of anything but bf16 has it as a column.

    Prompts of one token run the decode kernels, heads above 256 and kernels written in Triton are no default: left out.
    """
    name = {"prefill": "context", "decode": "generation"}[phase]
    path = folder / "kernels" / "aiconfigurator" / f"{SYSTEMS[device]}_{engine}_{name}_attention.parquet"
    if not path.is_file():
        return None
    table = pd.DataFrame(pd.read_parquet(path))
    if "window_size" not in table:
        table["window_size"] = 0
    keep = (table["head_dim"] <= LARGEST_HEAD_DIM) & ~table["kernel_source"].astype(str).str.contains("triton")
    keep &= table["attn_dtype"].astype(str).replace("bfloat16", "bf16") == math_dtype
    if not keep.any():
        return None
    tokens = "new_tokens" if phase == "prefill" else "context_tokens"
    table[tokens] = table["isl"] if phase == "prefill" else table["step"] + 1
    keep &= (table["isl"] > 1) if phase == "prefill" else True
    table["kv_dtype"] = table["kv_cache_dtype"].astype(str).map({"bfloat16": "bf16", "fp8": "fp8"})
    names = {"batch_size": "num_seqs", "num_key_value_heads": "num_kv_heads", "window_size": "window_tokens"}
    table = table[keep].rename(columns=names).dropna(subset=["latency_ms"])
    kind = [name for name in KIND if name in table]
    found = table.groupby(["num_seqs", tokens, *kind], as_index=False)["latency_ms"].median()
    found = found if math_dtype == "bf16" else found.assign(**{MATH: math_dtype})
    return pd.DataFrame(found.assign(measured_s=found["latency_ms"] * 1e-3).drop(columns="latency_ms"))


def fit_decode(
    device: Device, table: pd.DataFrame, held_by: Sequence[str] = SHAPE
) -> tuple[AttentionEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of decode attention, and errors on fitted and held-out shapes (columns `held_by`)."""
    coefficients = [*DECODE_COEFFICIENTS]
    if (table["window_tokens"] > 0).any():
        coefficients.append(WINDOW)

    def with_regroup(structure: Structure) -> list[Coefficient]:
        if "decode_largest_group" in structure:
            return [*coefficients, SINGLE_TILE, RAMP]
        return coefficients if structure["decode_window_groups"] else [*coefficients, REGROUP]

    held = held_out(*(table[name] for name in held_by))
    return fit_structures(device, table, held, DECODE_STRUCTURES, with_regroup, layers_of_heads, predict_decode)


def fit_prefill(
    device: Device, table: pd.DataFrame, held_by: Sequence[str] = SHAPE
) -> tuple[AttentionEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of prompt attention, and errors on fitted and held-out shapes (columns `held_by`)."""
    coefficients = [*PREFILL_COEFFICIENTS]
    if (table["window_tokens"] > 0).any():
        coefficients.append(WINDOW_ROWS)
    held = held_out(*(table[name] for name in held_by))
    return fit_structures(
        device, table, held, PREFILL_STRUCTURES, lambda _: coefficients, layers_of_heads, predict_prefill
    )


def fit_mixed(
    device: Device, efficiency: AttentionEfficiency, table: pd.DataFrame
) -> tuple[AttentionEfficiency, ErrorSummary, ErrorSummary]:
    """What decodes cost in a kernel of prompts and decodes, all else known; errors on both sides.

    Kernels of their own for both are taken where these explain the rows better.
    """
    held = held_out(*(table[name] for name in MIXED_SHAPE))
    sample = table[thin(~held)]
    kinds = layer_kinds(sample, layers_of_heads)

    def seconds(values: Values) -> FloatArray:
        return predict_mixed(device, sample, efficiency.model_copy(update=values), kinds=kinds)

    sample_s = sample["measured_s"].to_numpy()
    apart: Values = {"mixed_row_tokens": 0.0}
    together = fit_coefficients(MIXED_COEFFICIENTS, seconds, sample_s, num_starts=1)
    best = min((together, apart), key=lambda values: float(np.abs(np.log(seconds(values) / sample_s)).mean()))
    found = efficiency.model_copy(update=best)
    predicted_s, measured_s = predict_mixed(device, table, found), table["measured_s"].to_numpy()
    return found, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def fit_structures(
    device: Device,
    table: pd.DataFrame,
    held: BoolArray,
    structures: Sequence[Structure],
    coefficients: Callable[[Structure], Sequence[Coefficient]],
    layers_of: LayersOf,
    predict: Callable[..., FloatArray],
) -> tuple[AttentionEfficiency, ErrorSummary, ErrorSummary]:
    """The structure of the kernel that fits a sample best, its coefficients, and errors on both sides of the split."""
    rows = table[~held]

    def fitted(structure: Structure, sample: pd.DataFrame) -> tuple[float, AttentionEfficiency]:
        kinds = layer_kinds(sample, layers_of)

        def seconds(values: Values) -> FloatArray:
            efficiency = AttentionEfficiency().model_copy(update={**structure, **values})
            return predict(device, sample, efficiency, kinds=kinds)

        measured_s = sample["measured_s"].to_numpy()
        values = fit_coefficients(coefficients(structure), seconds, measured_s, num_starts=1)
        error = float(np.abs(np.log(seconds(values) / measured_s)).mean())
        return error, AttentionEfficiency().model_copy(update={**structure, **values})

    best = structures[0]
    if len(structures) > 1:
        sample = sampled(rows, NUM_STRUCTURE_SHAPES)
        best = structures[int(np.argmin([fitted(structure, sample)[0] for structure in structures]))]
    _, efficiency = fitted(best, sampled(rows, NUM_FITTED_SHAPES))
    predicted_s = predict(device, table, efficiency, kinds=layer_kinds(table, layers_of))
    measured_s = table["measured_s"].to_numpy()
    return efficiency, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def sampled(table: pd.DataFrame, num_shapes: int) -> pd.DataFrame:
    """About so many shapes with all of their rows, scattered over the table by a checksum, then about 20 rows each."""
    shapes = table[[name for name in KIND if name in table]]
    mark = pd.util.hash_pandas_object(shapes, index=False).to_numpy(np.uint64) % np.uint64(1 << 20)
    share = min(num_shapes / max(len(shapes.drop_duplicates()), 1), 1.0)
    found = table[mark < (1 << 20) * share]
    numbers = np.arange(len(found), dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)
    return found[numbers < (1 << 32) * min(ROWS_OF_A_SHAPE * num_shapes / max(len(found), 1), 1.0)]


def predict_decode(
    device: Device,
    table: pd.DataFrame,
    efficiency: AttentionEfficiency | None = None,
    *,
    kinds: LayerKinds | None = None,
    engine: str = "vllm",
    benchmark: bool = True,
) -> FloatArray:
    """Seconds of decodes, with the device's residual tables unless an efficiency is given.

    Contexts that differ within a batch count by their mean and the longest (`max_context_tokens`, if there are any).
    `benchmark`: one batch repeated, so that a small cache of keys is found in the L2.
    """
    rows, layers = kinds or layer_kinds(table, layers_of_heads)
    coefficients = _coefficients(layers, device, efficiency, engine)
    num_seqs = table["num_seqs"].to_numpy(np.int64)
    context = table["context_tokens"].to_numpy(np.float64)
    longest = table["max_context_tokens"].to_numpy(np.float64) if "max_context_tokens" in table else context
    share = repeated_share(table, rows, coefficients) if benchmark else np.ones(len(table))
    out = np.empty(len(table))
    _fill_decode(rows, coefficients, num_seqs, context, longest, share, out)
    return out


def repeated_share(table: pd.DataFrame, kinds: IntArray, coefficients: FloatArray) -> FloatArray:
    """Share of its time per KV byte that a decode takes in a benchmark of one batch, repeated."""
    context, window = table["context_tokens"].to_numpy(np.float64), coefficients[:, layer.WINDOW_TOKENS][kinds]
    read = table["num_seqs"].to_numpy(np.float64) * np.where(window > 0.0, np.minimum(context, window), context)
    cold = 1.0 / (1.0 + (coefficients[:, layer.REPEATED_TOKENS][kinds] / read) ** 6)
    return np.asarray(cold + (1.0 - cold) * coefficients[:, layer.REPEATED_SHARE][kinds])


def predict_prefill(
    device: Device,
    table: pd.DataFrame,
    efficiency: AttentionEfficiency | None = None,
    *,
    kinds: LayerKinds | None = None,
    engine: str = "vllm",
) -> FloatArray:
    """Seconds of prompts, or chunks of prompts behind `history_tokens`, of equal length; residual tables as above."""
    rows, layers = kinds or layer_kinds(table, layers_of_heads)
    history = table["history_tokens"] if "history_tokens" in table else pd.Series(0.0, index=table.index)
    out = np.empty(len(table))
    _fill_prefill(
        rows,
        _coefficients(layers, device, efficiency, engine),
        table["num_seqs"].to_numpy(np.int64),
        table["new_tokens"].to_numpy(np.float64),
        np.asarray(history, np.float64),
        out,
    )
    return out


def predict_mixed(
    device: Device,
    table: pd.DataFrame,
    efficiency: AttentionEfficiency | None = None,
    *,
    kinds: LayerKinds | None = None,
    engine: str = "vllm",
) -> FloatArray:
    """Seconds of `num_prefill` prompt chunks and `num_decode` decodes, in one kernel or in two."""
    rows, layers = kinds or layer_kinds(table, layers_of_heads)
    calls = np.ascontiguousarray(table[list(MIXED_CALL)].to_numpy(np.float64))
    out = np.empty(len(table))
    _fill_mixed(rows, _coefficients(layers, device, efficiency, engine), calls, out)
    return out


@compiled
def _fill_decode(
    kinds: IntArray,
    coefficients: FloatArray,
    num_seqs: IntArray,
    context: FloatArray,
    longest: FloatArray,
    share: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(kinds)):
        kind = coefficients[kinds[row]].copy()
        kind[layer.DECODE_BYTE_S] *= share[row]
        out[row] = corrected_decode_seconds(
            num_seqs[row], num_seqs[row], num_seqs[row] * context[row], max(longest[row], context[row]), kind, 0
        )[0]


@compiled
def _fill_prefill(
    kinds: IntArray,
    coefficients: FloatArray,
    num_seqs: IntArray,
    num_tokens: FloatArray,
    history: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(kinds)):
        total = num_seqs[row] * num_tokens[row]
        kind = coefficients[kinds[row]]
        pairs = total * (history[row] + (num_tokens[row] + 1.0) / 2.0)
        window = kind[layer.WINDOW_TOKENS]
        if 0.0 < window < num_tokens[row]:  # the first tokens see less than a window
            pairs = total * window - num_seqs[row] * window * (window - 1.0) / 2.0
        context = total + num_seqs[row] * history[row]
        out[row] = corrected_prefill_seconds(num_seqs[row], total, pairs, context, 0, 0.0, 0.0, kind, 0)[0]


@compiled
def _fill_mixed(kinds: IntArray, coefficients: FloatArray, calls: FloatArray, out: FloatArray) -> None:
    """As perf/step_kernel.py puts the attention of one layer together."""
    for row in range(len(kinds)):
        kind = coefficients[kinds[row]]
        num_prefill, new, history, num_decode, mean, longest = calls[row]
        prefills, decodes = int(num_prefill), int(num_decode)
        context = num_decode * mean
        total = num_prefill * new
        pairs = total * (history + (new + 1.0) / 2.0)
        all_context = total + num_prefill * history
        if kind[layer.MIXED_ROW_TOKENS] > 0.0:
            out[row] = corrected_prefill_seconds(
                prefills, total, pairs, all_context, decodes, context, longest, kind, 0
            )[0]
        else:
            out[row] = corrected_decode_seconds(decodes, decodes, context, longest, kind, 0)[0]
            out[row] -= min(kind[layer.DECODE_LAUNCH_S], kind[layer.PREFILL_LAUNCH_S])
            out[row] += corrected_prefill_seconds(prefills, total, pairs, all_context, 0, 0.0, 0.0, kind, 0)[0]


def layer_kinds(table: pd.DataFrame, layers_of: LayersOf) -> LayerKinds:
    """Row -> kind, and the kinds."""
    keys = [name for name in KIND if name in table]
    rows: IntArray = np.asarray(table.groupby(keys, sort=True).ngroup(), np.int64)
    shapes = table[keys].drop_duplicates().sort_values(keys).itertuples(index=False, name=None)
    return rows, [layers_of(shape) for shape in shapes]


def _coefficients(
    layers: Sequence[AttentionLayers], device: Device, efficiency: AttentionEfficiency | None, engine: str = "vllm"
) -> FloatArray:
    """[num_kinds, NUM_LAYER_COEFFICIENTS or more]: as given, else the device's with its residual tables."""
    if efficiency is None:
        return corrected_coefficients(layers, device, engine)
    return np.array([layer_coefficients(kind, device, efficiency=efficiency) for kind in layers])


def layers_of_heads(shape: tuple[Any, ...]) -> AttentionLayers:
    """One layer of multi-head or grouped-query attention from its KIND."""
    num_heads, num_kv_heads, head_dim, window_tokens, kv_dtype, *math = shape
    heads = int(num_heads), int(num_kv_heads), int(head_dim), int(window_tokens)
    return grouped_layers(*heads, kv_dtype, *math)


def grouped_layers(
    num_heads: int, num_kv_heads: int, head_dim: int, window_tokens: int, kv_dtype: Dtype, math_dtype: Dtype = "bf16"
) -> AttentionLayers:
    """One layer as an engine runs it on one device: queries of 2 bytes, cache as its dtype says."""
    query_bytes = 2.0 * num_heads * head_dim * 2.0
    token_bytes = 2.0 * num_kv_heads * head_dim * (1.0 if kv_dtype == "fp8" else 2.0)
    flops = 4.0 * num_heads * head_dim
    return AttentionLayers(
        kind="sliding" if window_tokens else "full",
        num_layers=1,
        num_prompt_layers=1,
        window_tokens=window_tokens,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        decode_flops_per_token=flops,
        decode_bytes_per_token=token_bytes,
        decode_bytes_per_query=query_bytes,
        flops_per_pair=flops,
        prefill_bytes_per_token=token_bytes,
        prefill_bytes_per_query=query_bytes,
        cache_write_bytes=2.0 * 2.0 * num_kv_heads * head_dim * 2.0,
        history_flops_per_token=0.0,
        dtype=math_dtype,
        kv_dtype=kv_dtype,
    )
