"""CPUs as compute devices: what some of the cores of a socket reach, and where their memory lies.

Sources: McCalpin, "Memory bandwidth and machine balance", 1995 (bandwidth of few cores is their own, of many the
socket's); AMD and Intel on NUMA nodes per socket (NPS, sub-NUMA clustering); Intel, Xeon Scalable turbo frequencies by
instruction set (licences). The cubic law of clock and power: Kim et al., "Leakage current: Moore's law meets static
power", IEEE Computer 36(12), 2003, equations 1 and 2 with voltage in proportion to frequency.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import BytesPerSecond, Description, Dtype, Hertz, PositiveInt

if TYPE_CHECKING:
    from hermes_sim.hardware.device import Device

NumaPolicy = Literal["interleave", "bind"]


class Processor(Description):
    """A socket: its cores, its NUMA nodes and its clocks."""

    numa_nodes: PositiveInt = 1
    """Of the socket (NPS, SNC), each with an equal part of cores and memory channels."""
    core_bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="core_bandwidth")
    """What one core draws from memory; the cores together no more than the memory gives. Not limited if not given."""
    remote_bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="remote_bandwidth")
    """What the cores of one NUMA node draw from memory of the socket's other nodes; like their own if not given."""
    boost_clock_hz: Hertz | None = Field(default=None, alias="boost_clock")
    """Highest clock of a few busy cores; the device's clock, at which its peaks are stated, is that of all cores."""
    licence_clock_hz: dict[Dtype, Hertz] = Field(default={}, alias="licence_clock")
    """Clock of all cores under the instructions that multiply a dtype (AMX, AVX-512), where it is another."""

    @model_validator(mode="after")
    def _boost_is_no_brake(self) -> Processor:
        slower = [
            dtype for dtype, clock_hz in self.licence_clock_hz.items() if clock_hz > (self.boost_clock_hz or 1e99)
        ]
        if slower:
            raise ValueError(f"the licence_clock of {slower[0]} is above the boost_clock")
        return self


def share_of_processor(device: Device, num_cores: int | None, numa: NumaPolicy | None) -> Device:
    """The device as an engine sees it that has so many of its cores, and its memory placed by the policy.

    Compute: cores x their clock. With c of N cores busy the clock rises with the cube root of N / c, as constant power
    allows, up to the boost clock; all cores: the licence's. Memory: see `memory_bytes_per_s`. Power: the share of the
    cores. None and None: the device itself.
    """
    if num_cores is None and numa is None:
        return device
    cores, processor = num_cores or device.num_cores, device.processor or Processor()
    peaks = {
        dtype: peak * cores / device.num_cores * _clock_gain(device, processor, dtype, cores)
        for dtype, peak in device.peak_flops_per_s.items()
    }
    memory, power, part = device.memory, device.power, cores / device.num_cores
    capacity = memory.capacity_bytes
    if numa == "bind":
        capacity *= nodes_used(device, cores) / processor.numa_nodes
    bandwidth = memory_bytes_per_s(device, cores, numa)
    return device.model_copy(
        update={
            "num_cores": cores,
            "peak_flops_per_s": peaks,
            "memory": memory.model_copy(update={"bandwidth_bytes_per_s": bandwidth, "capacity_bytes": capacity}),
            "power": power.model_copy(update={"idle_w": power.idle_w * part, "tdp_w": power.tdp_w * part}),
        }
    )


def nodes_used(device: Device, num_cores: int) -> int:
    """NUMA nodes that so many cores fill, one after the other."""
    processor = device.processor or Processor()
    return min(ceil(num_cores * processor.numa_nodes / device.num_cores), processor.numa_nodes)


def memory_bytes_per_s(device: Device, num_cores: int, numa: NumaPolicy | None) -> float:
    """Bandwidth of so many cores of the socket.

    bind: the memory of their own u of N NUMA nodes. interleave (and not said): pages lie on all N in turn, so u / N of
    the bytes come from their own nodes and the rest from the others, at the same time; the slower way decides. Never
    more than the cores draw.
    """
    processor, whole = device.processor or Processor(), device.memory.bandwidth_bytes_per_s
    node, used = whole / processor.numa_nodes, nodes_used(device, num_cores)
    reached = used * node
    if numa != "bind":
        local_frac = used / processor.numa_nodes
        remote = min(used * (processor.remote_bandwidth_bytes_per_s or whole), (processor.numa_nodes - used) * node)
        remote_s = (1.0 - local_frac) / remote if remote > 0.0 else 0.0
        reached = 1.0 / max(local_frac / (used * node), remote_s)
    if processor.core_bandwidth_bytes_per_s is not None:
        reached = min(reached, num_cores * processor.core_bandwidth_bytes_per_s)
    return reached


def _clock_gain(device: Device, processor: Processor, dtype: Dtype, num_cores: int) -> float:
    """Clock of so many cores over that at which the peaks are stated."""
    if device.clock_hz is None:
        return 1.0
    all_cores_hz = processor.licence_clock_hz.get(dtype, device.clock_hz)
    highest_hz = max(processor.boost_clock_hz or all_cores_hz, all_cores_hz)
    clock_hz = all_cores_hz * (device.num_cores / num_cores) ** (1.0 / 3.0)
    return float(min(clock_hz, highest_hz) / device.clock_hz)
