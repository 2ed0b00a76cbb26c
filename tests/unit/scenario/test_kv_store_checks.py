"""KV stores of a cluster and the stages that ask them: one clear error each."""

from __future__ import annotations

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import load_scenario
from tests import scenarios as s

HOST = {
    "name": "host", "medium": "host_dram", "capacity": "1 GB", "read_bandwidth": "1 GB/s", "write_bandwidth": "1 GB/s",
    "attached_to": "cpu",
}  # fmt: skip
RACK = {**HOST, "name": "rack", "medium": "rack", "shared_by": "rack", "nodes_per_rack": 1, "node": "node"}
RECALL = {"name": "recall", "kind": "kv_retrieval", "stores": ["host"]}
BEHIND = {**s.PREFILL, "after": ["recall"]}


def load(*stores: s.Document, recall: s.Document = RECALL, prefill: s.Document = BEHIND) -> None:
    load_scenario(s.cluster(s.llm(), kv_stores=list(stores)), s.workload(recall, prefill, s.DECODE))


def test_as_they_should_be() -> None:
    load({**HOST, "evict_to": "rack"}, RACK, recall={**RECALL, "stores": ["host", "rack"]})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"attached_to": "cpus"}, r"attached_to: node 'node' has no 'cpus' \(gpu, cpu\). Did you mean 'cpu'\?"),
        ({"attached_to": None}, "engines share it over links: give `attached_to`"),
        ({"shared_by": "rack"}, "goes with shared_by: rack"),
        ({"shared_by": "cluster"}, "what a cluster shares stands somewhere: give `node` and `attached_to`"),
        ({"shared_by": "cluster", "node": "nod"}, r"node: there is no node 'nod' \(node\). Did you mean 'node'\?"),
        ({"node": "node"}, "stands in its own node: leave `node` out"),
        ({"eviction": "ttl"}, "ttl goes with eviction: ttl"),
        ({"evict_to": "hots"}, r"evict_to: there is no store 'hots' \(host\). Did you mean 'host'\?"),
        ({"evict_to": "host"}, "stores evict to each other in a circle: host -> host"),
        ({"name": "llm"}, "a second engine or store named 'llm'"),
        ({"kv_dtype": "int3"}, "kv_dtype"),
        ({"sources": {"speed": {"title": "t", "where": "w", "kind": "estimate"}}}, "sources name 'speed'"),
    ],
)
def test_of_a_store(changes: s.Document, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load({**HOST, **changes})


@pytest.mark.parametrize(
    ("host", "rack", "problem"),
    [
        ({}, {"evict_to": "host"}, "'host' is shared by fewer than 'rack': which of them would get it"),
        ({"evict_to": "rack", "chunk_tokens": 64}, {}, "need chunks of one size, they have 64 and 256"),
        ({"chunk_tokens": 64}, {}, "stores that are asked together need chunks of one size: 64, 256"),
    ],
)
def test_of_two_stores(host: s.Document, rack: s.Document, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load({**HOST, **host}, {**RACK, **rack}, recall={**RECALL, "stores": ["host", "rack"]})


def test_each_rack_has_a_node_with_the_store() -> None:
    cluster = s.cluster(s.llm(node="node"), kv_stores=[{**RACK, "node": "storage"}])
    network = {"uplink": "ib_ndr"}
    cluster["nodes"] = [
        {**cluster["nodes"][0], **network, "count": 2},
        {"name": "storage", "devices": {"cpu": {"profile": "epyc_7742"}}, **network},
    ]
    stages = [{**RECALL, "stores": ["rack"]}, BEHIND, s.DECODE]
    with pytest.raises(ConfigError, match="3 racks need as many nodes 'storage', one each; there are 1"):
        load_scenario(cluster, s.workload(*stages))
    cluster["kv_stores"][0]["nodes_per_rack"] = 3
    load_scenario(cluster, s.workload(*stages))
    del cluster["nodes"][1]["uplink"]
    with pytest.raises(ConfigError, match="engine 'llm' cannot reach it: no route from storage"):
        load_scenario(cluster, s.workload(*stages))


@pytest.mark.parametrize(
    ("recall", "problem"),
    [
        ({"stores": ["hots"]}, r"the cluster has no KV store 'hots' \(host\). Did you mean 'host'\?"),
        ({"stores": ["host", "host"]}, "a store is there twice"),
        ({"hit_frac": 0.5}, "hit_frac and num_cached_tokens go together"),
        ({"hit_frac": [0.5, 0.2], "num_cached_tokens": 9}, "2 chances of a hit for 1 stores"),
    ],
)
def test_of_a_stage(recall: s.Document, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(HOST, recall={**RECALL, **recall})


def test_a_prefill_stands_directly_behind() -> None:
    with pytest.raises(ConfigError, match="'recall' needs one prefill behind it that waits for nothing else"):
        load(HOST, prefill=s.PREFILL)


def test_a_cluster_without_stores_says_so() -> None:
    with pytest.raises(ConfigError, match="the cluster has no KV store 'host': it has no `kv_stores`"):
        load()
