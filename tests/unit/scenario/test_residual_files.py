"""Residual tables reach the device from a file of their own, and through it the price of a product."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hermes_sim.calibration.residual import render_residuals
from hermes_sim.core.errors import ConfigError
from hermes_sim.core.schema import Source
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import Residuals, ResidualTable
from hermes_sim.perf.coefficients import gemm_coefficients, gemm_table
from hermes_sim.perf.operators.gemm import corrected_gemm_seconds, gemm_seconds
from hermes_sim.scenario.files import read_description
from hermes_sim.scenario.library import find

TABLE = ResidualTable(axes={"m": (1, 1024), "n": (64, 65536), "k": (64, 65536)}, values=" ".join(["200"] * 8))
TABLES = Residuals(
    device="h100_sxm",
    tables={"gemm_bf16": TABLE},
    source=Source(title="test", where="a table of the test", kind="fitted"),
)


def write_device(folder: Path, residuals: str) -> Path:
    text = find("device", "h100_sxm").read_text(encoding="utf-8")
    path = folder / "own.yaml"
    path.write_text(f"{text}residuals: {residuals}\n", encoding="utf-8")
    return path


def test_a_named_file_is_read_and_survives_a_round_trip(tmp_path: Path) -> None:
    (tmp_path / "tables.yaml").write_text(render_residuals(TABLES), encoding="utf-8")
    device = read_description(Device, write_device(tmp_path, "tables.yaml"))
    assert device.residuals == TABLES
    assert Device.model_validate(device.model_dump(mode="json", by_alias=True)).residuals == TABLES


def test_the_table_corrects_products_of_its_dtype(tmp_path: Path) -> None:
    (tmp_path / "tables.yaml").write_text(render_residuals(TABLES), encoding="utf-8")
    device = read_description(Device, write_device(tmp_path, "tables.yaml"))
    bf16, fp8 = gemm_table(device, [("bf16", None), ("fp8", None)])
    shape = (64.0, 4096.0, 4096.0)
    moved = (2.0 * 4096**2, 4.0 * 64 * 4096)
    for row, dtype, factor in ((bf16, "bf16", math.exp(0.2)), (fp8, "fp8", 1.0)):
        analytic_s = gemm_seconds(*shape, 1.0, *moved, gemm_coefficients(device, dtype))[0]  # type: ignore[arg-type]
        assert corrected_gemm_seconds(*shape, *moved, row)[0] == pytest.approx(factor * analytic_s)
    far = (1e6, 4096.0, 4096.0)
    moved = (2.0 * 4096**2, 4.0 * 1e6 * 4096)
    assert corrected_gemm_seconds(*far, *moved, bf16) == gemm_seconds(*far, 1.0, *moved, bf16)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file 'nowhere\.yaml'"):
        read_description(Device, write_device(tmp_path, "nowhere.yaml"))


def test_a_wrong_table_is_blamed_on_its_file(tmp_path: Path) -> None:
    broken = render_residuals(TABLES).replace('values: "200', 'values: "wide')
    (tmp_path / "tables.yaml").write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tables\.yaml") as caught:
        read_description(Device, write_device(tmp_path, "tables.yaml"))
    assert "whole thousandths" in str(caught.value)


def test_none_leaves_a_shipped_device_without(tmp_path: Path) -> None:
    assert read_description(Device, write_device(tmp_path, "null")).residuals is None
