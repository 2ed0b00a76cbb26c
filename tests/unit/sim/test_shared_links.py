"""Which links collectives keep busy, who shares them, and that sharing slows both."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.hardware.network import Endpoint, Network
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.workload.generate import generate_requests
from tests import scenarios as s
from tests.properties.test_exact_steps import TWO_DEVICES, racks, without_nvlink
from tests.unit.hardware.test_network import LINKS, gpu, node


def by_name(network: Network, loads: dict[int, float]) -> dict[str, float]:
    return {network.links[link_id].name: load for link_id, load in loads.items()}


def test_a_ring_over_a_switch_sends_all_through_every_port() -> None:
    network = Network([node()], LINKS, None)
    loads = by_name(network, network.ring_loads([gpu(0), gpu(1), gpu(2)]))
    assert len(loads) == 6
    assert set(loads.values()) == {1.0}


def test_a_full_mesh_has_a_part_on_every_link() -> None:
    mesh = node(links=[{"between": ["gpu", "gpu"], "profile": "mesh"}])
    network = Network([mesh], LINKS, None)
    loads = network.ring_loads([gpu(0), gpu(1), gpu(2)])
    assert len(loads) == 6
    assert set(loads.values()) == {0.5}


def test_across_nodes_every_nic_carries_its_ring() -> None:
    network = Network([node(count=2, uplinks_per_node=8)], LINKS, "ib")
    ends = [gpu(index, number) for number in (0, 1) for index in range(4)]
    loads = by_name(network, network.ring_loads(ends))
    nics = {name: load for name, load in loads.items() if "nic" in name}
    assert len(nics) == 2 * 4 * 2  # out and in, of four NICs of either node
    assert set(nics.values()) == {0.25}
    assert loads["dgx[0].gpu[1]->nvswitch"] == 1.0


def test_an_exchange_sends_what_leaves_the_node_through_the_devices_own_nic() -> None:
    network = Network([node(count=2, uplinks_per_node=8)], LINKS, "ib")
    ends = [Endpoint("dgx", number, "gpu", index) for number in (0, 1) for index in range(4)]
    loads = by_name(network, network.exchange_loads(ends[:1], ends))
    assert loads["dgx[0].nic[0]->network"] == pytest.approx(4 / 7)
    assert loads["network->dgx[0].nic[0]"] == pytest.approx(4 / 7)
    assert loads["dgx[0].gpu[0]->nvswitch"] == pytest.approx(3 / 7)


def lowered(cluster: s.Document, workload: s.Document) -> Lowered:
    scenario = load_scenario(cluster, workload)
    return lower(scenario, generate_requests(scenario.workload.traffic, scenario.seed))


def test_a_token_keeps_a_link_busy_for_its_bytes() -> None:
    # Llama 3 8B over two devices: an all-reduce of 4,096 x 2 bytes after the embedding and twice in each of 32 layers,
    # 2 (p - 1) / p = 1 of it through each port
    apart = [s.llm(kind, serves=[kind], **TWO_DEVICES) for kind in ("prefill", "decode")]
    run = lowered(without_nvlink(*apart), s.workload())
    token_s = {token_s for loads in run.shared_links.loads for token_s in loads.values()}
    assert len(token_s) == 1
    link = run.network.links[next(iter(run.shared_links.loads[0]))]
    assert token_s.pop() == pytest.approx((1 + 2 * 32) * 4096 * 2 / link.bandwidth_bytes_per_s)


def test_engines_without_a_link_in_common_stay_alone() -> None:
    run = lowered(s.cluster(s.llm(replicas=2, **TWO_DEVICES)), s.workload())
    assert [len(group) for group in run.shared_links.groups] == [1, 1]
    assert run.shared_links.listeners == set()
    assert not run.state.group_contended.any()


def test_engines_over_the_same_uplinks_slow_each_other() -> None:
    def workload(num_requests: int) -> s.Document:
        lengths: dict[str, Any] = {"kind": "fixed", "num_prompt_tokens": 2000, "num_output_tokens": 1}
        arrivals = {"kind": "constant", "rate": "1000 /s"}
        return s.workload(traffic={"arrivals": arrivals, "num_requests": num_requests, "lengths": lengths})

    # an engine on one node, then two pairs, each over two racks of which they share the one in the middle
    cluster = racks(s.llm("small"), s.llm("wide", replicas=2, **TWO_DEVICES))
    cluster["routing"] = {"kind": "round_robin"}
    groups = lowered(cluster, workload(3)).shared_links.groups
    assert sorted(map(len, groups)) == [1, 2]
    both = simulate_scenario(load_scenario(cluster, workload(3))).visits
    alone = simulate_scenario(load_scenario(cluster, workload(2))).visits
    prefill = both["kind"] == "prefill"
    wide = dict(zip(both["engine"][prefill], both["network_s"][prefill], strict=True))
    was = dict(zip(alone["engine"], alone["network_s"], strict=False))
    assert wide["wide[0]"] > 1.3 * was["wide[0]"]
