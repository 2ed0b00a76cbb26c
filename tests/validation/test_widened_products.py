"""Weight-only products priced by widening on the vector units, against TensorRT-LLM's on an A100."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hermes_sim.calibration.gemm import predict_shapes
from hermes_sim.calibration.split import held_out
from hermes_sim.calibration.tables import read_gemm_kernel
from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.gemm_efficiency import GemmKernel
from hermes_sim.perf.coefficients import StoredWeights, gemm_coefficients
from hermes_sim.perf.operators.gemm import LAUNCH_S, gemm_seconds
from tests.unit.hardware.shipped import devices


@pytest.mark.data
@pytest.mark.parametrize(
    ("kernel", "stored", "bytes_each", "most_median"),
    [("trtllm_w4a16", "int4", 0.5, 0.12), ("trtllm_w8a16", "int8", 1.0, 0.11)],
)
def test_widened_products(
    data_folder: Path, kernel: GemmKernel, stored: Dtype, bytes_each: float, most_median: float
) -> None:
    """Coefficients of 16-bit products, the bytes and the widening of narrow weights; launches as measured for these
    kernels. The fitted entries are 5 to 6 points better."""
    device = devices()["a100_sxm_80gb"]
    table = read_gemm_kernel(data_folder, device.name, kernel)
    assert table is not None
    table = table[held_out(table["m"], table["n"], table["k"])]
    m, n, k = (table[name].to_numpy(float) for name in "mnk")
    measured_s = table["measured_s"].to_numpy()
    coefficients = gemm_coefficients(device, "bf16", "trtllm_bf16", StoredWeights(stored), benchmark=True)
    coefficients[LAUNCH_S] = device.cost_model.gemm_kernels[kernel].launch_s
    shapes = zip(m, n, k, bytes_each * n * k, 2.0 * m * (n + k), strict=True)
    widened_s = np.array([gemm_seconds(*shape[:3], 1.0, *shape[3:], coefficients)[0] for shape in shapes])
    error = np.abs(widened_s / measured_s - 1.0)
    assert np.median(error) < most_median
    assert abs(np.median(widened_s / measured_s) - 1.0) < 0.03
    fitted_s = predict_shapes(device, "bf16", m, n, k, kernel, benchmark=True)
    assert np.median(np.abs(fitted_s / measured_s - 1.0)) < np.median(error)
