"""Transfers share links max-min fairly; checked against the closed form for one, two and three flows."""

from __future__ import annotations

import math

import pytest

from hermes_sim.hardware.network import PhysicalLink, Route
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.ranks import ARRIVAL

GIGABYTE = 1e9


def link(number: int, bandwidth: float) -> PhysicalLink:
    return PhysicalLink(number, f"link{number}", "test", bandwidth, bandwidth, 0.0, 0.0, 0.0)


def route(*link_ids: int, bandwidth: float, latency_s: float = 0.0) -> Route:
    return Route(link_ids, (1.0,) * len(link_ids), latency_s, bandwidth)


def arrivals(links: list[PhysicalLink], starts: list[tuple[float, Route, float]]) -> list[float]:
    """Arrival times of transfers (start, route, bytes)."""
    clock = Clock()
    flows = Flows(clock, links)
    arrived = [math.nan] * len(starts)
    for number, (start_s, path, num_bytes) in enumerate(starts):

        def begin(event: object, number: int = number, path: Route = path, num_bytes: float = num_bytes) -> None:
            def note(time_s: float) -> None:
                arrived[number] = time_s

            flows.start(path, num_bytes, note)

        clock.at(start_s, ARRIVAL, begin, row=number)
    clock.run()
    assert all(not use.flows for use in flows.uses)
    sent = sum(path_bytes for _, path_bytes in ((path, n * len(path.link_ids)) for _, path, n in starts))
    assert sum(use.num_bytes for use in flows.uses) == sent  # law 7
    return arrived


def test_alone_is_latency_plus_bytes_over_bandwidth_to_the_bit() -> None:
    path = route(0, bandwidth=3.0 * GIGABYTE, latency_s=7e-6)
    assert arrivals([link(0, 3.0 * GIGABYTE)], [(0.25, path, 1e8)]) == [0.25 + 1e8 / (3.0 * GIGABYTE) + 7e-6]


def test_two_flows_halve_the_link() -> None:
    # both 1 GB over 1 GB/s. A alone in [0, 0.5], then each at 0.5: A has 0.5 GB left -> 1.5; B then alone: 0.5 -> 2.0
    path = route(0, bandwidth=GIGABYTE)
    assert arrivals([link(0, GIGABYTE)], [(0.0, path, 1e9), (0.5, path, 1e9)]) == pytest.approx([1.5, 2.0])


def test_three_flows_over_two_links() -> None:
    # A over both links, B over the first (10), C over the second (4): the second is the bottleneck, A = C = 2, B = 8.
    # C and A carry 2 GB each: both at 1 s. B carries 12 GB: 8 by then, then alone at 10: 4 / 10 more.
    links = [link(0, 10.0 * GIGABYTE), link(1, 4.0 * GIGABYTE)]
    both, first, second = (
        route(0, 1, bandwidth=4.0 * GIGABYTE), route(0, bandwidth=10.0 * GIGABYTE), route(1, bandwidth=4.0 * GIGABYTE)
    )  # fmt: skip
    starts = [(0.0, both, 2e9), (0.0, first, 12e9), (0.0, second, 2e9)]
    assert arrivals(links, starts) == pytest.approx([1.0, 1.4, 1.0])


def test_flows_on_other_links_do_not_disturb() -> None:
    links = [link(0, GIGABYTE), link(1, GIGABYTE)]
    alone = arrivals(links, [(0.0, route(0, bandwidth=GIGABYTE), 1e9)])
    together = arrivals(links, [(0.0, route(0, bandwidth=GIGABYTE), 1e9), (0.3, route(1, bandwidth=GIGABYTE), 5e9)])
    assert together[0] == alone[0]


def test_nothing_to_send_arrives_at_once() -> None:
    assert arrivals([link(0, GIGABYTE)], [(1.0, route(0, bandwidth=GIGABYTE, latency_s=1e-6), 0.0)]) == [1.0 + 1e-6]


def test_inside_one_device_costs_nothing() -> None:
    assert arrivals([], [(2.0, Route((), (), 0.0, math.inf), 1e9)]) == [2.0]


def test_an_estimate_is_exact_for_a_lone_transfer_and_on_one_shared_link() -> None:
    """A gigabyte is under way with half a second left; another that starts now, and nothing after it."""
    links = [link(0, GIGABYTE)]
    clock = Clock()
    flows = Flows(clock, links)
    way, ends = route(0, bandwidth=GIGABYTE, latency_s=1e-3), list[float]()
    assert flows.estimated_s([(way, GIGABYTE)], 0.0) == 1.0 + 1e-3
    flows.start(way, GIGABYTE, lambda time_s: None)
    found: list[float] = []

    def second(event: object) -> None:
        found.append(flows.estimated_s([(way, GIGABYTE)], 0.5))
        flows.start(way, GIGABYTE, ends.append)

    clock.at(0.5, 0, second)
    clock.run()
    assert found == [1.5 + 1e-3]
    assert ends == [0.5 + found[0]]
