"""Coefficients of layers of experts from measured ones, per format of the experts and library of kernels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.expert_draws import timed_rank
from hermes_sim.calibration.expert_tables import SHAPE, UNGATED
from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.residual import fit_residual, octave_knots
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency
from hermes_sim.hardware.residual import ResidualTable
from hermes_sim.perf.coefficients import peak_flops_per_s
from hermes_sim.perf.expert_coefficients import PEAK_DTYPES, TRTLLM, expert_efficiency, pack
from hermes_sim.perf.operators.experts import (
    WARM_BYTES,
    expert_stream_seconds,
    grouped_product_seconds,
    passed_rows,
)
from hermes_sim.perf.residual import residuals_at

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES: Final = 2.0
WEIGHT_BYTES: Final[dict[str, float]] = {
    "bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0 + 4.0 / 128**2, "fp4": 0.5 + 1.0 / 16, "mxfp4": 0.5 + 1.0 / 32,
    "w4a16": 0.5 + 2.0 / 128, "w4a8": 0.5 + 1.0 / 32,
}  # fmt: skip
"""Bytes of one weight with its share of the scales."""

COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("launch_s", 3e-5, 1e-6, 2e-4, 1e-5),
    Coefficient("compute_frac", 0.6, 0.05, 1.0),
    Coefficient("memory_frac", 0.8, 0.2, 1.0),
    Coefficient("half_rate_rows", 16.0, 0.0, 256.0, 16.0),
    Coefficient("wave_frac", 0.3, 0.0, 1.0),
    Coefficient("serial_frac", 0.2, 0.0, 1.0),
    Coefficient("depth_s", 2e-9, 0.0, 1e-7, 1e-9),
    Coefficient("away_frac", 0.3, 0.0, 1.0),
    Coefficient("stream_frac", 0.5, 0.05, 1.0),
    Coefficient("token_s", 1e-9, 0.0, 1e-7, 1e-8),
    Coefficient("expert_s", 1e-9, 0.0, 1e-6, 1e-7),
    Coefficient("cache_speedup", 1.5, 1.0, 8.0),
)
RESIDUAL_AXES: Final = {"tokens": 0.5, "active": 0.5, "width": 0.5, "hidden": 1.0}
"""Axis of a residual table -> knots per octave."""

COLD_CACHES: Final = 1.0
"""Weights of more than so many last-level caches come from memory."""

WARM: Final = Coefficient("warm_bytes", 1e7, 0.0, 1e8, 1e7)
"""The benchmark runs one layer again and again: small experts stay in the cache. Not part of the serving model."""


def fit_experts(device: Device, name: str, table: pd.DataFrame) -> tuple[ExpertEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients of a format; errors on fitted and held-out layer shapes, the benchmark's warm cache included."""
    held = held_out(*(table[column] for column in SHAPE))
    shapes, measured_s = expert_shapes(table), table["measured_s"].to_numpy(np.float64)
    chosen = thin(~held)

    def predict(values: dict[str, float], rows: FloatArray) -> FloatArray:
        return predict_shapes(device, name, _efficiency(values), rows, values["warm_bytes"])

    values = fit_coefficients((*COEFFICIENTS, WARM), lambda values: predict(values, shapes[chosen]), measured_s[chosen])
    predicted_s = predict(values, shapes)
    efficiency = _efficiency(values)
    return efficiency, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def fit_expert_residual(
    device: Device, name: str, efficiency: ExpertEfficiency, table: pd.DataFrame
) -> ResidualTable | None:
    """What the fitted rows leave over, over tokens, active experts, width and hidden size; None where it does not help.

    Small experts of the benchmark come from a cache, served ones do not: rows whose weights could fit it are left out.
    """
    held = held_out(*(table[column] for column in SHAPE))
    shapes, measured_s = expert_shapes(table), table["measured_s"].to_numpy(np.float64)
    features = residual_features(shapes)
    chosen = thin(~held & _is_cold(device, name, features))
    log_ratio = np.log(measured_s / predict_shapes(device, name, efficiency, shapes, 0.0))
    used = {axis: features[axis][chosen] for axis in RESIDUAL_AXES}
    groups = table.groupby(list(SHAPE)).ngroup().to_numpy()
    knots = {axis: octave_knots(used[axis], per_octave) for axis, per_octave in RESIDUAL_AXES.items()}
    return fit_residual(used, log_ratio[chosen], knots, groups[chosen])


def corrected_errors(
    device: Device, name: str, efficiency: ExpertEfficiency, residual: ResidualTable, table: pd.DataFrame
) -> tuple[ErrorSummary, ErrorSummary]:
    """Errors with the residual table, on fitted and held-out layer shapes whose weights no cache holds."""
    held = held_out(*(table[column] for column in SHAPE))
    shapes, measured_s = expert_shapes(table), table["measured_s"].to_numpy(np.float64)
    features = residual_features(shapes)
    cold = _is_cold(device, name, features)
    log_ratios, _ = residuals_at(residual, {axis: features[axis] for axis in residual.axes})
    predicted_s = predict_shapes(device, name, efficiency, shapes, 0.0) * np.exp(log_ratios)
    sides = (~held & cold, held & cold)
    fitted, kept = (summarize(predicted_s[side], measured_s[side]) for side in sides)
    return fitted, kept


