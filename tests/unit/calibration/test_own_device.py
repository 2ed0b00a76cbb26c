"""One's own points move the kernels they are of, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.calibration.own_device import calibrate_own
from hermes_sim.hardware.device import Device
from tests.unit.hardware.shipped import devices


def slower(device: Device) -> Device:
    """The same device with 60% of the speed in products."""
    efficiency = device.cost_model.gemm["bf16"]
    update = {
        "compute_frac": 0.6 * efficiency.compute_frac,
        "memory_frac": 0.6 * efficiency.memory_frac,
        "launch_s": efficiency.launch_s / 0.6,
    }
    gemm = {**device.cost_model.gemm, "bf16": efficiency.model_copy(update=update)}
    return device.model_copy(update={"cost_model": device.cost_model.model_copy(update={"gemm": gemm})})


def products(device: Device, number: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    shapes = pd.DataFrame({name: 2.0 ** random.integers(5, 14, number) for name in ("m", "n", "k")})
    return shapes.assign(dtype="bf16", measured_s=predict_gemm(device, "bf16", shapes))


def test_ten_points_find_a_slower_device() -> None:
    device = devices()["h100_sxm"].model_copy(update={"residuals": None})
    truth = slower(device)
    found = calibrate_own(device, {"gemm": products(truth, 10, 1)}, "points")
    fitted = device.model_copy(update={"cost_model": found.cost_model})
    unseen = products(truth, 300, 2)
    errors = [
        np.median(np.abs(predict_gemm(one, "bf16", unseen) / unseen["measured_s"] - 1.0)) for one in (device, fitted)
    ]
    assert errors[0] > 0.3
    assert errors[1] < 0.4 * errors[0]
    assert found.cost_model.source.kind == "fitted"
    assert found.cost_model.gemm["bf16"].held_out is not None
    assert found.cost_model.attention == device.cost_model.attention


def test_what_says_nothing_is_named() -> None:
    device = devices()["a100_sxm_80gb"]
    few = products(device, 2, 1)
    other = products(device, 10, 1).assign(dtype="fp8_block")
    link = pd.DataFrame({"num_bytes": [1e6] * 5, "measured_s": [1e-5] * 5})
    found = calibrate_own(device, {"gemm": pd.concat([few, other]), "all_reduce": link}, "points")
    assert found.fits == ()
    assert found.cost_model == device.cost_model
    assert [line.split(":")[0] for line in found.left_out] == ["gemm bf16", "gemm fp8_block", "all_reduce"]


@pytest.mark.parametrize("kind", ["norm", "activation"])
def test_small_kernels_by_kind(kind: str) -> None:
    device = devices()["a100_sxm_80gb"]
    num_bytes = np.geomspace(1e5, 1e9, 10)
    truth_s = 4e-6 + num_bytes / (0.5 * device.memory.bandwidth_bytes_per_s)
    table = pd.DataFrame({"kernel": kind, "num_bytes": num_bytes, "measured_s": truth_s})
    found = calibrate_own(device, {"stream": table}, "points")
    (fit,) = found.fits
    assert fit.kernel == f"stream {kind}"
    assert fit.fit.left_out.median_frac < 0.1
    assert set(found.cost_model.elementwise) == set(device.cost_model.elementwise)
