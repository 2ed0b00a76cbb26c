"""What one device can do: peaks per dtype, memory, power, price, and the coefficients of its cost model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, field_validator, model_validator

from hermes_sim.core.schema import (
    Bytes,
    BytesPerSecond,
    Description,
    Dtype,
    FlopsPerSecond,
    Fraction,
    Hertz,
    PositiveInt,
    Source,
    UsdPerHour,
    Watts,
)
from hermes_sim.core.sparsity_pattern import kept_frac
from hermes_sim.core.units import format_quantity
from hermes_sim.hardware.cim_array import CimArray
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.device_class import DeviceClass, class_coefficients, class_cost_model
from hermes_sim.hardware.gemm_efficiency import GemmEfficiency
from hermes_sim.hardware.ownership import Ownership
from hermes_sim.hardware.processor import Processor
from hermes_sim.hardware.residual import Residuals
from hermes_sim.hardware.systolic import Systolic

DeviceKind = Literal["gpu", "cpu", "tpu", "npu", "fpga", "cim", "pim"]
PEAK_TOLERANCE: Final = 0.01
"""Between a stated peak and that which follows from an array, for rounding."""
BY_CLASS: Final = "class"
"""In place of a cost model: the coefficients of the device's class."""


class Memory(Description):
    """The memory a device computes from: capacity as the driver reports it, bandwidth decimal."""

    kind: str
    """hbm2e, hbm3, gddr6, ddr5, lpddr5x, sram ..."""
    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    internal_bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="internal_bandwidth")
    """What units beside the banks read together, where there are any: vector searches scan at this rate."""


class Cache(Description):
    """A last-level cache shared by the whole device."""

    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="bandwidth")


class Power(Description):
    """Board power: idle, and while a step is limited by each resource.

    The defaults are those of the A100, whose mean power while it serves was measured (calibration/power.py).
    """

    idle_w: Watts = Field(alias="idle")
    tdp_w: Watts = Field(alias="tdp")
    compute_bound_frac: Fraction = 1.0
    """Share of TDP drawn while compute limits."""
    memory_bound_frac: Fraction = 0.8
    network_bound_frac: Fraction = 0.3
    host_bound_frac: Fraction = 0.18
    clock_exponent: float = Field(default=3.0, ge=1.0, le=3.0)
    """Under a power cap, power above idle goes with the clock to this power: 3 while the voltage follows the clock."""
    lowest_clock_frac: Fraction = 0.2
    """Lowest clock that a cap can ask for, over the full one (H100 SXM: 345 of 1980 MHz by nvidia-smi)."""


class Companion(Description):
    """Units beside the arrays of a compute-in-memory device: attention, norms, softmax, all that has no weights."""

    peak_flops_per_s: dict[Dtype, FlopsPerSecond] = Field(alias="peak", min_length=1)
    """Dense peak per dtype; its memory is the device's."""


def _cost_model_may_be_left_out(schema: dict[str, Any]) -> None:
    schema["required"].remove("cost_model")
    stated = schema["properties"]["cost_model"]
    schema["properties"]["cost_model"] = {"anyOf": [stated, {"const": BY_CLASS}]}


