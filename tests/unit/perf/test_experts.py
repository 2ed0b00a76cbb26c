"""Grouped products of experts against what can be followed on paper."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim.hardware.expert_efficiency import ExpertEfficiency
from hermes_sim.perf.expert_coefficients import expert_efficiency, expert_format, pack, served_entry
from hermes_sim.perf.operators.experts import expert_stream_seconds, grouped_product_seconds, passed_rows
from tests.unit.hardware.shipped import devices
from tests.unit.perf.engines import plain_device

PEAK = 100e12


def coefficients(**changes: object) -> np.ndarray:
    """100 TFLOP/s, 1 TB/s, 100 cores, all of it reached."""
    return pack(plain_device(), PEAK, ExpertEfficiency.model_validate({"compute_frac": 1, "memory_frac": 1, **changes}))


def test_few_rows_cost_the_weights_of_the_active_experts() -> None:
    weights = 4 * 4096 * 4096 * 2.0
    seconds, is_compute = grouped_product_seconds(8.0, 4.0, 4096.0, 4096.0, weights, 0.0, True, coefficients())
    assert seconds == pytest.approx(weights / 1e12)
    assert not is_compute


def test_many_rows_cost_their_arithmetic() -> None:
    seconds, is_compute = grouped_product_seconds(65536.0, 8.0, 4096.0, 4096.0, 0.0, 0.0, True, coefficients())
    assert seconds == pytest.approx(2.0 * 65536 * 4096 * 4096 / PEAK)
    assert is_compute


def test_rows_of_one_expert_fill_tiles_of_their_own() -> None:
    """17 rows an expert take two tiles of 16, as 32 rows do; by chance a little more than evenly."""
    shape = 128.0, 4096.0, 4096.0, 0.0, 0.0
    even = [grouped_product_seconds(128.0 * rows, *shape, True, coefficients())[0] for rows in (16.0, 17.0, 32.0)]
    assert even[1] == even[2] == pytest.approx(2 * even[0])
    chance_s, _ = grouped_product_seconds(128.0 * 16, *shape, False, coefficients())
    assert even[0] < chance_s < 2 * even[0]


def test_fixed_times_of_a_layer_are_shared_out_over_both_products() -> None:
    values = coefficients(launch="10 us", expert="1 us")
    seconds, _ = grouped_product_seconds(1.0, 4.0, 1.0, 1.0, 0.0, 0.0, True, values)
    assert seconds == pytest.approx(5e-6 + 2e-6, rel=1e-3)
    assert expert_stream_seconds(100.0, 0.0, coefficients(token="1 ns")) == pytest.approx(50e-9)


def test_some_kernels_pass_over_rows_of_other_devices() -> None:
    assert passed_rows(10.0, 80.0, coefficients()) == 10.0
    assert passed_rows(10.0, 80.0, coefficients(away_frac=0.5)) == 45.0


@pytest.mark.parametrize("name", ["a100_sxm_80gb", "h100_sxm", "h200_sxm", "b200_sxm", "l40s"])
def test_shipped_formats_never_get_quicker_with_rows(name: str) -> None:
    device = devices()[name]
    for form, efficiency in device.cost_model.experts.items():
        values = pack(device, device.peak_flops_per_s["bf16"], efficiency)
        times = [
            grouped_product_seconds(rows, min(rows, 64.0), 4096.0, 2048.0, 1e6 * min(rows, 64.0), rows, False, values)[
                0
            ]
            for rows in np.geomspace(1.0, 1e6, 60)
        ]
        assert (np.diff(times) >= -1e-15).all(), form


def test_format_follows_from_dtype_and_bytes() -> None:
    assert expert_format("bf16", 2.0) == "bf16"
    assert expert_format("bf16", 0.53125) == "mxfp4"
    assert expert_format("fp8", 1.0) == "fp8"
    assert expert_format("fp8", 1.0 + 4.0 / 128**2) == "fp8_block"
    assert expert_format("fp4", 0.5625) == "fp4"


def test_a_format_without_numbers_takes_the_nearest() -> None:
    h100 = devices()["h100_sxm"]
    experts = h100.cost_model.experts
    assert expert_efficiency(h100, "trtllm_bf16") is experts["trtllm_bf16"]
    assert expert_efficiency(h100, "trtllm_w4a16") is experts["trtllm_mxfp4"]
    assert expert_efficiency(plain_device(), "bf16") is None


def test_tensorrt_llm_serves_with_the_generated_kernels_of_datacenter_blackwell() -> None:
    b200, h100 = devices()["b200_sxm"], devices()["h100_sxm"]
    assert {served_entry(b200, form, "trtllm") for form in ("fp4", "fp8_block")} == {"fp4", "fp8_block"}
    assert served_entry(b200, "bf16", "trtllm") == "trtllm_bf16"
    assert served_entry(h100, "fp8_block", "trtllm") == "trtllm_fp8_block"
    assert served_entry(h100, "fp8_block", "sglang") == "fp8_block"
