"""Time of collectives inside a tensor-parallel or expert-parallel group, and of hand-overs between pipeline stages.

Latency-bandwidth model of Hockney (1994); algorithms after Thakur, Rabenseifner, Gropp, "Optimization of collective
communication operations in MPICH" (2005). `bandwidth_bytes_per_s` is one device's port, per direction, as reached by a
long message; `latency_s` is one message of zero bytes, software included.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

FloatArray = npt.NDArray[np.float64]

AUTO, RING, TREE, DIRECT, IN_SWITCH, HIERARCHICAL = 0, 1, 2, 3, 4, 5

# What a tensor-parallel group is, where no fitted algorithm is used.
GROUP_ALGORITHM = 0
GROUP_NODES = 1  # 0 or 1: all inside one
GROUP_INSIDE_BANDWIDTH = 2  # of one device's port inside its node
GROUP_INSIDE_LATENCY_S = 3
GROUP_ACROSS_BANDWIDTH = 4  # of all NICs that the group has in one node
GROUP_ACROSS_LATENCY_S = 5
NUM_GROUP_NUMBERS = 6

BANDWIDTH = 0  # byte/s of one device's port, peak, per direction; 0: nothing is fitted
SMALL_LATENCY_S = 1  # two devices, a few bytes
SMALL_PEER_S = 2  # for each further device
SMALL_FRAC = 3
LARGE_LATENCY_S = 4
LARGE_PEER_S = 5
LARGE_FRAC = 6
RING_LATENCY_S = 7
RING_PEER_S = 8
RING_FRAC = 9  # 0: no such algorithm
IN_SWITCH_FRAC = 10  # 0: no such algorithm
CONTENTION = 11  # exponent of the number of devices by which a shared path slows each of them
OWN_LIMIT = 12  # bytes of the longest message that the first two take; 0: whichever is quickest
NUM_COLLECTIVE_COEFFICIENTS = 13


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
def ring_all_reduce_seconds(
    num_bytes: float, num_devices: int, bandwidth_bytes_per_s: float, latency_s: float
) -> float:
    """2 (p - 1) messages of b / p each around a ring (Patarasuk and Yuan 2009); latency_s: of one of them."""
    if num_devices < 2:
        return 0.0
    messages = 2.0 * (num_devices - 1.0)
    return messages * (latency_s + num_bytes / num_devices / bandwidth_bytes_per_s)


@compiled
def tree_all_reduce_seconds(
    num_bytes: float, num_devices: int, bandwidth_bytes_per_s: float, latency_s: float
) -> float:
    """Double binary tree, pipelined: 2 ceil(log2 p) messages of latency up and down; every port carries 2 b each way.

    Who is inside one tree is a leaf of the other, each of which has half of b (Sanders, Speck, Traeff 2009).
    """
    if num_devices < 2:
        return 0.0
    return 2.0 * math.ceil(math.log2(num_devices)) * latency_s + 2.0 * num_bytes / bandwidth_bytes_per_s


@compiled
def in_switch_all_reduce_seconds(
    num_bytes: float, num_devices: int, bandwidth_bytes_per_s: float, latency_s: float
) -> float:
    """The switch adds up (SHARP; Klenk et al., ISCA 2020): latency + (1 + 1 / p) b / bandwidth."""
    if num_devices < 2:
        return 0.0
    return latency_s + (1.0 + 1.0 / num_devices) * num_bytes / bandwidth_bytes_per_s


@compiled
def group_all_reduce_seconds(num_bytes: float, num_devices: int, group: FloatArray) -> float:
    """By the algorithm that the group asks for, or the quickest that fits (NCCL's choice, without its tuning tables).

    Of p devices in n nodes of m each. Ring: 2 (n - 1) of its messages cross nodes; one ring for each NIC. Tree: chains
    inside the nodes, a double binary tree across. Hierarchical: reduce-scatter inside, all-reduce of b / m from each
    device to its like across, all-gather inside. auto: inside a node direct; across nodes the quickest of these three.
    """
    algorithm, num_nodes = int(group[GROUP_ALGORITHM]), max(group[GROUP_NODES], 1.0)
    inside, inside_s = group[GROUP_INSIDE_BANDWIDTH], group[GROUP_INSIDE_LATENCY_S]
    if num_devices < 2:
        return 0.0
    if num_nodes == 1.0:
        if algorithm == RING:
            return float(ring_all_reduce_seconds(num_bytes, num_devices, inside, inside_s))
        if algorithm == TREE:
            return float(tree_all_reduce_seconds(num_bytes, num_devices, inside, inside_s))
        if algorithm == IN_SWITCH:
            return float(in_switch_all_reduce_seconds(num_bytes, num_devices, inside, inside_s))
        return all_reduce_seconds(num_bytes, num_devices, inside, inside_s)
    across, across_s = group[GROUP_ACROSS_BANDWIDTH], group[GROUP_ACROSS_LATENCY_S]
    slowest = min(inside, across)
    if algorithm == DIRECT:
        return all_reduce_seconds(num_bytes, num_devices, slowest, across_s)
    if algorithm == IN_SWITCH:
        return in_switch_all_reduce_seconds(num_bytes, num_devices, slowest, across_s)
    per_node = num_devices / num_nodes
    crossing = 2.0 * (num_nodes - 1.0)
    ring_s = crossing * across_s + (2.0 * (num_devices - 1.0) - crossing) * inside_s
    ring_s += 2.0 * (num_devices - 1.0) / num_devices * num_bytes / slowest
    tree_s = 2.0 * (math.ceil(math.log2(num_nodes)) * across_s + (per_node - 1.0) * inside_s)
    tree_s += 2.0 * num_bytes / slowest
    node_count = int(num_nodes)
    both_s = min(
        ring_all_reduce_seconds(num_bytes, node_count, across, across_s),
        tree_all_reduce_seconds(num_bytes, node_count, across, across_s),
    )
    if per_node > 1.0:
        both_s += 2.0 * (inside_s + (per_node - 1.0) / per_node * num_bytes / inside)
    if algorithm == RING:
        return float(ring_s)
    if algorithm == TREE:
        return float(tree_s)
    if algorithm == HIERARCHICAL:
        return float(both_s)
    return float(min(ring_s, tree_s, both_s))


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


@compiled
def fitted_all_reduce_seconds(num_bytes: float, num_devices: int, coefficients: FloatArray) -> float:
    """All-reduce of `num_bytes` on each of p devices: the quickest of the algorithms that it goes through.

    An engine with a limit runs its own kernels (one shot, two shots) up to it and the library behind them above.

    One shot: every device reads all others, p - 1 messages. Two shots and ring: 2 (p - 1) / p bytes over each port. In
    the switch (NVLink SHARP, from three devices on): each port carries the message once and 1 / p of the result.
    """
    if num_devices < 2:
        return 0.0
    others, peers = num_devices - 1.0, num_devices - 2.0
    port = coefficients[BANDWIDTH] * (0.5 * num_devices) ** -coefficients[CONTENTION]
    ring_bytes = 2.0 * others / num_devices * num_bytes
    one_shot_s = coefficients[SMALL_LATENCY_S] + peers * coefficients[SMALL_PEER_S]
    one_shot_s += others * num_bytes / (port * coefficients[SMALL_FRAC])
    two_shot_s = coefficients[LARGE_LATENCY_S] + peers * coefficients[LARGE_PEER_S]
    two_shot_s += ring_bytes / (port * coefficients[LARGE_FRAC])
    best_s = min(one_shot_s, two_shot_s)
    if coefficients[OWN_LIMIT] > 0.0:
        if num_bytes <= coefficients[OWN_LIMIT]:
            return float(best_s)
        best_s = math.inf
    if coefficients[RING_FRAC] > 0.0:
        ring_s = coefficients[RING_LATENCY_S] + peers * coefficients[RING_PEER_S]
        best_s = min(best_s, ring_s + ring_bytes / (port * coefficients[RING_FRAC]))
    if coefficients[IN_SWITCH_FRAC] > 0.0 and num_devices > 2:
        switch_bytes = (1.0 + 1.0 / num_devices) * num_bytes
        switch_s = switch_bytes / (coefficients[BANDWIDTH] * coefficients[IN_SWITCH_FRAC])
        best_s = min(best_s, coefficients[RING_LATENCY_S] + switch_s)
    return float(best_s)


@compiled
def fitted_exchange_seconds(num_bytes: float, num_devices: int, coefficients: FloatArray) -> float:
    """All-gather, reduce-scatter or all-to-all: (p - 1) / p bytes over each port, by the quicker of two protocols.

    num_bytes: the gathered result, the input of a reduce-scatter, what each device hands out in an all-to-all.
    """
    if num_devices < 2:
        return 0.0
    peers = num_devices - 2.0
    moved = (num_devices - 1.0) / num_devices * num_bytes
    moved_s = moved / (coefficients[BANDWIDTH] * (0.5 * num_devices) ** -coefficients[CONTENTION])
    small_s = coefficients[SMALL_LATENCY_S] + peers * coefficients[SMALL_PEER_S] + moved_s / coefficients[SMALL_FRAC]
    large_s = coefficients[LARGE_LATENCY_S] + peers * coefficients[LARGE_PEER_S] + moved_s / coefficients[LARGE_FRAC]
    return float(min(small_s, large_s))
