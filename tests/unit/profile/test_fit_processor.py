"""The shipped coefficients of the measured processor follow from the shipped tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hermes_sim.calibration.device_file import read_device
from hermes_sim.measured import read_kernels
from hermes_sim.profile.fit_processor import fit_processor

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT / "traces" / "measured"
DEVICE = ROOT / "hardware_profiles" / "devices" / "epyc_zen4_vcpu.yaml"


def test_the_tables_are_whole_and_name_their_device() -> None:
    read = read_kernels(TABLES)
    assert read.problems == ()
    assert {device for table in read.values() for device in table["device"]} == {"epyc_zen4_vcpu"}
    products = read["gemm"][["m", "n", "k"]].itertuples(index=False, name=None)
    assert max(Counter(products).values()) == 1


def test_the_fit_is_repeated_by_anyone() -> None:
    shipped = read_device(DEVICE)
    found, errors = fit_processor(shipped, TABLES)
    gemm, kept = found.gemm["fp32"], shipped.cost_model.gemm["fp32"]
    for name in ("compute_frac", "memory_frac", "serial_frac"):
        assert getattr(gemm, name) == pytest.approx(getattr(kept, name), rel=0.01)
    for name in ("decode_memory_frac", "prefill_compute_frac", "softmax_cycles"):
        assert getattr(found.attention, name) == pytest.approx(getattr(shipped.cost_model.attention, name), rel=0.01)
    assert found.search is not None
    assert shipped.cost_model.search is not None
    for name in ("call_s", "vector_cycles", "lookup_cycles", "fast_lookup_cycles", "stream_bytes_per_s"):
        assert getattr(found.search, name) == pytest.approx(getattr(shipped.cost_model.search, name), rel=0.02)
    held = errors["gemm, 2 rows or more"][1]
    assert kept.held_out is not None
    assert held.mean_frac == pytest.approx(kept.held_out.mean_frac, rel=0.02)
    assert held.mean_frac < 0.15


def test_the_core_is_no_faster_than_its_peak_and_its_memory() -> None:
    device = read_device(DEVICE)
    products = read_kernels(TABLES)["gemm"]
    reached_flops_per_s = 2.0 * products["m"] * products["n"] * products["k"] / products["measured_s"]
    assert 0.75 < reached_flops_per_s.max() / device.peak_flops_per_s["fp32"] < 1.0
    weights_bytes_per_s = 4.0 * products["n"] * products["k"] / products["measured_s"]
    assert 0.5 < weights_bytes_per_s.max() / device.memory.bandwidth_bytes_per_s < 1.0
