"""Clusters with one bottleneck built in, each with the words and the knob by which it should be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests import scenarios as s

NUM_REQUESTS = 60
FAST_LINKS = [
    {"between": ["gpu", "gpu"], "profile": "nvlink3"},
    {"between": ["gpu", "cpu"], "profile": "pcie4_x16"},
    {"between": ["cpu", "cpu"], "profile": "xgmi2_epyc"},
]


@dataclass(frozen=True)
class Case:
    """What is built, and what is to be found."""

    cluster: s.Document
    workload: s.Document
    owner: str
    resource: str
    words: str
    """The bottleneck begins so."""
    knob: str
    """What helps most begins so."""


def requests(prompt: int, output: int, rate: str) -> s.Document:
    """Lengths that vary little, so that one thing stays the bottleneck."""
    found = s.traffic(rate=rate, num_requests=NUM_REQUESTS, prompt=prompt, output=output)
    for side in ("prompt", "output"):
        found["lengths"][side]["cv"] = 0.2
    return found


def workload(prompt: int, output: int, rate: str, *stages: s.Document, **keys: Any) -> s.Document:
    return s.workload(*stages, traffic={**requests(prompt, output, rate), **keys})


def two_nodes(*engines: s.Document, uplink: str) -> s.Document:
    """Prompts on the first node, decodes on the second."""
    found = s.cluster(*engines, num_gpus=1, num_cpus=1)
    found["nodes"][0] |= {"count": 2, "links": FAST_LINKS[1:2], "uplink": uplink}
    return found


def without_nvlink(*engines: s.Document) -> s.Document:
    found = s.cluster(*engines)
    found["nodes"][0]["links"] = FAST_LINKS[1:]
    return found


STORE = {
    "name": "host", "medium": "host_dram", "capacity": "400 GB", "read_bandwidth": "300 GB/s",
    "write_bandwidth": "300 GB/s", "latency": "10 us", "attached_to": "cpu", "chunk_tokens": 64,
}  # fmt: skip
RECALL = [{"name": "recall", "kind": "kv_retrieval", "stores": ["host"]}, {**s.PREFILL, "after": ["recall"]}, s.DECODE]
TOOL = {
    "name": "tool", "kind": "timed", "after": ["decode"],
    "service_time": {"kind": "uniform", "low": "1 s", "high": "2 s"},
}  # fmt: skip
SHARED_PROMPTS = {
    "arrivals": {"kind": "poisson", "rate": "1 /s"}, "num_requests": NUM_REQUESTS,
    "lengths": {"kind": "fixed", "num_prompt_tokens": 32, "num_output_tokens": 2},
    "prefix": {"tokens": 3200, "groups": 1, "share": 1.0},
}  # fmt: skip
SCAN = {**s.RETRIEVE, "index": {"kind": "flat", "num_vectors": 4e6, "dim": 768}}

CASES: dict[str, Case] = {
    "HBM bandwidth": Case(
        s.cluster(s.llm()), workload(100, 200, "0.5 /s"),
        "llm", "memory", "memory bandwidth of llm", "memory bandwidth of a100_sxm_80gb",
    ),
    "compute": Case(
        s.cluster(s.llm()), workload(6000, 2, "1 /s"),
        "llm", "compute", "compute of llm", "compute of a100_sxm_80gb",
    ),
    "KV transfer": Case(
        two_nodes(
            s.llm("first", serves=["prefill"], model="llama_2_7b"),
            s.llm("second", serves=["decode"], model="llama_2_7b"),
            uplink="ethernet_25g"),
        workload(1500, 4, "0.3 /s"),
        "links", "link", "transfers over links", "bandwidth of ethernet_25g",
    ),
    "PCI Express": Case(
        s.cluster(s.llm(model="llama_2_7b", kv_cache={"prefix_caching": False}), kv_stores=[STORE]),
        s.workload(*RECALL, traffic=SHARED_PROMPTS),
        "host", "link", "transfers from the store host", "bandwidth of pcie4_x16",
    ),
    "retriever": Case(
        s.cluster(s.llm(), s.workers(["embed", "retrieve"], cores=64)),
        workload(100, 10, "0.2 /s", s.EMBED, SCAN, {**s.PREFILL, "after": ["retrieve"]}, s.DECODE),
        "jobs", "memory", "memory bandwidth of jobs", "memory bandwidth of epyc_7742",
    ),
    "KV memory": Case(
        s.cluster(s.llm(kv_cache={"num_gpu_blocks": 300})), workload(600, 200, "6 /s"),
        "llm", "kv", "KV memory of llm", "KV memory of llm",
    ),
    "batch limit": Case(
        s.cluster(s.llm(batching={"max_num_seqs": 10})), workload(100, 200, "20 /s"),
        "llm", "batch", "batch limit of llm (max_num_seqs 10)", "max_num_seqs of llm",
    ),
    "all-reduce": Case(
        without_nvlink(s.llm(placement={"gpu": 8}, parallel={"tp": 8})), workload(3000, 2, "2 /s"),
        "llm", "network", "network inside the steps of llm", "bandwidth of pcie4_x16",
    ),
    "tool": Case(
        s.cluster(s.llm(), s.workers(["timed"], "tools", max_batch_size=1)),
        workload(100, 20, "0.2 /s", s.PREFILL, s.DECODE, TOOL),
        "tools", "stated", "stated service times of tools", "service time of tool",
    ),
    "host": Case(
        s.cluster(s.llm(host={"per_step": "20 ms"})), workload(100, 100, "0.5 /s"),
        "llm", "host", "host time of llm", "host time of llm",
    ),
}  # fmt: skip
