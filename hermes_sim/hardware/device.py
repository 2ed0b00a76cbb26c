"""What one device can do: peaks per dtype, memory, power, price, and the coefficients of its cost model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
from hermes_sim.hardware.cost_model import CostModel
from hermes_sim.hardware.residual import Residuals

DeviceKind = Literal["gpu", "cpu", "tpu", "cim"]
DeviceClass = Literal[
    "datacenter_ampere", "datacenter_hopper", "datacenter_blackwell", "datacenter_ada",
    "consumer_ampere", "consumer_ada", "consumer_blackwell", "amd_cdna", "tpu", "cpu", "cim",
]  # fmt: skip


class Memory(Description):
    """The memory a device computes from: capacity as the driver reports it, bandwidth decimal."""

    kind: str
    """hbm2e, hbm3, gddr6, ddr5, lpddr5x, sram ..."""
    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")


class Cache(Description):
    """A last-level cache shared by the whole device."""

    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="bandwidth")


class Power(Description):
    """Board power: idle, and while a step is limited by each resource (TDP where nothing better is known)."""

    idle_w: Watts = Field(alias="idle")
    tdp_w: Watts = Field(alias="tdp")
    compute_bound_frac: Fraction = 1.0
    """Share of TDP drawn while compute limits."""
    memory_bound_frac: Fraction = 0.7
    network_bound_frac: Fraction = 0.45
    host_bound_frac: Fraction = 0.35


class Device(Description):
    """One device, its numbers and where they come from."""

    name: str
    title: str
    """As the vendor writes it."""
    aliases: tuple[str, ...] = ()
    kind: DeviceKind
    device_class: DeviceClass = Field(alias="class")
    peak_flops_per_s: dict[Dtype, FlopsPerSecond] = Field(alias="peak")
    """Dense peak per dtype."""
    memory: Memory
    cache: Cache | None = None
    num_cores: PositiveInt
    """Streaming multiprocessors, compute units or CPU cores: what waves and shares are counted in."""
    clock_hz: Hertz | None = Field(default=None, alias="clock")
    scan_rate_bytes_per_s_per_core: BytesPerSecond | None = Field(default=None, alias="scan_rate_per_core")
    """CPU: product-quantised codes one core scans per second."""
    power: Power
    price_usd_per_h: UsdPerHour = Field(alias="price")
    """Rent of one device."""
    cost_model: CostModel
    residuals: Residuals | None = None
    """Corrections of the cost model, measured on this device: a file, named relative to this one."""
    sources: dict[str, Source]
    """Key path (or its prefix) -> source; every number of the file is covered."""
