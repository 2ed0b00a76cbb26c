"""What a grouped product of experts costs beyond equal dense products, from measured layers of experts."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.hardware.device import Device
from hermes_sim.perf.coefficients import gemm_coefficients
from hermes_sim.perf.expert_routing import distinct_experts
from hermes_sim.perf.operators.gemm import gemm_seconds

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES = 2.0

COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("slowdown", 1.2, 1.0, 5.0),
    Coefficient("launch_s", 1e-5, 0.0, 2e-4, 1e-6),
)
SHAPE = ["hidden", "width", "num_experts", "num_experts_per_token", "ep"]


def fit_experts(device: Device, table: pd.DataFrame) -> tuple[dict[str, float], ErrorSummary, ErrorSummary]:
    """Slowdown and fixed time with the multiply's coefficients frozen; errors on fitted and held-out layer shapes."""
    held = held_out(*(table[name] for name in SHAPE))
    products_s, streams_s = _parts(device, table)
    measured_s = table["measured_s"].to_numpy(np.float64)

    def predict(values: dict[str, float]) -> FloatArray:
        found: FloatArray = values["launch_s"] + values["slowdown"] * products_s + streams_s
        return found

    chosen = thin(~held)
    values = fit_coefficients(COEFFICIENTS, lambda values: predict(values)[chosen], measured_s[chosen])
    predicted_s = predict(values)
    return values, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


def _parts(device: Device, table: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Seconds of both grouped products, and of activation and combination."""
    tokens, hidden, width, num_experts, per_token, ep = (
        table[name].to_numpy(np.float64) for name in ("num_tokens", *SHAPE)
    )
    out = np.empty(len(table))
    _fill(tokens, hidden, width, num_experts, per_token, ep, gemm_coefficients(device, "bf16"), out)
    rows = tokens * per_token / ep
    moved = ACTIVATION_BYTES * (3.0 * rows * width + (rows + tokens) * hidden)
    cost = device.cost_model
    streams_s = moved / (device.memory.bandwidth_bytes_per_s * cost.elementwise_memory_frac)
    return out, streams_s + 2.0 * cost.elementwise_launch_s


@compiled
def _fill(
    tokens: FloatArray,
    hidden: FloatArray,
    width: FloatArray,
    num_experts: FloatArray,
    per_token: FloatArray,
    ep: FloatArray,
    coefficients: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(tokens)):
        rows = tokens[row] * per_token[row] / ep[row]
        distinct = distinct_experts(tokens[row], num_experts[row], per_token[row]) / ep[row]
        out[row] = 0.0
        for n, k in ((2.0 * width[row], hidden[row]), (hidden[row], width[row])):
            weights, activations = ACTIVATION_BYTES * distinct * n * k, ACTIVATION_BYTES * rows * (n + k)
            out[row] += gemm_seconds(rows / distinct, n, k, distinct, weights, activations, coefficients)[0]
