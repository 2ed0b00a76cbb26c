"""Collectives against the bounds of the literature."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from hermes_sim.hardware.network import GroupLink
from hermes_sim.perf.collective_coefficients import Algorithm, group_numbers
from hermes_sim.perf.operators.collective import (
    all_gather_seconds,
    all_reduce_seconds,
    group_all_reduce_seconds,
    send_seconds,
)

FloatArray = npt.NDArray[np.float64]

BANDWIDTH_BYTES_PER_S = 300e9
LATENCY_S = 5e-6


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_long_all_reduce_moves_what_a_ring_moves(num_devices: int) -> None:
    """A ring sends 2 (p - 1) / p of the message over every port (Patarasuk and Yuan, JPDC 69, 2009)."""
    num_bytes = 1e12
    ring_s = 2.0 * (num_devices - 1) / num_devices * num_bytes / BANDWIDTH_BYTES_PER_S
    assert all_reduce_seconds(num_bytes, num_devices, BANDWIDTH_BYTES_PER_S, LATENCY_S) == pytest.approx(
        ring_s, rel=1e-5
    )


@pytest.mark.parametrize("num_devices", [2, 4, 8])
@pytest.mark.parametrize("num_bytes", [1.0, 1e3, 1e5, 1e6, 1e8])
def test_all_reduce_is_never_below_its_lower_bounds(num_devices: int, num_bytes: float) -> None:
    """No algorithm beats one message of latency, nor the bandwidth bound of the ring."""
    seconds = all_reduce_seconds(num_bytes, num_devices, BANDWIDTH_BYTES_PER_S, LATENCY_S)
    assert seconds >= LATENCY_S
    assert seconds >= 2.0 * (num_devices - 1) / num_devices * num_bytes / BANDWIDTH_BYTES_PER_S


@pytest.mark.parametrize("num_bytes", [1e3, 1e6, 1e9])
def test_all_reduce_takes_no_longer_than_reduce_scatter_and_all_gather(num_bytes: float) -> None:
    gather_s = all_gather_seconds(num_bytes, 4, BANDWIDTH_BYTES_PER_S, LATENCY_S)
    assert all_reduce_seconds(num_bytes, 4, BANDWIDTH_BYTES_PER_S, LATENCY_S) <= 2.0 * gather_s * (1 + 1e-12)


def test_one_device_sends_nothing() -> None:
    assert all_reduce_seconds(1e9, 1, BANDWIDTH_BYTES_PER_S, LATENCY_S) == 0.0
    assert all_gather_seconds(1e9, 1, BANDWIDTH_BYTES_PER_S, LATENCY_S) == 0.0


def test_message_between_two() -> None:
    """Hockney's model: half the bandwidth is reached at latency x bandwidth bytes."""
    half_length_bytes = LATENCY_S * BANDWIDTH_BYTES_PER_S
    seconds = send_seconds(half_length_bytes, BANDWIDTH_BYTES_PER_S, LATENCY_S)
    assert half_length_bytes / seconds == pytest.approx(BANDWIDTH_BYTES_PER_S / 2)


ALGORITHMS = ("ring", "tree", "direct", "in_switch", "hierarchical")
FAST, SLOW = 400e9, 50e9
"""A port inside a node; all NICs of one."""


def in_nodes(num_nodes: int, algorithm: str, inside: float = FAST, across: float = SLOW) -> FloatArray:
    """[NUM_GROUP_NUMBERS] of a group over so many nodes; 2 us a message inside, 10 us across."""
    link = GroupLink(
        bandwidth_bytes_per_s=min(inside, across) if num_nodes > 1 else inside,
        latency_s=10e-6 if num_nodes > 1 else 2e-6,
        switched=True,
        crosses_nodes=num_nodes > 1,
        num_nodes=num_nodes,
        inside_bytes_per_s=inside,
        inside_latency_s=2e-6,
        across_bytes_per_s=across,
    )
    return group_numbers(link, cast(Algorithm, algorithm))


@pytest.mark.parametrize("num_devices", [2, 3, 4, 8])
@pytest.mark.parametrize("num_bytes", [1e3, 1e6, 1e9])
def test_algorithms_inside_a_node_have_their_closed_forms(num_devices: int, num_bytes: float) -> None:
    p, a, b = num_devices, 2e-6, num_bytes / FAST
    expected_s = {
        "ring": 2 * (p - 1) * a + 2 * (p - 1) / p * b,
        "tree": 2 * math.ceil(math.log2(p)) * a + 2 * b,
        "direct": min(a + (p - 1) * b, 2 * a + 2 * (p - 1) / p * b),
        "in_switch": a + (1 + 1 / p) * b,
    }
    for name, seconds in expected_s.items():
        assert group_all_reduce_seconds(num_bytes, p, in_nodes(1, name)) == pytest.approx(seconds)


@pytest.mark.parametrize(("num_nodes", "per_node"), [(2, 8), (4, 8), (4, 1), (3, 4)])
@pytest.mark.parametrize("num_bytes", [1e3, 1e6, 1e9])
def test_algorithms_across_nodes_have_their_closed_forms(num_nodes: int, per_node: int, num_bytes: float) -> None:
    n, m, p, b = num_nodes, per_node, num_nodes * per_node, num_bytes
    tree, ring = 2 * math.ceil(math.log2(n)) * 10e-6, 2 * (n - 1) * 10e-6
    over_nodes_s = min(ring + 2 * (n - 1) / n * b / SLOW, tree + 2 * b / SLOW)
    expected_s = {
        "ring": ring + 2 * (p - n) * 2e-6 + 2 * (p - 1) / p * b / SLOW,
        "tree": tree + 2 * (m - 1) * 2e-6 + 2 * b / SLOW,
        "hierarchical": over_nodes_s + (2 * (2e-6 + (m - 1) / m * b / FAST) if m > 1 else 0.0),
    }
    for name, seconds in expected_s.items():
        assert group_all_reduce_seconds(b, p, in_nodes(n, name)) == pytest.approx(seconds), name
    assert group_all_reduce_seconds(b, p, in_nodes(n, "auto")) == pytest.approx(min(expected_s.values()))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("num_nodes", [1, 2, 4])
@pytest.mark.parametrize("num_bytes", [1.0, 1e5, 1e9])
def test_none_beats_the_bytes_that_have_to_cross(algorithm: str, num_nodes: int, num_bytes: float) -> None:
    """What each node holds has to leave it once, and the sum to come back, unless the switch adds up."""
    seconds = group_all_reduce_seconds(num_bytes, 8, in_nodes(num_nodes, algorithm))
    slowest = FAST if num_nodes == 1 else SLOW
    ends = 8 if num_nodes == 1 else num_nodes
    times = 1.0 if algorithm == "in_switch" else 2.0 * (ends - 1) / ends
    assert seconds >= times * num_bytes / slowest * (1 - 1e-12)


def test_short_messages_go_up_a_tree_and_long_ones_by_levels() -> None:
    """32 nodes of 8: the ring has 62 latencies across and 448 inside, the tree 10 and 14; then the bytes count."""
    short = {name: group_all_reduce_seconds(1e3, 256, in_nodes(32, name)) for name in ("ring", "tree", "hierarchical")}
    assert short["ring"] > 5 * short["tree"]
    equal = {
        name: group_all_reduce_seconds(1e12, 256, in_nodes(32, name, inside=400e9, across=400e9))
        for name in ("ring", "tree", "hierarchical")
    }
    # where a node sends as fast as one of its devices, the ring's bytes are all there is to send
    assert min(equal, key=lambda name: equal[name]) == "ring"
