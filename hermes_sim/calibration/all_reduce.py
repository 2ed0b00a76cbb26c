"""Latency and reached share of a link from measured all-reduces inside a node."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize
from hermes_sim.calibration.split import held_out
from hermes_sim.core.compiled import compiled
from hermes_sim.perf.operators.collective import all_reduce_seconds

FloatArray = npt.NDArray[np.float64]

COEFFICIENTS: Final[tuple[Coefficient, ...]] = (
    Coefficient("latency_s", 5e-6, 1e-6, 5e-5, 1e-6),
    Coefficient("efficiency_frac", 0.7, 0.05, 1.0),
)


def fit_all_reduce(
    bandwidth_bytes_per_s: float, table: pd.DataFrame
) -> tuple[dict[str, float], ErrorSummary, ErrorSummary]:
    """Latency and efficiency of a link of that bandwidth per device; errors on fitted and held-out message sizes."""
    held = held_out(table["message_bytes"])
    measured_s = table["measured_s"].to_numpy(np.float64)
    num_bytes, num_devices = table["message_bytes"].to_numpy(np.float64), table["num_gpus"].to_numpy(np.int64)

    def predict(values: dict[str, float]) -> FloatArray:
        out = np.empty(len(table))
        reached = bandwidth_bytes_per_s * values["efficiency_frac"]
        _fill(num_bytes, num_devices, reached, values["latency_s"], out)
        return out

    values = fit_coefficients(COEFFICIENTS, lambda values: predict(values)[~held], measured_s[~held])
    predicted_s = predict(values)
    return values, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])


@compiled
def _fill(
    num_bytes: FloatArray,
    num_devices: npt.NDArray[np.int64],
    bandwidth_bytes_per_s: float,
    latency_s: float,
    out: FloatArray,
) -> None:
    for row in range(len(num_bytes)):
        out[row] = all_reduce_seconds(num_bytes[row], num_devices[row], bandwidth_bytes_per_s, latency_s)
