"""Devices without a cost model of their own: what their class gives them, and what stays true of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from hermes_sim.core.schema import Description, Dtype
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import FOLDER, DeviceClass, class_coefficients
from hermes_sim.hardware.fit_error import FitError
from hermes_sim.perf.coefficients import gemm_coefficients
from hermes_sim.perf.operators.gemm import gemm_seconds
from hermes_sim.scenario.check import check_file
from hermes_sim.scenario.yaml_reader import read_yaml
from tests.unit.hardware.shipped import PROFILES, devices, files

CLASSES: tuple[DeviceClass, ...] = get_args(DeviceClass)
SHAPES = [(m, n, k) for m in (1, 16, 300, 4096) for n, k in ((1024, 8192), (8192, 8192), (28672, 8192))]


def chip(**changes: Any) -> Device:
    data = {
        "name": "my_chip",
        "title": "A chip on paper",
        "kind": "gpu",
        "class": "datacenter_hopper",
        "peak": {"bf16": "1 PFLOP/s", "fp8": "2 PFLOP/s"},
        "memory": {"kind": "hbm4", "capacity": "128 GiB", "bandwidth": "6 TB/s"},
        "num_cores": 128,
        "clock": "2 GHz",
        "power": {"idle": "100 W", "tdp": "900 W"},
        "price": "3 USD/h",
        "sources": {"*": {"title": "Design document", "where": "table 1", "kind": "estimate"}},
    }
    return Device.model_validate({**data, **changes})


def gemm_s(device: Device, dtype: Dtype, shape: tuple[int, int, int]) -> float:
    m, n, k = map(float, shape)
    width = 2.0 if dtype == "bf16" else 1.0
    coefficients = gemm_coefficients(device, dtype)
    return gemm_seconds(m, n, k, 1.0, width * n * k, 2.0 * m * (n + k), coefficients)[0]


def test_every_class_has_a_file() -> None:
    assert [path.stem for path in files("classes")] == sorted(CLASSES)
    assert (PROFILES / "classes").relative_to(PROFILES.parent) == FOLDER
    assert all(class_coefficients(name).name == name for name in CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_chip_of_any_class_runs_from_its_data_sheet(name: DeviceClass) -> None:
    device = chip(**{"class": name})
    assert device.cost_model.source.kind == "estimate"
    assert set(device.cost_model.gemm) <= set(device.peak_flops_per_s)
    for shape in SHAPES:
        roofline_s = max(2.0 * shape[0] * shape[1] * shape[2] / 1e15, 2.0 * shape[1] * shape[2] / 6e12)
        assert roofline_s < gemm_s(device, "bf16", shape) < 4.0 * roofline_s + 100e-6


@pytest.mark.parametrize("name", CLASSES)
def test_the_expected_range_of_error_is_stated(name: DeviceClass) -> None:
    """Of products and attention: nine kernels in ten between predicted x low and predicted x high."""
    stated = [error for error in fit_errors(class_coefficients(name).cost_model) if error.low_frac is not None]
    assert len(stated) >= 3
    for error in stated:
        assert error.low_frac is not None
        assert error.high_frac is not None
        assert 0.1 < error.low_frac <= 1.0 <= error.high_frac < 5.0


def fit_errors(part: Any) -> list[FitError]:
    if isinstance(part, FitError):
        return [part]
    entries = part.values() if isinstance(part, dict) else []
    if isinstance(part, Description):
        entries = [getattr(part, field) for field in type(part).model_fields]
    return [error for entry in entries for error in fit_errors(entry)]


def test_left_out_and_said_are_the_same() -> None:
    assert chip(cost_model="class") == chip()


def test_a_cost_model_of_its_own_is_kept() -> None:
    own = devices()["mi300x"].cost_model
    assert chip(cost_model=own.model_dump(by_alias=True)).cost_model == own


@pytest.mark.parametrize(
    "better",
    [
        {"peak": {"bf16": "2 PFLOP/s", "fp8": "4 PFLOP/s"}},
        {"memory": {"kind": "hbm4", "capacity": "128 GiB", "bandwidth": "12 TB/s"}},
    ],
)
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_a_better_data_sheet_is_never_slower(better: dict[str, Any], dtype: Dtype) -> None:
    plain, fast = chip(), chip(**better)
    for shape in SHAPES:
        assert gemm_s(fast, dtype, shape) <= gemm_s(plain, dtype, shape)


def test_the_reference_itself_gets_what_was_fitted_on_it() -> None:
    """Apart from its errors and its source: scaled by its own data sheet nothing changes."""
    for name in CLASSES:
        reference = class_coefficients(name).reference
        if reference is None:
            continue
        fitted = devices()[reference.device]
        by_class = Device.model_validate({**fitted.model_dump(by_alias=True), "class": name, "cost_model": "class"})
        for dtype in by_class.cost_model.gemm:
            for shape in SHAPES:
                assert gemm_s(by_class, dtype, shape) == pytest.approx(
                    gemm_s(devices()[reference.device], dtype, shape), rel=1e-3
                ), (name, dtype)


def test_an_old_chip_uses_its_own_sixteen_bits() -> None:
    assert list(devices()["v100_sxm_32gb"].cost_model.gemm) == ["fp16"]
    assert gemm_s(devices()["v100_sxm_32gb"], "bf16", (4096, 8192, 8192)) > 2 * 4096 * 8192 * 8192 / 125e12


def test_an_unknown_class_is_one_error_that_names_the_classes() -> None:
    with pytest.raises(ValidationError) as caught:
        chip(**{"class": "datacenter_hoper"})
    assert [error["loc"] for error in caught.value.errors()] == [("class",)]


def test_an_unknown_class_in_a_file_is_told_with_the_near_match(tmp_path: Path) -> None:
    text = (PROFILES / "devices" / "l4.yaml").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("class: datacenter_ada", "class: datacentre_ada"), encoding="utf-8")
    problems = [str(problem) for problem in check_file(file)]
    assert len(problems) == 1
    assert "'datacentre_ada' is not allowed" in problems[0]
    assert problems[0].endswith("Did you mean 'datacenter_ada'?")


def test_a_device_by_class_survives_a_round_trip() -> None:
    device = devices()["gb300"]
    assert isinstance(device.cost_model, CostModel)
    again = Device.model_validate(device.model_dump(mode="json", by_alias=True))
    assert again.cost_model == device.cost_model
    assert read_yaml(PROFILES / "devices" / "gb300.yaml").data["cost_model"] == "class"
