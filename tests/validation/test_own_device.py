"""What ten points are worth to a device that nobody calibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.device_class import borrowed
from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.calibration.own_device import calibrate_own
from hermes_sim.calibration.tables import read_gemm
from hermes_sim.core.shipped import shipped_root
from hermes_sim.hardware.device import Device
from tests.unit.hardware.shipped import devices

pytestmark = pytest.mark.data

NUM_DRAWS = 20
NUM_POINTS = 10


def median_error(device: Device, table: pd.DataFrame) -> float:
    """Over the whole table, as its benchmark saw the products."""
    predicted_s = predict_gemm(device, "bf16", table, benchmark=True)
    return float(np.median(np.abs(predicted_s / table["measured_s"].to_numpy() - 1.0)))


def test_ten_points_of_an_uncalibrated_l40s(data_folder: Path) -> None:
    """H100's coefficients scaled by L40S's data sheet, then with ten random products of an L40S, 20 fixed draws."""
    start = borrowed(shipped_root() / "hardware_profiles" / "devices" / "l40s.yaml", devices()["h100_sxm"])
    table = read_gemm(data_folder, "l40s", "bf16")
    assert table is not None
    table = table.assign(dtype="bf16")
    random = np.random.default_rng(20)
    before = median_error(start, table)
    after = []
    for _ in range(NUM_DRAWS):
        points = table.iloc[random.choice(len(table), NUM_POINTS, replace=False)].reset_index(drop=True)
        found = calibrate_own(start, {"gemm": points}, "ten points")
        after.append(median_error(start.model_copy(update={"cost_model": found.cost_model}), table))
    assert np.median(after) < 0.75 * before
    assert max(after) < 1.15 * before
