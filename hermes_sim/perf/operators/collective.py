"""Time of collectives inside a tensor-parallel or expert-parallel group, and of hand-overs between pipeline stages.

Latency-bandwidth model of Hockney (1994); algorithms after Thakur, Rabenseifner, Gropp, "Optimization of collective
communication operations in MPICH" (2005). `bandwidth_bytes_per_s` is one device's port, per direction, as reached by a
long message; `latency_s` is one message of zero bytes, software included.
"""

from __future__ import annotations

from hermes_sim.core.compiled import compiled


@compiled
def all_reduce_seconds(num_bytes: float, num_devices: int, bandwidth_bytes_per_s: float, latency_s: float) -> float:
    """All-reduce of `num_bytes` on each of p devices: the better of one shot and two shots.

    One shot: every device reads all others, latency + (p - 1) bytes / bandwidth. Two shots (reduce-scatter, then
    all-gather): 2 latency + 2 (p - 1) / p bytes / bandwidth, which is the bandwidth bound of a ring as well
    (Patarasuk and Yuan 2009).
    """
    if num_devices < 2:
        return 0.0
    others = num_devices - 1.0
    one_shot_s = latency_s + others * num_bytes / bandwidth_bytes_per_s
    two_shot_s = 2.0 * latency_s + 2.0 * others / num_devices * num_bytes / bandwidth_bytes_per_s
    return min(one_shot_s, two_shot_s)


@compiled
def all_gather_seconds(num_bytes: float, num_devices: int, bandwidth_bytes_per_s: float, latency_s: float) -> float:
    """All-gather whose result has `num_bytes` on each device: latency + (p - 1) / p bytes / bandwidth."""
    if num_devices < 2:
        return 0.0
    return latency_s + (num_devices - 1.0) / num_devices * num_bytes / bandwidth_bytes_per_s


@compiled
def all_to_all_seconds(num_bytes: float, num_devices: int, bandwidth_bytes_per_s: float, latency_s: float) -> float:
    """All-to-all of p devices that have `num_bytes` each to hand out evenly, their own part included.

    latency + (p - 1) / p bytes / bandwidth: all messages are under way at once and share the device's port, which is
    busy without a gap; no schedule is faster, pairwise exchange takes p - 1 latencies instead of one.
    """
    if num_devices < 2:
        return 0.0
    return latency_s + (num_devices - 1.0) / num_devices * num_bytes / bandwidth_bytes_per_s


@compiled
def send_seconds(num_bytes: float, bandwidth_bytes_per_s: float, latency_s: float) -> float:
    """One point-to-point message: latency + bytes / bandwidth."""
    return latency_s + num_bytes / bandwidth_bytes_per_s
