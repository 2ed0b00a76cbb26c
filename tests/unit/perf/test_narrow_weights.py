"""Weights narrower than the units that multiply them: widened on the vector units, looked up, or skipped as zeros."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.hardware.device import Device
from hermes_sim.models.served_quantization import ServedQuantization, quantized
from hermes_sim.models.sparsity import Sparsity
from hermes_sim.perf.attention_layers import attention_layers, kv_widening_s_per_token
from hermes_sim.perf.coefficients import StoredWeights, gemm_coefficients, vector_ops_per_s, widening_ops
from hermes_sim.perf.operators import gemm
from hermes_sim.perf.operators.gemm import gemm_seconds
from tests.unit.hardware.shipped import devices
from tests.unit.perf.engines import plain_device, tiny_model

INT4 = StoredWeights("int4")
TWO_OF_FOUR = Sparsity.model_validate("2:4")


def device(**changes: Any) -> Device:
    return Device.model_validate({**plain_device().model_dump(by_alias=True, mode="json"), **changes})


def seconds(on: Device, m: float, stored: StoredWeights | None, bytes_each: float) -> float:
    coefficients = gemm_coefficients(on, "bf16", None, stored)
    return gemm_seconds(m, 8192.0, 8192.0, 1.0, bytes_each * 8192**2, 4.0 * m * 8192, coefficients)[0]


def test_rows_of_tiles_widen_the_weights_again() -> None:
    # 10 TFLOP/s of fp32 are 5e12 lanes a second: one instruction for each of 8192^2 weights, for 8192 / 256 rows of
    # tiles; the best tile is the one with the most rows
    assert vector_ops_per_s(plain_device()) == 5e12
    widened_s = seconds(plain_device(), 8192.0, INT4, 0.5) - seconds(plain_device(), 8192.0, None, 0.5)
    assert widened_s == pytest.approx(32 * 8192**2 / 5e12, rel=1e-9)


def test_a_stream_of_weights_hides_widening_until_the_vector_units_are_slower() -> None:
    # one row: 33.5 MB at 0.5 TB/s take 67 us, 67 M instructions on all cores 13 us
    assert seconds(plain_device(), 1.0, INT4, 0.5) == seconds(plain_device(), 1.0, None, 0.5)
    slow = device(vector_peak="0.5 TFLOP/s")
    assert seconds(slow, 1.0, INT4, 0.5) >= 8192**2 / 0.25e12


def test_looked_up_weights_run_at_their_own_peak() -> None:
    looked_up = device(lut_peak={"int4": "25 TOP/s", "int2": "50 TOP/s"})
    for dtype, peak in (("int4", 25e12), ("int2", 50e12)):
        coefficients = gemm_coefficients(looked_up, "bf16", None, StoredWeights(dtype))  # type: ignore[arg-type]
        assert coefficients[gemm.PEAK] == peak
        assert coefficients[gemm.WIDEN_S] == 0.0
    assert gemm_coefficients(looked_up, "bf16")[gemm.PEAK] == 100e12


def test_zeros_are_skipped_by_units_for_the_pattern_and_expanded_by_others() -> None:
    sparse, plain = device(sparse_speedup={"2:4": 2.0}), plain_device()
    stored = StoredWeights("bf16", TWO_OF_FOUR)
    assert gemm_coefficients(sparse, "bf16", None, stored)[gemm.PEAK] == 200e12
    assert widening_ops(sparse, "bf16", None, stored) == 0.0
    assert gemm_coefficients(plain, "bf16", None, stored)[gemm.PEAK] == 100e12
    assert widening_ops(plain, "bf16", None, stored) == 1.0
    dense_s, sparse_s = seconds(sparse, 8192.0, None, 2.0), seconds(sparse, 8192.0, stored, 1.125)
    assert sparse_s - 1e-6 == pytest.approx(0.5 * (dense_s - 1e-6), rel=1e-9)


def test_half_of_the_layers_sparse_take_three_quarters() -> None:
    sparse = device(sparse_speedup={"2:4": 2.0})
    mixed = StoredWeights("bf16", Sparsity.model_validate({"2:4": 0.5}))
    assert gemm_coefficients(sparse, "bf16", None, mixed)[gemm.PEAK] == pytest.approx(100e12 / 0.75)


def test_no_more_zeros_than_the_pattern_has() -> None:
    with pytest.raises(ValueError, match="speed-up of 1 to 2, got 3"):
        device(sparse_speedup={"2:4": 3.0})


def test_kernels_measured_with_narrow_weights_have_widening_inside() -> None:
    a100, h100 = devices()["a100_sxm_80gb"], devices()["h100_sxm"]
    assert widening_ops(a100, "bf16", "trtllm_w4a16", INT4) == 0.0
    assert widening_ops(a100, "bf16", None, INT4) == 1.0
    assert widening_ops(h100, "bf16", "trtllm_bf16", INT4) == 1.0
    assert widening_ops(a100, "fp8") == 0.5  # no fp8 units: widened to bf16
    assert widening_ops(h100, "fp8") == 0.0
    assert widening_ops(h100, "int8", None, INT4) == 1.0  # w4a8


def test_quantised_kv_is_widened_once_for_all_heads_that_share_it() -> None:
    model = tiny_model(kv_dtype="int4")
    (layers,) = attention_layers(model, tp=1, kv_dtype="int4")
    assert kv_widening_s_per_token(layers, plain_device()) == pytest.approx(2 * 2 * 128 / 5e12)
    (plain,) = attention_layers(model, tp=1, kv_dtype="bf16")
    assert kv_widening_s_per_token(plain, plain_device()) == 0.0


@pytest.mark.parametrize("scheme", ["w4a16", "w2a16", "w8a8", "fp8", "mxfp4", "w4a4"])
def test_every_device_takes_every_scheme(scheme: str) -> None:
    model = quantized(tiny_model(), ServedQuantization.model_validate(scheme))
    quantization = model.quantization_by_part["mlp"]
    for on in devices().values():
        stored = StoredWeights(quantization.weight_dtype)
        if "bf16" in on.peak_flops_per_s:
            coefficients = gemm_coefficients(on, quantization.compute_dtype, None, stored)
            assert 0.0 <= coefficients[gemm.WIDEN_S] < 1e-8


def test_borrowed_products_scale_their_activations_in_a_kernel_before() -> None:
    narrow = device(peak={"bf16": "100 TFLOP/s", "fp32": "10 TFLOP/s", "int8": "200 TOP/s"})
    coefficients = gemm_coefficients(narrow, "int8")
    # 2 bytes read and 1 written of each activation at 0.5 TB/s, one more launch of 1 us
    assert coefficients[gemm.QUANTIZE_ELEMENT_S] == pytest.approx(3.0 / 0.5e12)
    assert coefficients[gemm.LAUNCH_S] == pytest.approx(2e-6)
    assert gemm_coefficients(narrow, "bf16")[gemm.LAUNCH_S] == pytest.approx(1e-6)
    own = device(
        peak={"bf16": "100 TFLOP/s", "fp32": "10 TFLOP/s", "int8": "200 TOP/s"},
        cost_model={
            **plain_device().cost_model.model_dump(by_alias=True, mode="json"),
            "gemm": {"int8": {"compute_frac": 0.5, "memory_frac": 0.5, "launch": "1 us"}},
        },
    )
    assert gemm_coefficients(own, "int8")[gemm.QUANTIZE_ELEMENT_S] == 0.0
