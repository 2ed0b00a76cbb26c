"""The shipped hardware library, read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.device_class import ClassCoefficients
from hermes_sim.hardware.link import Link
from hermes_sim.scenario.yaml_reader import read_yaml

PROFILES = Path(__file__).resolve().parents[3] / "hardware_profiles"


def files(folder: str) -> list[Path]:
    return sorted((PROFILES / folder).glob("*.yaml"))


@cache
def devices() -> dict[str, Device]:
    return {path.stem: Device.model_validate(read_yaml(path).data) for path in files("devices")}


@cache
def classes() -> dict[str, ClassCoefficients]:
    return {path.stem: ClassCoefficients.model_validate(read_yaml(path).data) for path in files("classes")}


@cache
def links() -> dict[str, Link]:
    return {path.stem: Link.model_validate(read_yaml(path).data) for path in files("links")}
