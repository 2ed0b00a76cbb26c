"""Transfers and steps that want the same resource, against the closed forms of max-min fair sharing.

Bertsekas and Gallager, "Data Networks" (1992), section 6.5.2; on one link max-min fairness is processor sharing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hermes_sim.hardware.fabric import Fabric
from hermes_sim.hardware.network import Network, Route
from hermes_sim.hardware.topology import PhysicalLink
from hermes_sim.sim.clock import Clock
from hermes_sim.sim.contention import retime
from hermes_sim.sim.flows import Flows
from hermes_sim.sim.lanes import bound_by
from hermes_sim.sim.pricing import COMPUTE, NETWORK, link_wait_s
from hermes_sim.sim.ranks import ARRIVAL, FAILURE
from hermes_sim.sim.replicas import Replica
from hermes_sim.sim.shared_links import users_of_devices
from hermes_sim.state.arrays import DEVICE_COLUMNS, FIELDS, FIXED_SIZES, EngineArrays, allocate
from tests.unit.hardware.test_network import LINKS, gpu, node

LATENCY_S = 0.125


@dataclass(frozen=True, slots=True)
class Transfer:
    start_s: float
    num_bytes: float
    link_ids: tuple[int, ...] = (0,)


def arrivals_s(link_rates: Sequence[float], transfers: Sequence[Transfer]) -> tuple[list[float], Flows]:
    """When the last byte of each transfer arrives."""
    links = [PhysicalLink(i, f"link{i}", "wire", rate, rate, 0.0, 0.0, 0.0) for i, rate in enumerate(link_rates)]
    clock = Clock()
    flows = Flows(clock, links)
    arrived_s = [np.nan] * len(transfers)

    def start(number: int) -> None:
        transfer = transfers[number]
        rate = min(link_rates[link_id] for link_id in transfer.link_ids)
        route = Route(transfer.link_ids, (1.0,) * len(transfer.link_ids), LATENCY_S, rate)

        def arrive(time_s: float) -> None:
            arrived_s[number] = time_s

        flows.start(route, transfer.num_bytes, arrive)

    for number, transfer in enumerate(transfers):
        clock.at(transfer.start_s, ARRIVAL, lambda event: start(event.subject), row=number)
    clock.run()
    return arrived_s, flows


def test_a_transfer_alone_takes_latency_and_bytes_over_bandwidth() -> None:
    ends_s, flows = arrivals_s([100.0], [Transfer(1.0, 300.0)])
    assert ends_s == [1.0 + 3.0 + LATENCY_S]
    assert flows.uses[0].busy_s == 3.0


def test_two_flows_on_one_link() -> None:
    # 100 bytes/s. Flow 0: 600 bytes from 0 s; flow 1: 100 bytes from 2 s. At 2 s 400 bytes of flow 0 are left; both get
    # 50 bytes/s; flow 1 ends at 4 s; flow 0 has 300 left and ends at 7 s, when 700 bytes have gone at full rate.
    ends_s, flows = arrivals_s([100.0], [Transfer(0.0, 600.0), Transfer(2.0, 100.0)])
    assert ends_s == pytest.approx([7.0 + LATENCY_S, 4.0 + LATENCY_S])
    assert flows.uses[0].busy_s == pytest.approx(7.0)
    assert flows.uses[0].num_bytes == 700.0


def test_equal_flows_end_together() -> None:
    ends_s, _ = arrivals_s([100.0], [Transfer(0.0, 300.0)] * 3)
    assert ends_s == pytest.approx([9.0 + LATENCY_S] * 3)


def test_three_flows_of_different_size() -> None:
    # Sizes 100 < 200 < 300 on 100 bytes/s, all from 0 s: three share it until each has sent 100 (3 s), two
    # until 200 (2 s more), the last sends 100 alone (1 s).
    ends_s, _ = arrivals_s([100.0], [Transfer(0.0, 300.0), Transfer(0.0, 100.0), Transfer(0.0, 200.0)])
    assert ends_s == pytest.approx([6.0 + LATENCY_S, 3.0 + LATENCY_S, 5.0 + LATENCY_S])


def test_a_flow_held_up_elsewhere_leaves_the_rest_to_the_others() -> None:
    # Links of 100 and 40 bytes/s. Flow 0 crosses both and gets 40; flow 1 crosses the first only and gets 60, not 50.
    # Flow 0 (80 bytes) ends at 2 s; flow 1 has sent 120 of 420 by then, the other 300 take 3 s.
    ends_s, _ = arrivals_s([100.0, 40.0], [Transfer(0.0, 80.0, (0, 1)), Transfer(0.0, 420.0)])
    assert ends_s == pytest.approx([2.0 + LATENCY_S, 5.0 + LATENCY_S])


def test_parking_lot() -> None:
    # Two links of 100 bytes/s in a row. A long flow crosses both, a short one each: all get 50.
    transfers = [Transfer(0.0, 50.0, (0, 1)), Transfer(0.0, 50.0, (0,)), Transfer(0.0, 50.0, (1,))]
    ends_s, _ = arrivals_s([100.0, 100.0], transfers)
    assert ends_s == pytest.approx([1.0 + LATENCY_S] * 3)


def test_flows_that_share_no_link_do_not_disturb_each_other() -> None:
    alone_s, _ = arrivals_s([100.0, 30.0], [Transfer(0.3, 70.0)])
    both_s, _ = arrivals_s([100.0, 30.0], [Transfer(0.3, 70.0), Transfer(0.1, 20.0, (1,))])
    assert both_s[0] == alone_s[0]


def test_a_link_that_loses_half_its_speed() -> None:
    # 600 bytes at 100 bytes/s from 0 s. From 2 s to 4 s half of that: 200 + 100 sent; the rest takes 3 s more.
    assert end_with_speeds_s([(2.0, 0.5), (4.0, 1.0)]) == pytest.approx(7.0 + LATENCY_S)


def test_a_dead_link_holds_its_flow_until_the_repair() -> None:
    assert end_with_speeds_s([(2.0, 0.0), (5.0, 1.0)]) == pytest.approx(9.0 + LATENCY_S)


def end_with_speeds_s(speeds: Sequence[tuple[float, float]]) -> float:
    """Arrival of 600 bytes over 100 bytes/s from 0 s, with speeds (time, share) set on the way."""
    clock, ends_s = Clock(), list[float]()
    flows = Flows(clock, [PhysicalLink(0, "link0", "wire", 100.0, 100.0, 0.0, 0.0, 0.0)])
    flows.start(Route((0,), (1.0,), LATENCY_S, 100.0), 600.0, ends_s.append)
    for number, (time_s, speed_frac) in enumerate(speeds):
        clock.at(time_s, FAILURE, lambda event, to=speed_frac: flows.set_link_speed(0, to), row=number)
    clock.run()
    assert flows.uses[0].num_bytes == 600.0
    return ends_s[0]


def test_a_flow_goes_round_a_dead_link_with_what_it_has_left() -> None:
    # Two spines between racks of one node each; 100 GB at the 25 GB/s of the NIC. After 1 s the flow's spine dies: 25
    # GB have gone over it, 75 go over the other, and nothing is lost.
    levels = [{"name": "rack", "nodes": 1}, {"name": "spine", "switches": 2, "oversubscription": 0.5}]
    network = Network([node(count=2)], LINKS, "ib", Fabric.model_validate({"levels": levels}))
    clock, ends_s = Clock(), list[float]()
    flows = Flows(clock, network.links, network)
    routes = [network.group_route([gpu(0)], [gpu(0, 1)], flow_id) for flow_id in range(9)]
    first = routes[0]
    second = next(route for route in routes if route.link_ids != first.link_ids)
    uplink = next(i for i in first.link_ids if "->spine" in network.links[i].name)
    assert uplink not in second.link_ids
    flows.start(first, 100e9, ends_s.append)
    clock.at(1.0, FAILURE, lambda event: flows.set_link_speed(uplink, 0.0))
    clock.run()
    assert ends_s[0] == pytest.approx(4.0 + first.latency_s)
    assert flows.uses[uplink].num_bytes == pytest.approx(25e9)
    other = next(i for i in second.link_ids if "->spine" in network.links[i].name)
    assert flows.uses[other].num_bytes == pytest.approx(75e9)


def steps_in_flight(durations_s: Sequence[float], demands: Sequence[float]) -> EngineArrays:
    """One engine per step, all in one group that shares one resource; every step starts at 0 s."""
    number = len(durations_s)
    sizes = {dimension: 1 for _, dimensions, _ in FIELDS.values() for dimension in dimensions}
    arrays = allocate({**sizes, **FIXED_SIZES, "engines": number, "resources": DEVICE_COLUMNS})
    arrays.group_size[0] = number
    arrays.group_contended[0] = 1
    arrays.group_members[:] = np.arange(number)
    arrays.lane_end_s[:, 0] = durations_s
    arrays.lane_remaining_s[:, 0] = durations_s
    arrays.lane_demand[:, 0, 1] = demands
    retime(arrays.handle, 0, 0.0)
    return arrays


def ends_of_steps_s(arrays: EngineArrays) -> list[float]:
    """Let them end one after the other."""
    ends_s = [np.nan] * len(arrays.lane_end_s)
    while not np.isinf(arrays.lane_end_s).all():
        first = int(arrays.lane_end_s[:, 0].argmin())
        ends_s[first] = float(arrays.lane_end_s[first, 0])
        arrays.lane_end_s[first, 0] = np.inf
        retime(arrays.handle, 0, ends_s[first])
    return ends_s


def test_steps_that_fit_together_run_at_full_speed_to_the_bit() -> None:
    durations_s = [0.1, 0.3, 0.7]
    assert ends_of_steps_s(steps_in_flight(durations_s, [0.3, 0.3, 0.4])) == durations_s


def test_steps_that_want_more_than_there_is_slow_each_other_down() -> None:
    # 80% of the memory bandwidth each: both at 1 / 1.6 of their speed. The first (1 s alone) ends at 1.6 s; the second
    # has 2 - 1 s of work left and goes on at full speed.
    arrays = steps_in_flight([1.0, 2.0], [0.8, 0.8])
    assert arrays.lane_speed[:, 0] == pytest.approx([0.625, 0.625])
    assert ends_of_steps_s(arrays) == pytest.approx([1.6, 2.6])


def test_a_step_without_demand_is_not_slowed_down() -> None:
    arrays = steps_in_flight([1.0, 1.0, 1.0], [1.0, 1.0, 0.0])
    assert ends_of_steps_s(arrays) == pytest.approx([2.0, 2.0, 1.0])


def test_work_is_conserved() -> None:
    # All want the whole resource: whatever their durations, the last ends when the sum of the work is done.
    durations_s = [0.5, 1.0, 0.25, 2.0]
    assert max(ends_of_steps_s(steps_in_flight(durations_s, [1.0] * 4))) == pytest.approx(sum(durations_s))


def test_steps_share_a_link_that_only_their_collectives_have_in_common() -> None:
    # Two engines on devices of their own (columns 0-1 and 2-3), both full users of their memory, and of one link
    # (column 4) for 60% and 80% of their time: together 1.4 of it, so both go at 1 / 1.4.
    arrays = engines_in_a_group([1.0, 1.0], num_columns=5)
    arrays.device_columns[:] = [[0], [2]]
    arrays.group_first_link[0] = 4
    arrays.lane_demand[0, 0, [1, 4]] = [1.0, 0.6]
    arrays.lane_demand[1, 0, [3, 4]] = [1.0, 0.8]
    retime(arrays.handle, 0, 0.0)
    assert arrays.lane_speed[:, 0] == pytest.approx([1 / 1.4] * 2)
    assert [bound_by(arrays.handle, e, 0) for e in (0, 1)] == [NETWORK] * 2
    assert ends_of_steps_s(arrays) == pytest.approx([1.4, 1.4])


def test_steps_that_compute_on_one_device_share_its_compute() -> None:
    # an encoder on 30% of the cores, compute-limited throughout, beside a prompt that would use all of them for half
    # of its time: 0.3 + 0.5 fit; two such prompts do not
    arrays = engines_in_a_group([1.0, 1.0], num_columns=2)
    arrays.lane_demand[:, 0, 0] = [0.3, 0.5]
    retime(arrays.handle, 0, 0.0)
    assert ends_of_steps_s(arrays) == [1.0, 1.0]
    arrays = engines_in_a_group([1.0, 1.0], num_columns=2)
    arrays.lane_demand[:, 0, 0] = [0.8, 0.8]
    retime(arrays.handle, 0, 0.0)
    assert bound_by(arrays.handle, 0, 0) == COMPUTE
    assert ends_of_steps_s(arrays) == pytest.approx([1.6, 1.6])


def engines_in_a_group(durations_s: Sequence[float], num_columns: int, num_sets: int = 1) -> EngineArrays:
    """One engine per step, one group; demands are for the test to set."""
    number = len(durations_s)
    sizes = {dimension: 1 for _, dimensions, _ in FIELDS.values() for dimension in dimensions}
    arrays = allocate({**sizes, **FIXED_SIZES, "engines": number, "resources": num_columns, "device_sets": num_sets})
    arrays.group_size[0] = number
    arrays.group_contended[0] = 1
    arrays.group_num_columns[0] = num_columns
    arrays.group_members[:] = np.arange(number)
    arrays.lane_end_s[:, 0] = durations_s
    arrays.lane_remaining_s[:, 0] = durations_s
    return arrays


@pytest.mark.parametrize(("wanted", "left", "seconds"), [(0.4, 0.5, 1.0), (0.8, 0.5, 1.6), (1.0, 0.25, 4.0)])
def test_a_step_takes_as_long_as_its_bytes_over_what_transfers_leave_of_the_link(
    wanted: float, left: float, seconds: float
) -> None:
    arrays = engines_in_a_group([1.0], num_columns=3)
    arrays.group_num_links[0] = 1
    arrays.link_token_s[0, 2] = wanted / 100
    arrays.link_share_frac[0, 2] = left
    assert 1.0 + link_wait_s(arrays.handle, 0, 100, 1.0) == pytest.approx(seconds)


class _Engines:
    """Stands for sim/step_traffic.StepTraffic: engines that want a share of each link, and what they were left."""

    def __init__(self, wanted: dict[int, list[float]]) -> None:
        self.wanted = wanted
        self.left: dict[int, list[float]] = {}

    def uses(self, link_id: int) -> bool:
        return link_id in self.wanted

    def demands(self, link_ids: Iterable[int]) -> dict[int, list[float]]:
        return {link_id: self.wanted[link_id] for link_id in link_ids if link_id in self.wanted}

    def leave(self, link_id: int, share_frac: float) -> None:
        self.left.setdefault(link_id, []).append(share_frac)


@pytest.mark.parametrize(
    ("wanted", "num_flows", "rate", "left"),
    [
        ([0.3], 1, 70.0, 0.5),  # the engine has all it wants, the transfer the rest; a larger step may have half
        ([0.9], 1, 50.0, 0.5),  # both want more than half: half each
        ([0.9], 2, 100 / 3, 1 / 3),
        ([0.2, 0.9], 1, 40.0, 0.6),  # 20 for the modest one, 40 each for the others
        ([0.0], 1, 100.0, 0.5),  # an engine that is idle now gets its even share when it begins
    ],
)
def test_a_transfer_and_the_steps_of_engines_on_one_link(
    wanted: list[float], num_flows: int, rate: float, left: float
) -> None:
    engines, ends_s = _Engines({0: wanted}), list[float]()
    clock = Clock()
    flows = Flows(clock, [PhysicalLink(0, "link0", "wire", 100.0, 100.0, 0.0, 0.0, 0.0)], None, cast(Any, engines))
    for _ in range(num_flows):
        flows.start(Route((0,), (1.0,), 0.0, 100.0), 100.0, ends_s.append)
    assert engines.left[0][-1] == pytest.approx(left)
    clock.run()
    assert ends_s[0] == pytest.approx(100.0 / rate)
    assert engines.left[0][-1] == 1.0


def test_an_engine_on_some_of_anothers_devices_slows_it_there_alone() -> None:
    """One model over four GPUs, a small one on each: two users a GPU, not five of all four together."""
    large, small = (1, 2, 3, 4), [(device,) for device in (1, 2, 3, 4)]
    replicas = [on_devices(*devices) for devices in (large, *small)]
    assert users_of_devices(replicas, range(5)) == ((0, 1), (0, 2), (0, 3), (0, 4))
    arrays = engines_in_a_group([1.0] * 5, num_columns=8, num_sets=4)
    arrays.device_columns[0] = [0, 2, 4, 6]
    arrays.device_columns[1:, 0] = [0, 2, 4, 6]
    for e in range(5):
        for column in arrays.device_columns[e]:
            if column >= 0:
                arrays.lane_demand[e, 0, column + 1] = 1.0
    retime(arrays.handle, 0, 0.0)
    assert arrays.lane_speed[:, 0] == pytest.approx([0.5] * 5)


def test_engines_on_the_same_devices_share_one_set() -> None:
    replicas = [on_devices(0, 1), on_devices(0, 1), on_devices(2)]
    assert users_of_devices(replicas, [0, 1]) == ((0, 1),)
    assert users_of_devices(replicas, [2]) == ((2,),)


def on_devices(*numbers: int) -> Replica:
    """What the sharing of devices asks of a replica: where it is."""
    return cast(Replica, SimpleNamespace(endpoints=tuple(gpu(number) for number in numbers)))
