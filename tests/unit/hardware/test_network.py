"""Routes, shares and collectives over small clusters whose figures are worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_sim.hardware.link import Link
from hermes_sim.hardware.network import Endpoint, Network, NetworkError, NoRouteError
from hermes_sim.hardware.node import NodeGroup


def link(name: str, kind: str, gb_per_s: float, latency_us: float, **more: Any) -> Link:
    source = {"title": "test", "where": "here", "kind": "estimate"}
    return Link.model_validate(
        {
            "name": name,
            "title": name,
            "kind": kind,
            "bandwidth": f"{gb_per_s} GB/s",
            "latency": f"{latency_us} us",
            "sources": {"bandwidth": source},
            **more,
        }
    )


LINKS = {
    "nvlink": link("nvlink", "nvlink", 300, 10, collective_latency="6 us", switched=True, efficiency_frac=0.8),
    "mesh": link("mesh", "xgmi", 64, 10),
    "pcie": link("pcie", "pcie", 32, 5),
    "upi": link("upi", "upi", 100, 1),
    "ib": link("ib", "infiniband", 25, 18, switched=True),
    "slow": link("slow", "ethernet", 10, 50, switched=True),
}


def node(name: str = "dgx", **more: Any) -> NodeGroup:
    description: dict[str, Any] = {
        "devices": {"gpu": {"profile": "g", "count": 8}, "cpu": {"profile": "c", "count": 2}},
        "links": [
            {"between": ["gpu", "gpu"], "profile": "nvlink"},
            {"between": ["gpu", "cpu"], "profile": "pcie"},
            {"between": ["cpu", "cpu"], "profile": "upi"},
        ],
    }
    return NodeGroup.model_validate(description | {"name": name} | more)


def gpu(index: int, node_index: int = 0, group: str = "dgx") -> Endpoint:
    return Endpoint(group, node_index, "gpu", index)


def cpu(index: int, node_index: int = 0, group: str = "dgx") -> Endpoint:
    return Endpoint(group, node_index, "cpu", index)


def names(network: Network, link_ids: tuple[int, ...]) -> list[str]:
    return [network.links[link_id].name for link_id in link_ids]


def test_gpus_talk_through_their_ports_of_the_switch() -> None:
    network = Network([node()], LINKS, None)
    route = network.route(gpu(3), gpu(5))
    assert names(network, route.link_ids) == ["dgx[0].gpu[3]->nvswitch", "dgx[0].nvswitch->gpu[5]"]
    assert route.latency_s == pytest.approx(10e-6)  # the profile's latency is end to end: half a port
    assert route.bandwidth_bytes_per_s == pytest.approx(300e9 * 0.8)
    assert route.share_frac == (1.0, 1.0)
    assert route.seconds(24e9) == pytest.approx(0.1 + 10e-6)


def test_each_gpu_hangs_on_its_own_socket() -> None:
    network = Network([node()], LINKS, None)
    assert names(network, network.route(gpu(3), cpu(0)).link_ids) == ["dgx[0].gpu[3]->cpu[0]"]
    assert names(network, network.route(gpu(4), cpu(1)).link_ids) == ["dgx[0].gpu[4]->cpu[1]"]
    # to the far socket: over the near one, not through a GPU of the far one
    far = network.route(gpu(3), cpu(1))
    assert names(network, far.link_ids) == ["dgx[0].gpu[3]->cpu[0]", "dgx[0].cpu[0]->cpu[1]"]
    assert far.bandwidth_bytes_per_s == 32e9
    assert far.latency_s == pytest.approx(6e-6)


def test_devices_do_not_forward_for_others() -> None:
    """Two sockets without a link between them are not joined by the GPUs that hang on both sides of NVSwitch."""
    split = node(
        links=[{"between": ["gpu", "gpu"], "profile": "nvlink"}, {"between": ["gpu", "cpu"], "profile": "pcie"}]
    )
    with pytest.raises(NoRouteError) as caught:
        Network([split], LINKS, None).route(cpu(0), cpu(1))
    assert str(caught.value) == (
        "no route from dgx[0].cpu[0] to dgx[0].cpu[1]: node 'dgx' needs a link {between: [cpu, cpu], profile: ...}"
    )


def test_gpus_without_nvlink_talk_over_the_host() -> None:
    plain = node(links=[{"between": ["cpu", "gpu"], "profile": "pcie"}, {"between": ["cpu", "cpu"], "profile": "upi"}])
    network = Network([plain], LINKS, None)
    assert names(network, network.route(gpu(0), gpu(1)).link_ids) == ["dgx[0].gpu[0]->cpu[0]", "dgx[0].cpu[0]->gpu[1]"]
    across = network.route(gpu(0), gpu(7))
    assert names(network, across.link_ids)[1] == "dgx[0].cpu[0]->cpu[1]"
    assert across.bandwidth_bytes_per_s == 32e9


def test_each_gpu_uses_its_own_nic() -> None:
    network = Network([node(count=2, uplinks_per_node=8)], LINKS, "ib")
    route = network.route(gpu(2), gpu(6, 1))
    assert names(network, route.link_ids) == [
        "dgx[0].gpu[2]->cpu[0]",
        "dgx[0].nic[2]->network",
        "network->dgx[1].nic[6]",
        "dgx[1].cpu[1]->gpu[6]",
    ]
    assert route.bandwidth_bytes_per_s == 25e9  # the NIC, not the 32 GB/s port
    assert route.latency_s == pytest.approx((5 + 18 + 5) * 1e-6)


def test_one_nic_serves_all_devices_and_both_sockets() -> None:
    network = Network([node(count=2)], LINKS, "ib")
    nic_links = {names(network, network.route(gpu(index), gpu(0, 1)).link_ids)[1] for index in range(8)}
    assert nic_links == {"dgx[0].nic[0]->network"}
    assert names(network, network.route(cpu(1), cpu(1, 1)).link_ids) == [
        "dgx[0].nic[0]->network",
        "network->dgx[1].nic[0]",
    ]


def test_a_nodes_own_uplink_wins_over_the_clusters() -> None:
    network = Network([node(), node("far", uplink="slow")], LINKS, "ib")
    route = network.route(gpu(0), gpu(0, group="far"))
    assert route.bandwidth_bytes_per_s == 10e9
    assert route.latency_s == pytest.approx((5 + 9 + 25 + 5) * 1e-6)


def test_no_route_between_nodes_without_a_network() -> None:
    with pytest.raises(NoRouteError) as caught:
        Network([node(), node("far", uplink="ib")], LINKS, None).route(gpu(0, group="far"), gpu(0))
    assert str(caught.value) == (
        "no route from far[0].gpu[0] to dgx[0].gpu[0]: node 'dgx' has no `uplink`, and the cluster no `network`"
    )
    unlinked = node(links=[{"between": ["gpu", "gpu"], "profile": "nvlink"}])
    with pytest.raises(NoRouteError, match="a device has no link to the rest of its node"):
        Network([unlinked, node("far")], LINKS, "ib").route(gpu(0), gpu(0, group="far"))


def test_unknown_devices_and_groups_are_refused() -> None:
    network = Network([node()], LINKS, None)
    with pytest.raises(NoRouteError, match=r"there is no device dgx\[0\]\.gpu\[8\] in this cluster"):
        network.route(gpu(0), gpu(8))
    wrong = node(links=[{"between": ["gpu", "tpu"], "profile": "pcie"}])
    with pytest.raises(NetworkError, match="node 'dgx' links 'tpu', which is not one of its device groups"):
        Network([wrong], LINKS, None)
    huge = node(devices={"gpu": {"profile": "g", "count": 65}}, links=[{"between": ["gpu", "gpu"], "profile": "mesh"}])
    with pytest.raises(NetworkError, match="links 65 'gpu' in pairs: beyond 64 it takes a switched link, which 'mesh'"):
        Network([huge], LINKS, None)


def test_the_same_device_needs_no_link() -> None:
    route = Network([node()], LINKS, None).route(gpu(0), gpu(0))
    assert (route.link_ids, route.latency_s, route.bandwidth_bytes_per_s) == ((), 0.0, math.inf)
    assert route.seconds(1e12) == 0.0


def test_the_quickest_of_two_parallel_links_is_used_and_counts_multiply() -> None:
    both = node(
        devices={"gpu": {"profile": "g", "count": 2}},
        links=[
            {"between": ["gpu", "gpu"], "profile": "mesh", "count": 3},
            {"between": ["gpu", "gpu"], "profile": "pcie"},
        ],
    )
    network = Network([both], LINKS, None)
    route = network.route(gpu(0), gpu(1))
    assert network.links[route.link_ids[0]].profile == "mesh"
    assert route.bandwidth_bytes_per_s == 3 * 64e9


def test_groups_with_a_switch_each_are_not_joined() -> None:
    """Two device groups on NVLink have two switches: between them the host's ports are the way."""
    devices = {"gpu": {"profile": "g", "count": 2}, "old": {"profile": "o", "count": 2}, "cpu": {"profile": "c"}}
    links = [
        {"between": ["gpu", "gpu"], "profile": "nvlink"}, {"between": ["old", "old"], "profile": "nvlink"},
        {"between": ["gpu", "cpu"], "profile": "pcie"}, {"between": ["old", "cpu"], "profile": "pcie"},
    ]  # fmt: skip
    network = Network([node(devices=devices, links=links)], LINKS, None)
    route = network.route(gpu(0), Endpoint("dgx", 0, "old", 1))
    assert names(network, route.link_ids) == ["dgx[0].gpu[0]->cpu[0]", "dgx[0].cpu[0]->old[1]"]


