"""Which numbers of a device a dtype uses."""

from __future__ import annotations

import pandas as pd
import pytest

from hermes_sim.calibration.gemm import predict_gemm
from hermes_sim.core.schema import Dtype
from hermes_sim.hardware.collective_efficiency import KernelLibrary
from hermes_sim.hardware.gemm_efficiency import GemmKernel
from hermes_sim.perf.coefficients import (
    gemm_coefficients,
    gemm_efficiency,
    gemm_kernel,
    peak_flops_per_s,
    supported_dtype,
)
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
        if device.array is not None:
            continue  # its weights stay where they are multiplied
        coefficients = gemm_coefficients(device, next(iter(device.cost_model.gemm)))
        assert coefficients[gemm.WARM_BYTES] == 0.0
        assert 0.0 < coefficients[gemm.COMPUTE_FRAC] <= 1.0
        assert 0.0 < coefficients[gemm.MEMORY_FRAC] <= 1.0


BLOCKS = 1.0 + 4.0 / 128**2


@pytest.mark.parametrize(
    ("name", "dtype", "bytes_per_weight", "library", "kernel"),
    [
        ("h100_sxm", "fp8", 1.0, "vllm", None),
        ("h100_sxm", "fp8", 1.0, "sglang", None),
        ("h100_sxm", "fp8", 1.0, "trtllm", "trtllm_fp8"),
        ("h100_sxm", "fp8", BLOCKS, "vllm", "trtllm_fp8_block"),
        ("h100_sxm", "fp8", BLOCKS, "trtllm", "trtllm_fp8_block"),
        ("h100_sxm", "bf16", 2.0, "vllm", None),
        ("h100_sxm", "fp16", 2.0, "trtllm", "trtllm_bf16"),
        ("h100_sxm", "bf16", 0.52, "vllm", None),
        ("h100_sxm", "bf16", 0.52, "trtllm", "trtllm_bf16"),
        ("h100_sxm", "fp4", 0.5625, "trtllm", "trtllm_fp8"),
        ("b200_sxm", "fp4", 0.5625, "trtllm", "trtllm_fp4"),
        ("b200_sxm", "fp4", 0.5625, "vllm", None),
        ("a100_sxm_80gb", "bf16", 0.52, "vllm", "trtllm_w4a16"),
        ("a100_sxm_80gb", "int8", 1.0, "vllm", "trtllm_int8"),
        ("a100_sxm_80gb", "fp8", 1.0, "vllm", "trtllm_w8a16"),
        ("a40", "bf16", 0.52, "vllm", None),
    ],
)
def test_the_kernel_follows_library_and_width_of_weights(
    name: str, dtype: Dtype, bytes_per_weight: float, library: KernelLibrary, kernel: GemmKernel | None
) -> None:
    device = devices()[name]
    assert gemm_kernel(device, dtype, bytes_per_weight, library) == kernel
    if kernel is not None:
        assert gemm_efficiency(device, dtype, kernel) is device.cost_model.gemm_kernels[kernel]
    assert gemm_kernel(plain_device(), "bf16", bytes_per_weight, library) is None


@pytest.mark.parametrize("name", ["h100_sxm", "h200_sxm", "b200_sxm", "l40s"])
def test_served_products_are_spared_the_search_for_a_scale(name: str) -> None:
    """TensorRT-LLM's fp8 tables hold it, seven or more microseconds a product; two kernels are launched beside it."""
    device = devices()[name]
    kernels = device.cost_model.gemm_kernels
    served_s = gemm_coefficients(device, "fp8", "trtllm_fp8")[gemm.LAUNCH_S]
    assert served_s == pytest.approx(2.0 * kernels["trtllm_bf16"].launch_s)
    assert 5e-6 < kernels["trtllm_fp8"].dynamic_scale_s < 12e-6
    shape = pd.DataFrame({"m": [16], "n": [4096], "k": [4096]})
    bare = device.model_copy(update={"residuals": None})
    weights, moved = 4096.0**2, 2.0 * 16 * 8192
    alone_s = gemm.gemm_seconds(
        16.0, 4096.0, 4096.0, 1.0, weights, moved, gemm_coefficients(bare, "fp8", "trtllm_fp8")
    )[0]
    whole_s = predict_gemm(bare, "fp8", shape, kernel="trtllm_fp8")[0]
    assert whole_s - alone_s == pytest.approx(kernels["trtllm_fp8"].dynamic_scale_s)
