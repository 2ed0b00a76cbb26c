"""What one link can carry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import BytesPerSecond, Description, Fraction, Seconds, Source
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary

LinkKind = Literal["pcie", "nvlink", "c2c", "xgmi", "upi", "ici", "infiniband", "ethernet", "memory", "cxl", "nvme"]


class Link(Description):
    """A link profile. Bandwidth is per direction and per device port."""

    name: str
    title: str
    """As the vendor or the standard writes it."""
    aliases: tuple[str, ...] = ()
    kind: LinkKind
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    latency_s: Seconds = Field(alias="latency")
    """One message of zero bytes from end to end, software included."""
    collective_latency_s: Seconds | None = Field(default=None, alias="collective_latency")
    """All-reduce of a few bytes by kernels inside a captured graph; `latency` if not given."""
    efficiency_frac: Fraction = Field(default=1.0, gt=0.0)
    """Share of the bandwidth a large message reaches."""
    switched: bool = False
    """All ports talk at full rate at once (NVSwitch, a network switch); otherwise one link per pair of devices."""
    collectives: dict[KernelLibrary, dict[CollectiveKind, CollectiveEfficiency]] = Field(default={})
    """Inside a node, by library; what is not given follows from `bandwidth`, `efficiency_frac` and the latency."""
    sources: dict[str, Source]
    """Key path (or its prefix) -> source; every number of the file is covered."""
