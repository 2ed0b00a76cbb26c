"""Kernels priced from a table, and a device fitted to one, as a notebook does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hermes_sim import ConfigError, HermesError, calibrate, device, kernel_times
from hermes_sim.calibration.gemm import predict_gemm

PRODUCTS = pd.DataFrame({"operator": "gemm", "m": [1, 4096, 64, 1], "n": 4096, "k": [4096, 4096, 8192, 4096]})


def test_products_take_what_the_cost_model_says() -> None:
    chip = device("h100_sxm")
    for timing, benchmark in (("graph", True), ("", False)):
        expected_s = predict_gemm(chip, "bf16", PRODUCTS, benchmark=benchmark)
        found_s = kernel_times("h100_sxm", PRODUCTS.assign(timing=timing).set_axis([9, 3, 5, 7]))
        assert found_s.index.tolist() == [9, 3, 5, 7]
        assert found_s.to_numpy() == pytest.approx(expected_s)


def test_kernels_of_several_kinds_in_one_table() -> None:
    """Cells of the other operators' columns are empty; a device named in the table is not asked."""
    decode = {"operator": "attention_decode", "num_seqs": 8, "context_tokens": 2000.0}
    heads = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128}
    mixed = pd.concat([PRODUCTS.iloc[:2], pd.DataFrame([decode | heads])], ignore_index=True)
    found_s = kernel_times("a100", mixed.assign(device="somebody's"))
    assert found_s[:2].to_numpy() == pytest.approx(kernel_times("a100", PRODUCTS.iloc[:2]).to_numpy())
    kv_bytes = 8 * 2000 * 2 * 8 * 128 * 2
    assert found_s[2] > kv_bytes / device("a100").memory.bandwidth_bytes_per_s


def test_rows_that_are_none() -> None:
    with pytest.raises(ConfigError, match="row 1 m: needs a whole number"):
        kernel_times("h100_sxm", PRODUCTS.assign(m=[1, -1, 1, 1]))
    with pytest.raises(ConfigError, match="operator"):
        kernel_times("h100_sxm", PRODUCTS.drop(columns="operator"))
    with pytest.raises(HermesError, match="gemm on a100_sxm_80gb: no model of a product in mxfp4"):
        kernel_times("a100", PRODUCTS.assign(dtype="mxfp4"))


def test_a_table_and_its_file_calibrate_alike(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    shapes = pd.DataFrame({name: 2 ** random.integers(5, 14, 10) for name in ("m", "n", "k")})
    slow = device("h100_sxm", {"residuals": None}, name="slow")
    rows = shapes.assign(operator="gemm", device="slow", timing="graph")
    rows["measured_s"] = 1.5 * kernel_times(slow, rows)
    found = calibrate(slow, rows)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    assert calibrate(slow, tmp_path / "rows.csv").device.cost_model.gemm == found.device.cost_model.gemm
    errors = found.errors.loc["gemm bf16"]
    assert errors.index.tolist() == ["before", "left out", "fitted"]
    assert errors.loc["left out", "mean_frac"] < 0.5 * errors.loc["before", "mean_frac"]
    assert kernel_times(found.device, rows).to_numpy() == pytest.approx(rows["measured_s"].to_numpy(), rel=0.3)
    assert found.plot().axes[0].get_title() == "gemm bf16"
    with pytest.raises(HermesError, match="no row is of device 'h100_sxm'; the tables are of slow"):
        calibrate("h100_sxm", rows)
