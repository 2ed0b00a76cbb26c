"""Engine instances: costs follow the links that each of them has."""

from __future__ import annotations

import numpy as np

from hermes_sim.perf.operator_rows import NETWORK
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import lower
from hermes_sim.workload.requests import request_table
from tests import scenarios as s


def test_a_replica_over_two_nodes_pays_for_its_slower_links() -> None:
    # two nodes of three GPUs, three replicas of two: the third has one GPU in each node
    cluster = s.cluster(s.llm(replicas=3, placement={"gpu": 2}, parallel={"tp": 2}), num_gpus=3, network="ib_hdr")
    cluster["nodes"][0]["count"] = 2
    replicas = lower(load_scenario(cluster, s.workload()), request_table([0.0], [10], [5])).replicas
    assert [replica.link.crosses_nodes for replica in replicas] == [False, False, True]
    network_s = [replica.cost.linear[1000, NETWORK] for replica in replicas if replica.cost is not None]
    assert network_s[0] == network_s[1]
    assert network_s[2] > 2 * network_s[0]
    assert np.isfinite(network_s).all()