endpoints = st.builds(Endpoint, st.just("dgx"), st.integers(0, 1), st.sampled_from(["gpu", "cpu"]), st.integers(0, 1))


@given(endpoints, endpoints, st.sampled_from([1, 2, 3, 8]))
def test_routes_are_symmetric(source: Endpoint, target: Endpoint, num_nics: int) -> None:
    network = Network([node(count=2, uplinks_per_node=num_nics)], LINKS, "ib")
    there, back = network.route(source, target), network.route(target, source)
    assert there.latency_s == pytest.approx(back.latency_s)
    assert there.bandwidth_bytes_per_s == back.bandwidth_bytes_per_s
    assert len(there.link_ids) == len(back.link_ids)
    assert not set(there.link_ids) & set(back.link_ids)  # the two directions share nothing


def test_shards_use_all_ports_between_nodes() -> None:
    network = Network([node(count=2, uplinks_per_node=8)], LINKS, "ib")
    group = network.group_route([gpu(index) for index in range(4)], [gpu(index, 1) for index in range(4)])
    assert group.bandwidth_bytes_per_s == pytest.approx(4 * 25e9)
    assert set(group.share_frac) == {0.25}
    assert len(group.link_ids) == 4 * 4


def test_shards_that_share_a_nic_share_its_bandwidth() -> None:
    network = Network([node(count=2)], LINKS, "ib")
    group = network.group_route([gpu(index) for index in range(4)], [gpu(index, 1) for index in range(4)])
    assert group.bandwidth_bytes_per_s == pytest.approx(25e9)
    shares = dict(zip(names(network, group.link_ids), group.share_frac, strict=True))
    assert shares["dgx[0].nic[0]->network"] == 1.0
    assert shares["dgx[0].gpu[1]->cpu[0]"] == 0.25