def _is_cold(device: Device, name: str, features: dict[str, FloatArray]) -> npt.NDArray[np.bool_]:
    """Rows whose weights cannot be in the last-level cache."""
    if device.cache is None:
        return np.ones(len(features["active"]), bool)
    weights = features["active"] * features["width"] * features["hidden"] * WEIGHT_BYTES[name.removeprefix("trtllm_")]
    cold: npt.NDArray[np.bool_] = weights > COLD_CACHES * device.cache.capacity_bytes
    return cold


def residual_features(shapes: FloatArray) -> dict[str, FloatArray]:
    """Axes of a residual table for the rows of `expert_shapes`."""
    return {"tokens": shapes[:, 0], "active": shapes[:, 6], "width": shapes[:, 2], "hidden": shapes[:, 1]}


def predict_experts(device: Device, name: str, efficiency: ExpertEfficiency, table: pd.DataFrame) -> FloatArray:
    """Seconds of measured layers with weights from memory, as served."""
    return predict_shapes(device, name, efficiency, expert_shapes(table), 0.0)


def predict_measured(device: Device, table: pd.DataFrame) -> FloatArray:
    """Seconds of the rows of a `moe` kernel table of this device, any engine and dtype, with what is shipped.

    NaN where a row cannot be expressed: a distribution that is not known, a dtype without coefficients.
    """
    out = np.full(len(table), np.nan)
    keys = ["num_tokens", "num_experts", "num_experts_per_token", "moe_ep", "distribution"]
    ranks = [timed_rank(*row) for row in table[keys].itertuples(index=False, name=None)]
    known = np.array([rank is not None for rank in ranks])
    names = np.where(table["engine"] == "trtllm", TRTLLM, "") + table["dtype"].astype(str).to_numpy(object)
    for name in sorted(set(names[known])):
        plain = name.removeprefix(TRTLLM)
        efficiency = expert_efficiency(device, name) if plain in WEIGHT_BYTES else None
        if efficiency is not None:
            rows = known & (names == name)
            out[rows] = predict_experts(device, plain, efficiency, table[rows])
    return out


def expert_shapes(table: pd.DataFrame) -> FloatArray:
    """[rows, 8]: tokens, hidden, width of the shard, experts per token, input matrices, own rows, active experts, even.

    ValueError for a distribution of rows that is not known.
    """
    width = table["width"] / table["moe_tp"]
    names = ["num_tokens", "num_experts", "num_experts_per_token", "moe_ep", "distribution"]
    ranks = [timed_rank(*row) for row in table[names].itertuples(index=False, name=None)]
    if None in ranks:
        unknown = sorted({row for row, rank in zip(table["distribution"], ranks, strict=True) if rank is None})
        raise ValueError(f"distributions of rows over experts that are not known: {', '.join(unknown)}")
    kinds = zip(table["width"], table["num_experts"], table["num_experts_per_token"], strict=True)
    inputs = np.where([kind in UNGATED for kind in kinds], 1.0, 2.0)
    return np.column_stack(
        [table["num_tokens"], table["hidden"], width, table["num_experts_per_token"], inputs, np.array(ranks, float)]
    ).astype(np.float64)


def predict_shapes(
    device: Device, name: str, efficiency: ExpertEfficiency, shapes: FloatArray, warm_bytes: float
) -> FloatArray:
    """Seconds of the rows of `expert_shapes`; warm_bytes > 0 predicts a benchmark that repeats one layer."""
    plain = name.removeprefix("trtllm_")
    coefficients = pack(device, peak_flops_per_s(device, PEAK_DTYPES[plain]), efficiency)
    coefficients[WARM_BYTES] = warm_bytes
    out = np.empty(len(shapes))
    _fill(shapes, WEIGHT_BYTES[plain], coefficients, out)
    return out


def _efficiency(values: dict[str, float]) -> ExpertEfficiency:
    own: dict[str, Any] = {coefficient.name: values[coefficient.name] for coefficient in COEFFICIENTS}
    return ExpertEfficiency.model_construct(**own)


@compiled
def _fill(shapes: FloatArray, bytes_per_weight: float, coefficients: FloatArray, out: FloatArray) -> None:
    for row in range(len(shapes)):
        tokens, hidden, width, per_token, inputs, num_rows, active, is_even = shapes[row]
        passed = passed_rows(num_rows, tokens * per_token, coefficients)
        out[row] = expert_stream_seconds(tokens, ACTIVATION_BYTES * passed * (inputs + 1.0) * width, coefficients)
        out[row] += expert_stream_seconds(tokens, ACTIVATION_BYTES * (passed + tokens) * hidden, coefficients)
        for n, k in ((inputs * width, hidden), (hidden, width)):
            weights = active * n * k * bytes_per_weight
            moved = ACTIVATION_BYTES * num_rows * (n + k)
            out[row] += grouped_product_seconds(num_rows, active, n, k, weights, moved, is_even > 0.0, coefficients)[0]
