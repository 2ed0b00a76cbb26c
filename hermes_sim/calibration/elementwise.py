"""Coefficients of streaming kernels from a measured table of norms and activations."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, summarize, thin
from hermes_sim.calibration.split import held_out
from hermes_sim.hardware.device import Device

FloatArray = npt.NDArray[np.float64]

MEMORY_FRAC: Final = Coefficient("elementwise_memory_frac", 0.6, 0.2, 1.0)


def fit_elementwise(
    device: Device, table: pd.DataFrame, launch_s: float
) -> tuple[dict[str, float], ErrorSummary, ErrorSummary]:
    """Share of the bandwidth at a given fixed time; errors on fitted and on held-out (model, number of tokens)."""
    held = held_out(table["model"], table["num_tokens"])
    moved, measured_s = table["bytes"].to_numpy(np.float64), table["measured_s"].to_numpy(np.float64)

    def predict(values: dict[str, float]) -> FloatArray:
        frac = values["elementwise_memory_frac"]
        return launch_s + moved / (device.memory.bandwidth_bytes_per_s * frac)

    chosen = thin(~held)
    values = fit_coefficients([MEMORY_FRAC], lambda values: predict(values)[chosen], measured_s[chosen])
    predicted_s = predict(values)
    return values, summarize(predicted_s[~held], measured_s[~held]), summarize(predicted_s[held], measured_s[held])