def test_unequal_groups_pair_in_order() -> None:
    """Four shards to two devices: devices 0 and 1 go to the first, 2 and 3 to the second."""
    network = Network([node()], LINKS, None)
    group = network.group_route([gpu(0), gpu(1), gpu(2), gpu(3)], [gpu(4), gpu(5)])
    shares = dict(zip(names(network, group.link_ids), group.share_frac, strict=True))
    assert shares["dgx[0].gpu[1]->nvswitch"] == 0.25
    assert shares["dgx[0].nvswitch->gpu[4]"] == 0.5
    assert group.bandwidth_bytes_per_s == pytest.approx(240e9 / 0.5)


def test_shards_that_stay_where_they_are_cost_nothing() -> None:
    network = Network([node()], LINKS, None)
    assert network.group_route([gpu(0), gpu(1)], [gpu(0), gpu(1)]).seconds(1e12) == 0.0
    half = network.group_route([gpu(0), gpu(1)], [gpu(0), gpu(2)])
    assert half.bandwidth_bytes_per_s == pytest.approx(2 * 240e9)


def test_tensor_parallel_on_a_switch_has_the_whole_port() -> None:
    group = Network([node()], LINKS, None).tp_link([gpu(index) for index in range(8)])
    assert group.bandwidth_bytes_per_s == pytest.approx(240e9)
    assert group.latency_s == pytest.approx(6e-6)  # inside a captured graph, where a transfer takes 10 us
    assert (group.switched, group.crosses_nodes) == (True, False)


