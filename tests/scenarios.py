"""Small scenarios as dictionaries, for tests that run the whole simulator."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


def cluster(*engines: Document, num_gpus: int = 8, num_cpus: int = 2, **keys: Any) -> Document:
    """One node of A100s and EPYCs with these engines on it."""
    node = {
        "name": "node",
        "devices": {
            "gpu": {"profile": "a100_sxm_80gb", "count": num_gpus},
            "cpu": {"profile": "epyc_7742", "count": num_cpus},
        },
        "links": [
            {"between": ["gpu", "gpu"], "profile": "nvlink3"},
            {"between": ["gpu", "cpu"], "profile": "pcie4_x16"},
            {"between": ["cpu", "cpu"], "profile": "xgmi2_epyc"},
        ],
    }
    return {"name": "test", "nodes": [node], "engines": list(engines), **keys}


def llm(name: str = "llm", **keys: Any) -> Document:
    """A small model on one GPU."""
    return {"name": name, "serves": ["prefill", "decode"], "model": "llama_3_8b", "placement": {"gpu": 1}, **keys}


def workers(serves: list[str], name: str = "jobs", cores: int = 32, **batching: Any) -> Document:
    """A job engine on some cores of one CPU."""
    return {
        "name": name,
        "serves": serves,
        "placement": {"cpu": {"devices": 1, "cores": cores}},
        "batching": {"kind": "dynamic", **batching},
    }


def traffic(rate: str = "8 /s", num_requests: int = 60, prompt: int = 600, output: int = 80) -> Document:
    """Poisson arrivals, log-normal lengths."""
    return {
        "arrivals": {"kind": "poisson", "rate": rate},
        "num_requests": num_requests,
        "lengths": {
            "kind": "lognormal",
            "prompt": {"mean": prompt, "cv": 1.0},
            "output": {"mean": output, "cv": 1.0},
        },
    }


def workload(*stages: Document, **keys: Any) -> Document:
    """One pipeline of these stages; prefill -> decode if there are none."""
    document: Document = {"name": "test", "traffic": traffic(), **keys}
    if stages:
        document["pipelines"] = [{"name": "main", "stages": list(stages)}]
    return document


PREFILL = {"name": "prefill", "kind": "prefill"}
DECODE = {"name": "decode", "kind": "decode", "after": ["prefill"]}
EMBED = {"name": "embed", "kind": "embed", "model": "e5_base", "num_tokens": 64}
RETRIEVE = {
    "name": "retrieve", "kind": "retrieve", "after": ["embed"], "top_k": 4, "tokens_per_document": 128,
    "index": {"kind": "ivf_pq", "num_vectors": 1e7, "dim": 768, "nlist": 16384, "nprobe": 32, "code_bytes": 64},
}  # fmt: skip
RAG = [EMBED, RETRIEVE, {**PREFILL, "after": ["retrieve"]}, DECODE]
