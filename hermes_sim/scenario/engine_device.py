"""The device that one engine computes on: all of it, or what its cores reach of it."""

from __future__ import annotations

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.processor import share_of_processor
from hermes_sim.scenario.cluster import Placement


def engine_device(device: Device, placement: Placement) -> Device:
    """For a token engine: its memory, peaks and power are those of its cores. Cores are spread evenly over devices."""
    if placement.cores is None and placement.numa is None:
        return device
    num_cores = None if placement.cores is None else max(placement.cores // placement.devices, 1)
    return share_of_processor(device, num_cores, placement.numa)
