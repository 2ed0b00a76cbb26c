"""Benchmarks of layers of experts: the cache that a repeated layer warms, and the kernels that tables name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.expert_tables import ALWAYS_GATED, FEWEST_ROWS, kernel_suffix, tables_by_kernel
from hermes_sim.calibration.experts import WEIGHT_BYTES, expert_shapes, predict_benchmark
from hermes_sim.hardware.expert_efficiency import ExpertEfficiency
from hermes_sim.perf.expert_coefficients import plain_format
from tests.unit.hardware.shipped import devices

MEMORY_BOUND = ExpertEfficiency(compute_frac=1.0, memory_frac=1.0)


def layers(**columns: object) -> pd.DataFrame:
    """One token that goes to two experts of 8192 x 8192 x 3 weights each."""
    row = {
        "num_tokens": 1, "hidden": 8192, "width": 8192, "num_experts": 8, "num_experts_per_token": 2, "moe_tp": 1,
        "moe_ep": 1, "distribution": "balanced", "kernel": "one", "dtype": "bf16",
    }  # fmt: skip
    return pd.DataFrame([{**row, **columns}])


def test_half_of_the_weights_stay_at_the_warm_size() -> None:
    """Against the same layer from memory, weights of that size take half the time if the cache costs none."""
    device, table = devices()["h100_sxm"], layers()
    weights = 2 * 8192 * 8192 * 3 * WEIGHT_BYTES["bf16"]
    cold_s = predict_benchmark(device, "bf16", MEMORY_BOUND, expert_shapes(table))[0]
    for size, cost, kept in ((weights, 0.0, 0.5), (weights, 0.5, 0.25), (100 * weights, 0.5, 0.5), (1.0, 0.0, 0.0)):
        warm = MEMORY_BOUND.model_copy(update={"benchmark_warm_bytes": size, "benchmark_warm_cost": cost})
        seconds = predict_benchmark(device, "bf16", warm, expert_shapes(table))[0]
        spared_s = kept * weights / device.memory.bandwidth_bytes_per_s
        assert cold_s - seconds == pytest.approx(spared_s, rel=1e-3, abs=1e-12)


def test_experts_with_one_input_matrix_have_two_thirds_of_the_weights() -> None:
    """Not in the kernel that was measured with two for every model."""
    nemotron = {"width": 1856, "num_experts": 128, "num_experts_per_token": 6}
    assert expert_shapes(layers(**nemotron))[0, 4] == 1.0
    assert expert_shapes(layers(**nemotron, kernel=ALWAYS_GATED))[0, 4] == 2.0
    assert expert_shapes(layers())[0, 4] == 2.0


def test_kernels_of_one_format_are_told_apart() -> None:
    """The main kernel is the one with most rows, whatever its name; others need enough of them and a known name."""
    sizes = {"a_triton": 900, "b_cutlass": FEWEST_ROWS, "c_marlin": FEWEST_ROWS - 1, "d_unknown": FEWEST_ROWS}
    table = pd.DataFrame({"kernel": np.repeat(list(sizes), list(sizes.values()))})
    assert {suffix: len(rows) for suffix, rows in tables_by_kernel(table).items()} == {"": 900, "_cutlass": FEWEST_ROWS}
    assert kernel_suffix("flashinfer_cutlass_experts_min_latency") == "_min_latency"
    assert kernel_suffix("deepgemm") == ""


def test_format_of_an_entry_is_its_longest_known_part() -> None:
    assert plain_format("trtllm_fp8_block") == plain_format("fp8_block_triton") == "fp8_block"
    assert plain_format("fp8_cutlass") == "fp8"
    assert plain_format("trtllm_fp4_min_latency") == "fp4"
    assert plain_format("int2") == "int2"