class Device(Description):
    """One device, its numbers and where they come from."""

    model_config = ConfigDict(json_schema_extra=_cost_model_may_be_left_out)

    name: str
    title: str
    """As the vendor writes it."""
    aliases: tuple[str, ...] = ()
    kind: DeviceKind
    device_class: DeviceClass = Field(alias="class")
    peak_flops_per_s: dict[Dtype, FlopsPerSecond] = Field(alias="peak", min_length=1)
    """Dense peak per dtype."""
    vector_flops_per_s: FlopsPerSecond | None = Field(default=None, alias="vector_peak")
    """Of the units that widen narrow weights, 2 a lane and cycle; the fp32 peak if not given, else a 16th of the
    widest."""
    lut_flops_per_s: dict[Dtype, FlopsPerSecond] = Field(default={}, alias="lut_peak")
    """Products with weights of these dtypes and wider activations by table look-up, without widening: dense FLOPs of
    the whole device (T-MAC, arXiv 2407.00088: as many look-ups as bits; LUT Tensor Core, arXiv 2408.06003)."""
    sparse_speedup: dict[str, float] = Field(default={})
    """Pattern N:M of sparse weights that the matrix units skip -> dense peak times this."""
    processor: Processor | None = None
    """CPUs: NUMA nodes, bandwidth of a core, clocks; for engines on some of the cores."""
    systolic: Systolic | None = None
    """Arrays whose use follows from the shape of a product, in place of efficiencies of tiles."""
    memory: Memory
    cache: Cache | None = None
    num_cores: PositiveInt
    """Streaming multiprocessors, compute units or CPU cores: what waves and shares are counted in."""
    clock_hz: Hertz | None = Field(default=None, alias="clock")
    scan_rate_bytes_per_s_per_core: BytesPerSecond | None = Field(default=None, alias="scan_rate_per_core")
    """CPU: product-quantised codes of 4 bits that one core scans per second, in registers."""
    array: CimArray | None = None
    """Compute-in-memory: the macros or tiles that hold and multiply weights; `peak` is theirs."""
    companion: Companion | None = None
    """Compute-in-memory: what else computes on the device; without it, other devices do what has no weights."""
    power: Power
    price_usd_per_h: UsdPerHour | None = Field(default=None, alias="price")
    """Rent of one device, electricity included; this or `ownership`."""
    ownership: Ownership | None = None
    """Bought instead: capital written off over a lifetime; electricity is paid for at the cluster's price."""
    cost_model: CostModel
    """Left out, or `class`: the coefficients of the device's class, scaled by this data sheet, as an estimate."""
    residuals: Residuals | None = None
    """Corrections of the cost model, measured on this device: a file, named relative to this one."""
    sources: dict[str, Source]
    """Key path (or its prefix) -> source; every number of the file is covered."""

    @model_validator(mode="after")
    def _peak_is_that_of_the_array(self) -> Device:
        if self.array is None:
            if self.companion is not None:
                raise ValueError("a companion stands beside an array, and there is none")
            return self
        for dtype, stated in self.peak_flops_per_s.items():
            try:
                peak = self.array.peak_flops_per_s(dtype)
            except KeyError:
                raise ValueError(f"peak states {dtype}, which the array does not multiply") from None
            if abs(stated / peak - 1.0) > PEAK_TOLERANCE:
                reached = format_quantity(peak, "compute")
                raise ValueError(f"peak {dtype} is {format_quantity(stated, 'compute')}, the array makes {reached}")
        return self

    @model_validator(mode="after")
    def _rented_or_owned(self) -> Device:
        if (self.price_usd_per_h is None) == (self.ownership is None):
            raise ValueError("needs either a price (rent) or an ownership (capital and lifetime)")
        return self

    @property
    def usd_per_h(self) -> float:
        """Rent, or capital written off, of every hour."""
        if self.ownership is not None:
            return self.ownership.usd_per_h
        assert self.price_usd_per_h is not None
        return self.price_usd_per_h

    @field_validator("sparse_speedup")
    @classmethod
    def _no_faster_than_the_zeros_allow(cls, speedups: dict[str, float]) -> dict[str, float]:
        for pattern, speedup in speedups.items():
            most = 1.0 / kept_frac(pattern)
            if not 1.0 <= speedup <= most:
                raise ValueError(f"{pattern} leaves out zeros for a speed-up of 1 to {most:g}, got {speedup:g}")
        return speedups

    @model_validator(mode="wrap")
    @classmethod
    def _coefficients_of_the_class(cls, data: Any, handler: ModelWrapValidatorHandler[Device]) -> Device:
        if not isinstance(data, Mapping) or data.get("cost_model", BY_CLASS) != BY_CLASS:
            return handler(data)
        device = handler({**data, "cost_model": _UNKNOWN})
        return device.model_copy(update={"cost_model": cost_model_by_class(device)})


def at_the_banks(device: Device) -> Device:
    """Processing in memory as its own units see it: the bandwidth inside the memory; any other device as it is."""
    inside = device.memory.internal_bandwidth_bytes_per_s
    if device.kind != "pim" or inside is None:
        return device
    memory = device.memory.model_copy(update={"bandwidth_bytes_per_s": inside})
    return device.model_copy(update={"memory": memory})


def beside_the_array(device: Device) -> Device:
    """The companion of an array, as a device of its own; a device without an array as it is."""
    if device.companion is None:
        return device
    return device.model_copy(update={"peak_flops_per_s": device.companion.peak_flops_per_s, "array": None})


def cost_model_by_class(device: Device) -> CostModel:
    """The coefficients of the device's class, scaled by its data sheet: an estimate."""
    return class_cost_model(
        class_coefficients(device.device_class),
        tuple(device.peak_flops_per_s),
        device.num_cores,
        device.clock_hz,
        device.memory.bandwidth_bytes_per_s,
    )


_UNKNOWN: Final = CostModel(
    gemm={"fp32": GemmEfficiency(compute_frac=1.0, memory_frac=1.0, launch=0)},
    attention_prefill_compute_frac=1.0,
    attention_decode_memory_frac=1.0,
    elementwise_memory_frac=1.0,
    kernel_launch=0,
    source=Source(title="none", where="stands in until the class is known", kind="estimate"),
)
