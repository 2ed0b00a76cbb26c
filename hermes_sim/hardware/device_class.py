"""Coefficients by class of device: what a chip that nobody has measured gets from its data sheet alone.

A class file (`hardware_profiles/classes/`) holds the cost model of a measured device, the few numbers of its data sheet
that the coefficients are relative to, and the error of these coefficients on devices they were not fitted to.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import Field

from hermes_sim.core.schema import BytesPerSecond, Description, Dtype, Hertz, PositiveInt, Source
from hermes_sim.core.shipped import shipped_root
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency

DeviceClass = Literal[
    "datacenter_ampere", "datacenter_hopper", "datacenter_blackwell", "datacenter_ada", "volta", "turing",
    "consumer_ampere", "consumer_ada", "consumer_blackwell", "edge_ampere", "maxwell",
    "amd_cdna", "intel_gpu", "apple_gpu", "gaudi", "trainium", "tpu", "npu", "cpu", "cim", "pim",
]  # fmt: skip

FOLDER: Final = Path("hardware_profiles") / "classes"

_SIXTEEN_BITS: Final[tuple[Dtype, ...]] = ("bf16", "fp16")

Law = Literal["clock", "cores", "bandwidth"]
SCALED: Final[dict[str, Law]] = {
    "depth_s": "clock",
    "quantize_row_s": "cores",
    "quantize_element_s": "bandwidth",
    "token_s": "cores",
    "decode_combine_log_s": "clock",
}
"""Times of a cost model that follow the data sheet. clock: a chain of cycles in one core; cores: work of the whole
device, by cores x clock; bandwidth: bytes of the whole device. Every other time (launches, synchronisation) is taken
over as it is, and so are shares of peak and bandwidth, and cycles."""
SCALED_OF_PRODUCTS: Final[dict[str, Law]] = SCALED | {"launch_s": "clock", "ramp_s": "clock"}
"""Of products too: starting an empty captured kernel, and filling its pipeline from memory, are chains of cycles."""


class Reference(Description):
    """The device whose kernels were fitted, as far as its coefficients depend on its data sheet."""

    device: str
    num_cores: PositiveInt
    clock_hz: Hertz | None = Field(default=None, alias="clock")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")


class ClassCoefficients(Description):
    """Cost model of a class of devices; its `held_out` errors are those on devices that were not fitted."""

    name: DeviceClass
    title: str
    reference: Reference | None = None
    """None: nothing of the class was measured, the coefficients are judged and taken over as they are."""
    cost_model: CostModel

    def scales(self, num_cores: int, clock_hz: float | None, bandwidth_bytes_per_s: float) -> dict[Law, float]:
        """Factor of each law's times on a device with this data sheet. A clock that is not stated counts as equal."""
        if self.reference is None:
            return {"clock": 1.0, "cores": 1.0, "bandwidth": 1.0}
        clock = self.reference.clock_hz / clock_hz if self.reference.clock_hz and clock_hz else 1.0
        return {
            "clock": clock,
            "cores": clock * self.reference.num_cores / num_cores,
            "bandwidth": self.reference.bandwidth_bytes_per_s / bandwidth_bytes_per_s,
        }


def class_coefficients(name: DeviceClass) -> ClassCoefficients:
    """The shipped coefficients of a class."""
    return _read(shipped_root() / FOLDER / f"{name}.yaml")


def class_cost_model(
    coefficients: ClassCoefficients,
    dtypes: tuple[Dtype, ...],
    num_cores: int,
    clock_hz: float | None,
    bandwidth_bytes_per_s: float,
) -> CostModel:
    """Cost model of an unmeasured device that multiplies in `dtypes`: an estimate, whatever the class was fitted on."""
    scales = coefficients.scales(num_cores, clock_hz, bandwidth_bytes_per_s)
    cost_model = coefficients.cost_model
    gemm = {dtype: _scaled(entry, scales) for dtype, entry in cost_model.gemm.items() if dtype in dtypes}
    if not gemm:  # an older chip without any of the class's types: its own 16-bit or widest type behaves like the first
        own = next((dtype for dtype in _SIXTEEN_BITS if dtype in dtypes), dtypes[0])
        gemm = {own: _scaled(next(iter(cost_model.gemm.values())), scales)}
    reference = coefficients.reference
    behind = f"fitted on {reference.device}, scaled by the data sheet" if reference else "assumed for the whole class"
    source = Source(
        title=f"Coefficients of the class {coefficients.name}",
        where=f"not measured on this device; {behind}; {cost_model.source.where}",
        kind="estimate",
    )
    parts = {
        name: _scaled(getattr(cost_model, name), scales)
        for name in CostModel.model_fields
        if isinstance(getattr(cost_model, name), Description | dict) and name not in ("gemm", "source")
    }
    return cost_model.model_copy(update={**parts, "gemm": gemm, "source": source})


def _scaled(part: Any, scales: dict[Law, float]) -> Any:
    """A part of a cost model, or a table of such parts, on the device with these factors."""
    if isinstance(part, dict):
        return {key: _scaled(entry, scales) for key, entry in part.items()}
    scaled = SCALED_OF_PRODUCTS if isinstance(part, GemmEfficiency) else SCALED
    laws = {name: law for name, law in scaled.items() if name in type(part).model_fields}
    return part.model_copy(update={name: _rounded(getattr(part, name) * scales[law]) for name, law in laws.items()})


def _rounded(value: float) -> float:
    """Four digits, as files hold fitted numbers."""
    return float(f"{value:.4g}")


@cache
def _read(path: Path) -> ClassCoefficients:
    return ClassCoefficients.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
