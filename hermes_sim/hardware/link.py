"""What one link can carry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import BytesPerSecond, Description, Fraction, Joules, Seconds, Source
from hermes_sim.hardware.collective_efficiency import CollectiveEfficiency, CollectiveKind, KernelLibrary

LinkKind = Literal[
    "pcie", "nvlink", "c2c", "xgmi", "upi", "ici", "infiniband", "ethernet", "memory", "cxl", "nvme", "wireless",
    "ualink", "object_store",
]  # fmt: skip


ENERGY_PER_BIT_J: dict[LinkKind, float] = {
    "c2c": 1.3e-12, "memory": 4e-12, "nvlink": 8e-12, "xgmi": 8e-12, "ici": 10e-12, "upi": 12e-12,
    "pcie": 32e-12, "cxl": 32e-12, "nvme": 32e-12, "infiniband": 50e-12, "ethernet": 60e-12, "wireless": 300e-9,
    "ualink": 10e-12, "object_store": 120e-12,
}  # fmt: skip
"""Where a profile states none, both ends and switches together: estimates, good to a factor of two. NVLink-C2C 1.3
pJ/bit, 25 times less than PCIe 5 (NVIDIA, "NVLink-C2C"); HBM about 4 pJ/bit (O'Connor et al., MICRO 2017); networks: a
400 Gbit/s transceiver of 10 W at each end (25 pJ/bit each); wireless: what sending costs a handset, 283 nJ/bit over
Wi-Fi and 438 over LTE (Huang et al., MobiSys 2012, table 4)."""


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
    energy_per_bit_j: Joules | None = Field(default=None, alias="energy_per_bit")
    """Of moving a bit from end to end; that of the kind if not given."""
    switched: bool = False
    """All ports talk at full rate at once (NVSwitch, a network switch); otherwise one link per pair of devices."""
    collectives: dict[KernelLibrary, dict[CollectiveKind, CollectiveEfficiency]] = Field(default={})
    """Inside a node, by library; what is not given follows from `bandwidth`, `efficiency_frac` and the latency."""
    sources: dict[str, Source]
    """Key path (or its prefix) -> source; every number of the file is covered."""

    @property
    def energy_per_byte_j(self) -> float:
        """Of moving a byte from end to end."""
        return 8.0 * (ENERGY_PER_BIT_J[self.kind] if self.energy_per_bit_j is None else self.energy_per_bit_j)
