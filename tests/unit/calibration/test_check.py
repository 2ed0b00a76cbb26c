"""A file beside its fit: every kind of number is compared, and what differs is told with both values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hermes_sim.calibration.check import Check, check
from hermes_sim.calibration.run import expert_residuals, residual_tables
from hermes_sim.cli import main
from hermes_sim.core.shipped import shipped_root
from hermes_sim.hardware.expert_residual import whole_thousandths
from hermes_sim.hardware.residual import ResidualTable, encode
from tests.unit.hardware.shipped import devices

RESIDUALS = shipped_root() / "hardware_profiles" / "residuals" / "l40s.yaml"


def test_the_same_numbers_are_reproduced() -> None:
    cost_model = devices()["l40s"].cost_model
    tables = residual_tables(RESIDUALS)
    found = check("l40s", cost_model, cost_model, tables, tables)
    assert list(found.lines()) == [f"l40s: reproduced ({found.num_numbers:,} numbers)"]
    assert found.num_numbers > sum(len(table.values.split()) for table in tables.values())


@pytest.mark.parametrize(("field", "key"), [("launch_s", "launch"), ("memory_frac", "memory_frac")])
def test_quantities_and_fractions_are_compared(field: str, key: str) -> None:
    """A fifth digit is no difference."""
    cost_model = devices()["l40s"].cost_model
    for factor, differ in ((1.00001, False), (1.01, True)):
        stated = cost_model.gemm["bf16"]
        fitted = stated.model_copy(update={field: factor * getattr(stated, field)})
        found = check(
            "l40s", cost_model, cost_model.model_copy(update={"gemm": {**cost_model.gemm, "bf16": fitted}})
        ).differences
        assert [line.split(":")[0] for line in found] == ([f"gemm.bf16.{key}"] if differ else [])
        if differ:
            assert f"{getattr(stated, field):.4g} in the file, {getattr(fitted, field):.4g} fitted" in found[0]


def test_residual_tables_are_compared_node_by_node() -> None:
    name, table = next(iter(residual_tables(RESIDUALS).items()))
    log_ratios, has_data = table.log_ratios.copy(), table.has_data.astype(bool)
    place = tuple(axis[0] for axis in np.nonzero(has_data & (np.abs(log_ratios) < 0.3)))
    log_ratios[place] += 0.02
    other = table.model_copy(update={"values": encode(log_ratios, has_data)})
    (line,) = check("l40s", {}, {}, {name: table}, {name: other}).differences
    assert line == f"residuals.{name}: 1 of {has_data.size:,} nodes differ, by up to 2.0%"
    (line,) = check("l40s", {}, {}, {name: table}, {}).differences
    assert line == f"residuals.{name}: a table in the file, none fitted"
    small = ResidualTable(axes={"m": (1.0, 2.0)}, values="0 0")
    (line,) = check("l40s", {}, {}, {name: small}, {name: table}).differences
    assert "other knots: 2 in the file" in line


def run(*arguments: str) -> int:
    """Exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", *arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "h100_sx"], "--device h100_sx: no shipped fit is of it; known are"),
        (["--device", "nvlnk4"], "Did you mean 'nvlink4'?"),
        (["--only", "gemms"], "Did you mean 'gemm'?"),
        (["--device", "l40s", "--measured", "no/such.csv"], "no such table"),
        (["--device", "l40", "--measured", "no/such.csv"], "--device l40: no device 'l40'"),
    ],
)
def test_wrong_names_are_told_before_the_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--check", "--device", "nvlink3", "--data", str(tmp_path)) == 2
    assert "no such table" in capsys.readouterr().err


@pytest.mark.data
def test_links_are_reproduced(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--check", "--device", "nvlink5", "--data", str(data_folder)) == 0
    assert "nvlink5: reproduced" in capsys.readouterr().out


def test_what_differs_is_told_and_ends_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drifted = Check("nvlink5", 212, ("nccl.all_reduce.large_frac: 0.9 in the file, 0.8 fitted",))
    monkeypatch.setattr("hermes_sim.calibration.links.check_link", lambda *_: drifted)
    assert run("--check", "--device", "nvlink5", "--data", str(tmp_path)) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "nvlink5: 1 of 212 numbers differ"
    assert told[1] == "  nccl.all_reduce.large_frac: 0.9 in the file, 0.8 fitted"


def test_curves_of_experts_are_compared_node_by_node() -> None:
    table = expert_residuals(RESIDUALS)["bf16"]
    curves = table.curves(is_even=False).copy()
    curves[0, 0] += 0.02
    other = table.model_copy(update={"uneven": whole_thousandths(curves)})
    assert check("l40s", {}, {}, {"experts_bf16": table}, {"experts_bf16": table}).differences == ()
    (line,) = check("l40s", {}, {}, {"experts_bf16": table}, {"experts_bf16": other}).differences
    assert line == f"residuals.experts_bf16: 1 of {2 * curves.size:,} nodes differ, by up to 2.0%"
    farther = table.model_copy(update={"reach": 3.0})
    (line,) = check("l40s", {}, {}, {"experts_bf16": table}, {"experts_bf16": farther}).differences
    assert line == "residuals.experts_bf16: other layers, knots, reach or noise"
