"""Systolic arrays of the data sheet against products measured on a TPU v6e, nothing fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hermes_sim.calibration.gemm import predict_shapes
from hermes_sim.calibration.layered_devices import read_layer_products
from hermes_sim.calibration.split import held_out
from hermes_sim.hardware.device import cost_model_by_class
from hermes_sim.hardware.systolic import Systolic
from tests.unit.hardware.shipped import devices


@pytest.mark.data
def test_systolic_arrays_of_a_tpu(data_folder: Path) -> None:
    """Two arrays of 256 x 256 behind 128 MiB, efficiencies of the class: as good as the class's tiles, and the next
    weights are loaded behind the stream. The coefficients fitted to this table are at 9%."""
    tpu = devices()["tpu_v6e"]
    table = read_layer_products(data_folder, tpu.name)
    assert table is not None
    table = table[held_out(table["m"], table["n"], table["k"])]
    m, n, k = (table[name].to_numpy(float) for name in "mnk")
    plain = tpu.model_copy(update={"cost_model": cost_model_by_class(tpu), "residuals": None})

    def median_error(arrays: Systolic | None) -> float:
        predicted_s = predict_shapes(plain.model_copy(update={"systolic": arrays}), "bf16", m, n, k)
        return float(np.median(np.abs(predicted_s / table["measured_s"] - 1.0)))

    arrays = Systolic(rows=256, columns=256, num_arrays=2, buffer="128 MiB")
    assert median_error(arrays) < 0.15
    assert median_error(arrays) < median_error(None) + 0.005
    assert median_error(arrays.model_copy(update={"preloads_weights": False})) > 2.0 * median_error(arrays)
