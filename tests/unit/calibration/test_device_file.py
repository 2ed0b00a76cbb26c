"""Writing a cost model into a device file changes that block and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hermes_sim.calibration.device_class import FITS, blend, coefficients_of, render_class, without_errors
from hermes_sim.calibration.device_file import BLOCK, read_device, render_cost_model, replace_cost_model
from hermes_sim.core.errors import ConfigError
from hermes_sim.hardware.device_class import ClassCoefficients, DeviceClass, class_coefficients
from tests.unit.hardware.shipped import files

FILES = files("devices")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_block_survives_being_written_and_read(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    device = read_device(path)
    replace_cost_model(copy, device.cost_model)
    assert read_device(copy) == device
    assert BLOCK.pattern().sub("", copy.read_text()) == BLOCK.pattern().sub("", path.read_text())


def test_seconds_are_written_in_a_fitting_unit() -> None:
    device = read_device(next(path for path in FILES if path.stem == "h100_sxm"))
    text = render_cost_model(device.cost_model)
    assert "launch: 2." in text
    assert " us" in text
    assert " ns" in text


def test_a_file_without_the_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text("name: nothing\n")
    with pytest.raises(ConfigError, match="cost_model: no such block"):
        replace_cost_model(path, read_device(FILES[0]).cost_model)


@pytest.mark.parametrize("name", FITS)
def test_class_files_hold_what_their_donors_do(name: DeviceClass) -> None:
    """Without the errors, which take measured tables: `python -m hermes_sim.calibration.device_class` writes them."""
    fit, folder = FITS[name], FILES[0].parent
    donor = read_device(folder / f"{fit.donor}.yaml")
    if fit.attention is not None:
        donor = blend(donor, read_device(folder / f"{fit.attention}.yaml"))
    written = yaml.safe_load(render_class(coefficients_of(name, fit, donor, {})))
    shipped = class_coefficients(name)
    assert without_errors(shipped.cost_model) == ClassCoefficients.model_validate(written).cost_model
    assert shipped.cost_model.source.kind == "estimate"
    assert donor.cost_model.source.kind == "fitted"
