"""Which numbers of a device a dtype uses."""

from __future__ import annotations

import pytest

from hermes_sim.perf.coefficients import gemm_coefficients, gemm_efficiency, peak_flops_per_s, supported_dtype
from hermes_sim.perf.operators import gemm
from tests.unit.hardware.shipped import devices
from tests.unit.perf.engines import plain_device


def test_dtypes_a_device_lacks_are_widened() -> None:
    a100 = devices()["a100_sxm_80gb"]
    assert supported_dtype(a100, "bf16") == "bf16"
    assert supported_dtype(a100, "fp8") == "bf16"
    assert peak_flops_per_s(a100, "fp8") == 312e12
    assert peak_flops_per_s(devices()["h100_sxm"], "fp8") == 1978e12
    assert peak_flops_per_s(devices()["h100_sxm"], "fp4") == 1978e12


def test_no_peak_is_an_error_that_names_device_and_dtype() -> None:
    device = plain_device().model_copy(update={"peak_flops_per_s": {"int8": 1e12}})
    with pytest.raises(ValueError, match="'plain' multiplies neither bf16 nor anything wider"):
        peak_flops_per_s(device, "bf16")


def test_each_dtype_has_its_own_coefficients_or_those_of_a_wider_one() -> None:
    h100 = devices()["h100_sxm"]
    assert gemm_efficiency(h100, "fp8") is h100.cost_model.gemm["fp8"]
    assert gemm_efficiency(h100, "fp16") is h100.cost_model.gemm["bf16"]
    assert gemm_efficiency(h100, "fp8").quantize_row_s > 0.0
    assert gemm_efficiency(h100, "bf16").quantize_row_s == 0.0


def test_serving_never_counts_on_weights_in_the_cache() -> None:
    for device in devices().values():
        coefficients = gemm_coefficients(device, next(iter(device.cost_model.gemm)))
        assert coefficients[gemm.WARM_BYTES] == 0.0
        assert 0.0 < coefficients[gemm.COMPUTE_FRAC] <= 1.0
        assert 0.0 < coefficients[gemm.MEMORY_FRAC] <= 1.0