def test_tensor_parallel_on_a_mesh_uses_every_link() -> None:
    mesh = node(devices={"gpu": {"profile": "g", "count": 8}}, links=[{"between": ["gpu", "gpu"], "profile": "mesh"}])
    network = Network([mesh], LINKS, None)
    assert network.tp_link([gpu(index) for index in range(8)]).bandwidth_bytes_per_s == 7 * 64e9
    pair = network.tp_link([gpu(0), gpu(1)])
    assert (pair.bandwidth_bytes_per_s, pair.switched) == (64e9, False)


def test_tensor_parallel_over_pairs_is_bound_by_what_joins_the_pairs() -> None:
    """Bridges inside pairs, PCI Express between them: four devices go at the pace of the slowest hop, two do not."""
    links = [
        {"between": ["gpu", "gpu"], "profile": "mesh", "devices_joined": 2},
        {"between": ["gpu", "cpu"], "profile": "pcie"},
        {"between": ["cpu", "cpu"], "profile": "upi"},
    ]
    network = Network([node(links=links)], LINKS, None)
    assert network.tp_link([gpu(0), gpu(1)]).bandwidth_bytes_per_s == 64e9
    four = network.tp_link([gpu(index) for index in range(4)])
    assert (four.bandwidth_bytes_per_s, four.switched) == (32e9, False)
    assert four.latency_s == pytest.approx(10e-6)
    assert network.route(gpu(1), gpu(2)).bandwidth_bytes_per_s == 32e9


def test_tensor_parallel_over_pcie_is_bound_by_the_ports() -> None:
    plain = node(links=[{"between": ["gpu", "cpu"], "profile": "pcie"}, {"between": ["cpu", "cpu"], "profile": "upi"}])
    group = Network([plain], LINKS, None).tp_link([gpu(index) for index in range(8)])
    assert group.bandwidth_bytes_per_s == 32e9
    assert group.latency_s == pytest.approx(11e-6)  # port, UPI, port on the two hops between sockets
    assert not group.switched


def test_tensor_parallel_across_nodes_has_a_ring_per_nic() -> None:
    members = [gpu(index, node_index) for node_index in range(2) for index in range(8)]
    eight = Network([node(count=2, uplinks_per_node=8)], LINKS, "ib").tp_link(members)
    assert eight.bandwidth_bytes_per_s == pytest.approx(8 * 25e9)
    assert eight.crosses_nodes
    sixteen = Network([node(count=2, uplinks_per_node=16)], LINKS, "ib").tp_link(members)
    assert sixteen.bandwidth_bytes_per_s == pytest.approx(8 * 25e9)  # eight GPUs use eight of them
    one = Network([node(count=2)], LINKS, "ib").tp_link(members)
    assert one.bandwidth_bytes_per_s == pytest.approx(25e9)
    assert one.latency_s == pytest.approx((5 + 18 + 5) * 1e-6)


def test_all_to_all_across_nodes_goes_through_each_devices_own_share_of_nics() -> None:
    """Two nodes of eight: 8 of the 15 messages of a device leave its node."""
    members = [gpu(index, node_index) for node_index in range(2) for index in range(8)]
    for num_nics, nics_bytes_per_s in ((8, 8 * 25e9), (1, 25e9)):
        group = Network([node(count=2, uplinks_per_node=num_nics)], LINKS, "ib").tp_link(members)
        assert group.exchange_bytes_per_s == pytest.approx(nics_bytes_per_s / 8 * 15 / 8)
    inside = Network([node()], LINKS, None).tp_link(members[:8])
    assert inside.exchange_bytes_per_s == inside.bandwidth_bytes_per_s


def test_one_device_needs_no_collective() -> None:
    network = Network([node()], LINKS, None)
    for alone in (network.tp_link([gpu(0)]), network.pp_link([gpu(0)], 1)):
        assert (alone.bandwidth_bytes_per_s, alone.latency_s, alone.crosses_nodes) == (math.inf, 0.0, False)


def test_pipeline_stages_hand_on_over_their_slowest_hop() -> None:
    network = Network([node(count=2, uplinks_per_node=8)], LINKS, "ib")
    inside = network.pp_link([gpu(index) for index in range(8)], tp=2)
    assert inside.bandwidth_bytes_per_s == pytest.approx(240e9)
    assert inside.latency_s == pytest.approx(10e-6)
    across = network.pp_link([*(gpu(index) for index in range(8)), *(gpu(index, 1) for index in range(8))], tp=8)
    assert across.bandwidth_bytes_per_s == pytest.approx(25e9)
    assert across.crosses_nodes
    assert across.latency_s == pytest.approx(28e-6)
