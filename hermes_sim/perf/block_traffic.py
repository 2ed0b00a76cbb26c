"""Time of moving KV blocks: to host memory and back when a sequence is swapped, in the device when one is copied.

Every device of a replica moves its own part of a block at the same time as the others.
"""

from __future__ import annotations

from hermes_sim.hardware.device import Device


def swap_block_seconds(block_bytes: float, host_bandwidth_bytes_per_s: float) -> float:
    """Seconds of one block of `block_bytes` per device over its link to the host, per direction.

    Latency is left out: the blocks of a sequence are sent in one go.
    """
    return block_bytes / host_bandwidth_bytes_per_s


def copy_block_seconds(block_bytes: float, device: Device) -> float:
    """Seconds of one block's copy on write: read and written once, at the share of bandwidth that a stream reaches."""
    bandwidth = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
    return 2.0 * block_bytes / bandwidth


def num_swap_blocks(swap_space_bytes: float, block_bytes: float) -> int:
    """Blocks that fit into the host memory kept for one device; 0 where nothing is cached."""
    return int(swap_space_bytes // block_bytes) if block_bytes > 0.0 else 0
