"""The share of a replica's devices that one batch of jobs runs on, and the resources that can limit it."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.hardware.device import Device
from hermes_sim.perf.array_operators import Array
from hermes_sim.perf.coefficients import supported_dtype

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3
NUM_RESOURCES = 4


@dataclass(frozen=True, slots=True)
class Worker:
    """The share of a replica's devices that one batch runs on."""

    device: Device
    num_cores: int
    num_devices: int
    link_bytes_per_s: float = 0.0
    """Between the devices of the replica; 0 where there is only one."""
    link_latency_s: float = 0.0
    array: Array | None = None
    """Its share of compute-in-memory cells, which hold the weights; `device` is then what computes beside them
    (perf/job_arrays.py)."""
    weights_stay_frac: float = 1.0
    """Of the weights that stay in those cells from batch to batch."""

    @property
    def total_bytes_per_s(self) -> float:
        """Memory bandwidth of all devices together."""
        return self.num_devices * self.device.memory.bandwidth_bytes_per_s

    @property
    def bytes_per_s(self) -> float:
        """Memory bandwidth that the worker's cores can draw while the others are idle.

        One core draws its scan rate where the device states one, else `core_streams` shares of the bandwidth.
        """
        return min(self.total_bytes_per_s, self.num_cores * self.core_bytes_per_s)

    @property
    def core_bytes_per_s(self) -> float:
        """Memory bandwidth that one core can draw."""
        device = self.device
        if device.scan_rate_bytes_per_s_per_core is not None:
            return device.scan_rate_bytes_per_s_per_core
        streams = next(iter(device.cost_model.gemm.values())).core_streams
        return streams * device.memory.bandwidth_bytes_per_s / device.num_cores

    @property
    def at_the_banks(self) -> bool:
        """Units beside the memory's banks read and compare vectors themselves."""
        return self.device.memory.internal_bandwidth_bytes_per_s is not None

    @property
    def scanned_bytes_per_s(self) -> float:
        """Bandwidth of all devices for searches: inside the memory where it has units at its banks."""
        inside = self.device.memory.internal_bandwidth_bytes_per_s
        return self.total_bytes_per_s if inside is None else self.num_devices * inside

    def flops_per_s(self, dtype: Dtype) -> float:
        """Dense peak of the worker's cores."""
        return self.device.peak_flops_per_s[self.multiplied_as(dtype)] * self.num_cores / self.device.num_cores

    def multiplied_as(self, dtype: Dtype) -> Dtype:
        """The dtype itself, a wider one, else the widest that the device has."""
        supported = supported_dtype(self.device, dtype)
        if supported is not None:
            return supported
        return max(self.device.peak_flops_per_s, key=lambda held: DTYPE_BYTES[held])
