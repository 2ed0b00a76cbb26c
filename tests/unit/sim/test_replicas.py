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


def test_an_index_on_the_engines_own_gpu_eats_its_kv_blocks() -> None:
    """1e8 codes of 64 bytes, their ids, centroids and codebooks, on one of two GPUs; an index on the CPU takes none."""
    index = {"kind": "ivf_pq", "num_vectors": 1e8, "dim": 768, "nlist": 65536, "nprobe": 32, "code_bytes": 64}
    retrieve = {"name": "search", "kind": "retrieve", "top_k": 4, "tokens_per_document": 64, "index": index}
    stages = (retrieve, {"name": "prefill", "kind": "prefill", "after": ["search"]})
    model = s.llm(replicas=2, placement={"gpu": {"devices": 1, "cores": 80}})
    beside = {"name": "searcher", "serves": ["retrieve"], "placement": {"gpu": {"devices": 1, "cores": 28}}}
    requests = request_table([0.0], [10], [1])
    apart, shared = (
        lower(load_scenario(s.cluster(model, job), s.workload(*stages)), requests).replicas
        for job in (s.workers(["retrieve"]), beside)
    )
    blocks = [[replica.plan.num_blocks for replica in found if replica.plan is not None] for found in (apart, shared)]
    plan = apart[0].plan
    assert plan is not None
    index_bytes = 1e8 * 72 + 65536 * 768 * 4 + 256 * 768 * 4
    assert blocks[0][0] == blocks[0][1] == blocks[1][1]
    assert blocks[0][0] - blocks[1][0] in (index_bytes // plan.block_bytes, index_bytes // plan.block_bytes + 1)
