"""Switches between nodes: paths, what they carry, how flows spread over them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from hermes_sim.hardware.fabric import Fabric
from hermes_sim.hardware.network import Network, NoRouteError, Route
from tests.unit.hardware.test_network import LINKS, gpu, names, node


def fabric(*levels: dict[str, Any], **more: Any) -> Fabric:
    return Fabric.model_validate({"levels": levels, **more})


RACK = {"name": "rack", "nodes": 2, "latency": "300 ns"}
SPINE = {"name": "spine", "switches": 4, "oversubscription": 2, "latency": "500 ns"}


def leaf_spine(**more: Any) -> Network:
    """Four nodes of eight NICs of 25 GB/s in two racks."""
    return Network([node(count=4, uplinks_per_node=8)], LINKS, "ib", fabric(RACK, SPINE, **more))


def between(network: Network, route: Route) -> list[str]:
    """Names of the switch links of a route."""
    return [name for name in names(network, route.link_ids) if "switch[" in name]


def test_inside_a_rack_a_flow_crosses_one_switch() -> None:
    network = leaf_spine()
    route = network.route(gpu(0), gpu(0, 1))
    assert between(network, route) == []
    assert route.latency_s == pytest.approx((5 + 18 + 5 + 0.3) * 1e-6)


def test_between_racks_it_crosses_three() -> None:
    network = leaf_spine()
    route = network.route(gpu(0), gpu(0, 2))
    up, down = between(network, route)
    spine = up.split("->")[1]
    assert up == f"rack[0].switch[0]->{spine}"
    assert down == f"{spine}->rack[1].switch[0]"
    assert route.latency_s == pytest.approx((5 + 18 + 5 + 0.3 + 0.5 + 0.3) * 1e-6)


def test_uplinks_carry_what_comes_from_below_over_the_oversubscription() -> None:
    # two nodes x 8 NICs x 25 GB/s = 400 GB/s into a leaf; 2 : 1 leaves 200 GB/s up, over four spines
    network = leaf_spine()
    uplinks = [link for link in network.links if link.name.startswith("rack[0].switch[0]->spine")]
    assert [link.bandwidth_bytes_per_s for link in uplinks] == pytest.approx([50e9] * 4)


def test_fat_tree_has_as_many_paths_as_its_levels_have_switches() -> None:
    three = fabric(
        {"name": "rack", "nodes": 1},
        {"name": "pod", "nodes": 2, "switches": 2},
        {"name": "core", "switches": 3},
    )
    network = Network([node(count=4)], LINKS, "ib", three)
    same_pod = {network.route(gpu(0), gpu(0, 1), flow_id).link_ids for flow_id in range(200)}
    other_pod = {network.route(gpu(0), gpu(0, 2), flow_id).link_ids for flow_id in range(200)}
    assert len(same_pod) == 2
    assert len(other_pod) == 2 * 3
    assert {len(between(network, network.route(gpu(0), gpu(0, 2), flow_id))) for flow_id in range(9)} == {4}
    # nothing is oversubscribed: all switches of a level together carry what the nodes send
    for level in ("rack", "pod"):
        total = sum(link.bandwidth_bytes_per_s for link in network.links if link.name.startswith(level)
                    and ("->pod" in link.name if level == "rack" else "->core" in link.name))  # fmt: skip
        assert total == pytest.approx(4 * 25e9)


def test_ecmp_spreads_flows_evenly_and_always_the_same_way() -> None:
    network, again = leaf_spine(), leaf_spine()
    taken = [between(network, network.route(gpu(1), gpu(5, 3), flow_id))[0] for flow_id in range(4000)]
    counts = Counter(taken)
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) < 200  # binomial: 6.6 standard deviations of 27
    assert taken == [between(again, again.route(gpu(1), gpu(5, 3), flow_id))[0] for flow_id in range(4000)]


def test_a_static_route_belongs_to_the_target() -> None:
    network = leaf_spine(routing="static")
    ways = {between(network, network.route(gpu(index), gpu(5, 3), index))[0] for index in range(8)}
    assert len(ways) == 1
    spines = Counter(between(network, network.route(gpu(0), gpu(index, 3)))[0] for index in range(8))
    assert sorted(spines.values()) == [2, 2, 2, 2]


def test_a_spread_flow_has_a_part_on_every_path() -> None:
    network = leaf_spine(routing="spray")
    route = network.route(gpu(0), gpu(0, 2))
    shares = dict(zip(names(network, route.link_ids), route.share_frac, strict=True))
    assert [share for name, share in shares.items() if "spine" in name] == [0.25] * 8
    assert route.latency_s == pytest.approx((5 + 18 + 5 + 0.3 + 0.5 + 0.3) * 1e-6)
    assert route.bandwidth_bytes_per_s == 25e9  # the NIC; 4 x 50 GB/s are more


def test_rails_join_equal_nics_without_a_spine() -> None:
    network = leaf_spine(rails=8)
    assert between(network, network.route(gpu(3), gpu(3, 1))) == []
    assert len(between(network, network.route(gpu(3), gpu(4, 1)))) == 2
    uplinks = [link for link in network.links if link.name.startswith("rack[0].switch[3]->spine")]
    assert [link.bandwidth_bytes_per_s for link in uplinks] == pytest.approx([2 * 25e9 / 2 / 4] * 4)


def test_a_ring_over_racks_has_the_bandwidth_of_the_uplinks() -> None:
    inside, over = leaf_spine(), leaf_spine()
    rack = [gpu(index, number) for number in (0, 1) for index in range(8)]
    all_nodes = [gpu(index, number) for number in range(4) for index in range(8)]
    assert inside.tp_link(rack).bandwidth_bytes_per_s == 200e9
    # one ring hop of eight NICs leaves each rack: 200 GB/s, which 400 / 2 GB/s up carry
    assert over.tp_link(all_nodes).bandwidth_bytes_per_s == 200e9
    # an exchange sends 16 of 31 messages of each of 16 devices through the uplinks
    assert over.tp_link(all_nodes).exchange_bytes_per_s == pytest.approx(200e9 / (16 * 16 / 31))
    slower = Network([node(count=4, uplinks_per_node=8)], LINKS, "ib", fabric(RACK, SPINE | {"oversubscription": 8}))
    assert slower.tp_link(all_nodes).bandwidth_bytes_per_s == pytest.approx(50e9)


def test_paths_round_a_dead_link() -> None:
    network = leaf_spine()
    route = network.group_route([gpu(0)], [gpu(0, 2)], 7)
    up = next(link_id for link_id in route.link_ids if "->spine" in network.links[link_id].name)
    other = network.way_round(route, frozenset({up}))
    assert other is not None
    assert up not in other.link_ids
    assert other.latency_s == pytest.approx(route.latency_s)
    uplinks = frozenset(link.id for link in network.links if link.name.startswith("rack[0].switch[0]->spine"))
    assert network.way_round(route, uplinks) is None
    with pytest.raises(NoRouteError, match="every path over the switches is dead"):
        network.group_route([gpu(0)], [gpu(0, 2)], 7, uplinks)


@pytest.mark.parametrize(
    ("levels", "more", "message"),
    [
        ([RACK], {}, "joins all nodes"),
        ([{"name": "a"}, {"name": "b"}], {}, "say how many"),
        ([{"name": "a", "nodes": 4}, {"name": "b", "nodes": 6}, {"name": "c"}], {}, "multiple"),
        ([RACK, SPINE | {"name": "rack"}], {}, "one name"),
        ([RACK | {"switches": 2}, SPINE], {}, "rails"),
        ([{"name": "a"}], {"rails": 2}, "joined by a level"),
    ],
)
def test_fabrics_that_make_no_sense(levels: list[dict[str, Any]], more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fabric(*levels, **more)
