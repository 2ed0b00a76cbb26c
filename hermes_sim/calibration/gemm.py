"""Coefficients of the matrix-multiply model from a measured table of shapes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency
from hermes_sim.perf.coefficients import gemm_coefficients
from hermes_sim.perf.operators.gemm import WARM_BYTES, gemm_seconds

FloatArray = npt.NDArray[np.float64]

ACTIVATION_BYTES = 2.0
"""Inputs arrive and outputs leave in bf16, whatever the multiply's dtype."""

WARM: Final = Coefficient("warm_bytes", 8e6, 0.0, 1e8, 1e6)
"""The benchmark repeats one product: small weights stay in the cache. Fitted, but not part of the serving model."""

COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("compute_frac", 0.85, 0.3, 1.0),
    Coefficient("memory_frac", 0.85, 0.4, 1.0),
    Coefficient("launch_s", 2.5e-6, 5e-7, 1e-5, 1e-6),
    Coefficient("prologue_elements", 200.0, 0.0, 2000.0, 100.0),
    Coefficient("wave_frac", 0.3, 0.0, 1.0),
    Coefficient("serial_frac", 0.2, 0.0, 1.0),
    Coefficient("split_s", 2e-6, 0.0, 2e-5, 1e-6),
    Coefficient("core_streams", 2.0, 1.0, 8.0),
    Coefficient("depth_s", 1e-9, 0.0, 1e-8, 1e-9),
    Coefficient("cache_speedup", 1.3, 1.0, 4.0),
)
QUANTIZE_COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("quantize_row_s", 5e-9, 0.0, 2e-8, 1e-9),
    Coefficient("quantize_element_s", 1e-12, 0.0, 2e-11, 1e-12),
)


def fit_gemm(device: Device, dtype: Dtype, table: pd.DataFrame) -> tuple[GemmEfficiency, ErrorSummary, ErrorSummary]:
    """Coefficients, and their errors on fitted and on held-out (n, k) shapes."""
    held = held_out(table["n"], table["k"])
    chosen = thin(~held)
    fitted_rows = table[chosen]
    coefficients = (*COEFFICIENTS, WARM, *(QUANTIZE_COEFFICIENTS if DTYPE_BYTES[dtype] < 2.0 else ()))

    def predict(values: dict[str, float]) -> FloatArray:
        return predict_gemm(_with(device, dtype, values), dtype, fitted_rows, values["warm_bytes"])

    values = fit_coefficients(coefficients, predict, fitted_rows["measured_s"].to_numpy())
    predicted_s = predict_gemm(_with(device, dtype, values), dtype, table, values["warm_bytes"])
    measured_s = table["measured_s"].to_numpy()
    values.pop("warm_bytes")
    return (
        _efficiency(values),
        summarize(predicted_s[~held], measured_s[~held]),
        summarize(predicted_s[held], measured_s[held]),
    )


def predict_gemm(device: Device, dtype: Dtype, table: pd.DataFrame, warm_bytes: float = 0.0) -> FloatArray:
    """Seconds of every row of m, n, k; warm_bytes > 0 predicts a benchmark that repeats each product."""
    coefficients = gemm_coefficients(device, dtype)
    coefficients[WARM_BYTES] = warm_bytes
    out = np.empty(len(table))
    m, n, k = (table[name].to_numpy(np.float64) for name in ("m", "n", "k"))
    _fill(m, n, k, DTYPE_BYTES[dtype], ACTIVATION_BYTES, coefficients, out)
    return out


@compiled
def _fill(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    weight_bytes: float,
    activation_bytes: float,
    coefficients: FloatArray,
    out: FloatArray,
) -> None:
    for row in range(len(m)):
        out[row] = gemm_seconds(
            m[row], n[row], k[row], 1.0, weight_bytes * n[row] * k[row], activation_bytes * m[row] * (n[row] + k[row]),
            coefficients,
        )[0]  # fmt: skip


def _with(device: Device, dtype: Dtype, values: dict[str, float]) -> Device:
    cost_model = device.cost_model.model_copy(update={"gemm": {dtype: _efficiency(values)}})
    return device.model_copy(update={"cost_model": cost_model})


def _efficiency(values: dict[str, float]) -> GemmEfficiency:
    """From base units, without the checks of a file: the optimiser tries thousands."""
    known: dict[str, Any] = {name: value for name, value in values.items() if name in GemmEfficiency.model_fields}
    return GemmEfficiency.model_construct(**known)
