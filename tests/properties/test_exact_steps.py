"""Many steps per call and one event per step are the same program: equal tables, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hermes_sim.batching import QUEUE_ORDERS, TOKEN_POLICIES
from hermes_sim.core.errors import ConfigError
from hermes_sim.core.tables import RunTables
from hermes_sim.routing.table import ROUTERS
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s

SCAN = {**s.RETRIEVE, "index": {"kind": "flat", "num_vectors": 2e6, "dim": 768}}
"""Every query reads 6 GB: a few at a time fill the memory bandwidth."""
FEW_BLOCKS = {"num_gpu_blocks": 260}
"""Less than a batch of the usual traffic wants."""
BUSY = s.workload(traffic=s.traffic(rate="30 /s", num_requests=60))
TWO_SAMPLES = {**s.DECODE, "num_samples": 3}
THOUGHTS = [
    {**s.DECODE, "name": "think", "writes": "thought", "num_output_tokens": {"kind": "lognormal", "mean": 60, "cv": 1}},
    {**s.DECODE, "after": ["think"]},
]
HOP = [
    {**s.RETRIEVE, "after": []}, {**s.PREFILL, "after": ["retrieve"]},
    {**s.DECODE, "name": "write", "num_output_tokens": 20},
]  # fmt: skip
ROUNDS = [
    s.PREFILL, *THOUGHTS,
    {"name": "hop", "kind": "repeat", "after": ["decode"], "rounds": {"kind": "uniform", "low": 0, "high": 3},
     "stages": HOP},
]  # fmt: skip
CASCADE = [
    {"name": "route", "kind": "route", "by": "load", "outcomes": {"small": 1, "large": 2}},
    {"name": "ask_small", "kind": "prefill", "model": "llama_3_8b", "after": ["route"], "when": "route.small"},
    {"name": "small", "kind": "decode", "model": "llama_3_8b", "after": ["ask_small"]},
    {"name": "ask_large", "kind": "prefill", "model": "qwen-2-7b", "after": ["route"], "when": "route.large"},
    {"name": "large", "kind": "decode", "model": "qwen-2-7b", "after": ["ask_large"]},
]
TOOL = {
    "name": "tool", "kind": "timed", "after": ["decode"], "num_result_tokens": 50,
    "service_time": {"kind": "exponential", "mean": "300 ms"},
}  # fmt: skip
AGENT = [
    {"name": "turn", "kind": "repeat", "rounds": {"kind": "uniform", "low": 1, "high": 3},
     "stages": [s.PREFILL, {**s.DECODE, "num_output_tokens": 30}, TOOL]},
    {**s.PREFILL, "after": ["turn"]}, s.DECODE,
]  # fmt: skip
SEARCH = [
    {"name": "search", "kind": "tree_search", "model": "llama_3_8b", "verifier": "qwen-2-7b", "num_beams": 2,
     "width": 3, "rounds": {"kind": "uniform", "low": 1, "high": 3}, "num_lookahead_tokens": 10,
     "num_output_tokens": {"kind": "lognormal", "mean": 30, "cv": 1}, "num_verdict_tokens": 2},
    {**s.PREFILL, "model": "llama_3_8b", "after": ["search"]}, {**s.DECODE, "model": "llama_3_8b"},
]  # fmt: skip
SHARED = {"prefix": {"tokens": 256, "groups": 3, "share": 0.8}, "clients": {"count": 3, "skew": 1.0}}
FIXED = {"kind": "fixed", "num_prompt_tokens": 300, "num_output_tokens": 40}
DRAFTS = {"num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.7}, "draft": {"kind": "ngram"}}


def from_elsewhere(count: int = 1, **draft: Any) -> s.Document:
    """Drafts from GPUs of their own in the same node."""
    model = {"kind": "model", "model": "vicuna_68m", "on": {"device": "gpu", "count": count}, **draft}
    return {"num_draft_tokens": 4, "acceptance": {"kind": "constant", "rate": 0.8}, "draft": model}


FRONT_END = {
    "tokenize": {"per_request": "1 ms", "per_token": "2 us", "num_workers": 2}, "detokenize": {"per_message": "20 us"},
    "stream_interval": 4,
}  # fmt: skip
STORES = [
    {"name": "host", "medium": "host_dram", "capacity": "1 GB", "read_bandwidth": "8 GB/s", "write_bandwidth": "4 GB/s",
     "latency": "20 us", "attached_to": "cpu", "evict_to": "rack", "chunk_tokens": 64},
    {"name": "rack", "medium": "rack", "capacity": "3 GB", "read_bandwidth": "3 GB/s", "write_bandwidth": "1 GB/s",
     "latency": "300 us", "shared_by": "cluster", "node": "node", "attached_to": "cpu", "chunk_tokens": 64,
     "eviction": "lfu", "kv_dtype": "fp8"},
]  # fmt: skip
"""Too small for what is written to them, and slow enough that transfers meet."""


TWO_DEVICES = {"placement": {"gpu": 2}, "parallel": {"tp": 2}}


def without_nvlink(*engines: s.Document, **keys: Any) -> s.Document:
    """Collectives and transfers cross the same PCI Express links."""
    found = s.cluster(*engines, **keys)
    found["nodes"][0]["links"] = found["nodes"][0]["links"][1:]
    return found


def racks(*engines: s.Document) -> s.Document:
    """Nodes of one GPU, two in a rack; behind an engine on one of them, pairs lie over two racks each."""
    found = s.cluster(*engines, num_gpus=1, num_cpus=1)
    levels = [{"name": "rack", "nodes": 2}, {"name": "spine", "switches": 2, "oversubscription": 4}]
    found["nodes"][0] |= {"count": 6, "links": found["nodes"][0]["links"][1:2], "uplink": "ethernet_100g"}
    return {**found, "fabric": {"levels": levels}}


def with_stores(*engines: s.Document, **keys: Any) -> s.Document:
    return s.cluster(*engines, kv_stores=STORES, **keys)


def recalled(decode: s.Document = s.DECODE, **keys: Any) -> list[s.Document]:
    """A pipeline that begins with a look-up."""
    recall = {"name": "recall", "kind": "kv_retrieval", "stores": ["host", "rack"], **keys}
    return [recall, {**s.PREFILL, "after": ["recall"]}, decode]


def engine(name: str = "llm", **batching: Any) -> s.Document:
    """Short of blocks, so that preemption is part of it."""
    return s.llm(name, kv_cache=FEW_BLOCKS, batching={"full_sequence_gate": False, **batching})


def with_cache(**kv_cache: Any) -> s.Document:
    return s.llm(kv_cache={**FEW_BLOCKS, **kv_cache}, batching={"full_sequence_gate": False})


def shared(**keys: Any) -> s.Document:
    """Prefixes and clients in common."""
    return s.workload(traffic={**s.traffic(rate="30 /s", num_requests=80), **SHARED, **keys})


def moe(**keys: Any) -> s.Document:
    return s.llm(model="qwen3_30b_a3b", placement={"gpu": 4}, batching={"async_scheduling": False}, **keys)


ADAPTERS = {"num_adapters": 6, "share": 0.9}

CASES: dict[str, tuple[s.Document, s.Document]] = {
    **{
        f"agents whose KV is {way}": (
            s.cluster(
                with_cache(while_waiting=way),
                s.workers(["timed"], num_workers=8, max_batch_size=1),
            ),
            s.workload(*AGENT, traffic=s.traffic(rate="10 /s", num_requests=40)),
        )
        for way in ("keep", "drop", "offload", "auto")
    },
    "sessions whose KV is kept": (
        s.cluster(with_cache(while_waiting="keep")),
        s.workload(traffic={**s.traffic(rate="10 /s"), "sessions": {"mean_num_turns": 3, "think_time": "1 s"}}),
    ),
    "searches": (
        s.cluster(
            s.llm(replicas=2, kv_cache=FEW_BLOCKS),
            s.llm("verifier", model="qwen-2-7b"),
            routing={"kind": "prefix_aware"},
        ),
        s.workload(*SEARCH, traffic=s.traffic(rate="10 /s", num_requests=40)),
    ),
    "a tree of steps": (
        s.cluster(with_cache(prefix_cache="radix", insert_at="step_end"), s.llm("verifier", model="qwen-2-7b")),
        s.workload({**SEARCH[0], "selection": "tree"}, *SEARCH[1:], traffic=s.traffic(rate="10 /s", num_requests=40)),
    ),
    "one engine": (s.cluster(s.llm()), s.workload()),
    "two engines, least tokens": (
        s.cluster(s.llm(replicas=2), routing={"kind": "least_outstanding_tokens"}),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=150)),
    ),
    "preemptions": (s.cluster(engine()), BUSY),
    "retrieval": (s.cluster(s.llm(), s.workers(["embed", "retrieve"], num_workers=3)), s.workload(*s.RAG)),
    "shared cores": (
        s.cluster(
            s.workers(["embed"], name="embedder", cores=32, max_wait="2 ms"),
            s.workers(["retrieve"], name="retriever", cores=32, num_workers=4),
            s.llm(replicas=2),
            num_cpus=1,
            routing={"kind": "power_of_two_choices"},
        ),
        s.workload(s.EMBED, SCAN, *s.RAG[2:], traffic=s.traffic(rate="20 /s", num_requests=100)),
    ),
    "disaggregated": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=2),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 500}),
        ),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=150)),
    ),
    "disaggregated, layer by layer into a full decode side": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=2),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 500}),
            kv_transfer={"mode": "layerwise", "reserve": "before_prefill", "first_token": "decode", "dtype": "fp8"},
        ),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=150)),
    ),
    "disaggregated, transfers over the links of collectives": (
        without_nvlink(
            s.llm("prefiller", serves=["prefill"], replicas=2, **TWO_DEVICES),
            s.llm("decoder", serves=["decode"], replicas=2, **TWO_DEVICES),
        ),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=120)),
    ),
    "disaggregated, DP ranks, transfers over the links of collectives": (
        without_nvlink(
            s.llm("prefiller", serves=["prefill"], **TWO_DEVICES),
            s.llm("decoder", serves=["decode"], placement={"gpu": 4}, parallel={"tp": 2, "dp": 2}),
        ),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=80)),
    ),
    "two engines over the uplinks of one rack": (
        racks(s.llm("small"), s.llm(name="wide", replicas=2, **{**TWO_DEVICES, "placement": {"gpu": 2}})),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=120)),
    ),
    "prefill waits for blocks to be granted": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=2, batching={"long_prefill_token_threshold": 256}),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 300}),
        ),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=300)),
    ),
    "disaggregated, several samples": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=2),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 400}),
        ),
        s.workload(s.PREFILL, TWO_SAMPLES, traffic=s.traffic(rate="20 /s", num_requests=60)),
    ),
    "thoughts and rounds": (
        s.cluster(engine(), s.workers(["embed", "retrieve"])), s.workload(*ROUNDS, traffic=BUSY["traffic"]),
    ),
    "thoughts, async": (
        s.cluster(engine(async_scheduling=True)), s.workload(s.PREFILL, *THOUGHTS, traffic=BUSY["traffic"]),
    ),
    "thoughts, decode elsewhere": (
        s.cluster(s.llm("p", serves=["prefill"]), s.llm("d", serves=["decode"], kv_cache={"num_gpu_blocks": 500})),
        s.workload(s.PREFILL, *THOUGHTS, traffic=s.traffic(rate="20 /s", num_requests=80)),
    ),
    "a cascade by load": (
        s.cluster(engine("a"), s.llm("b", model="qwen-2-7b"), routing={"kind": "least_outstanding_tokens"}),
        s.workload(*CASCADE, traffic=BUSY["traffic"]),
    ),
    "mixed": (
        s.cluster(s.llm("both"), s.llm("decoder", serves=["decode"]), s.llm("prefiller", serves=["prefill"])),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=100)),
    ),
    "several samples": (s.cluster(engine()), s.workload(s.PREFILL, TWO_SAMPLES, traffic=BUSY["traffic"])),
    "several samples, async": (
        s.cluster(engine(async_scheduling=True)), s.workload(s.PREFILL, TWO_SAMPLES, traffic=BUSY["traffic"]),
    ),
    "pipeline parallel": (
        s.cluster(s.llm(parallel={"pp": 4}, placement={"gpu": 4})),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=100)),
    ),
    "pipeline parallel, preemptions": (
        s.cluster(
            s.llm(
                parallel={"pp": 2, "tp": 2}, placement={"gpu": 4}, kv_cache=FEW_BLOCKS,
                batching={"full_sequence_gate": False, "long_prefill_token_threshold": 200},
            )
        ),
        BUSY,
    ),
    "data parallel": (
        s.cluster(s.llm(parallel={"dp": 2, "tp": 2}, placement={"gpu": 4}, kv_cache=FEW_BLOCKS), num_gpus=8),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=100)),
    ),
    "experts over data-parallel ranks": (
        s.cluster(moe(parallel={"dp": 4, "ep": 4}, experts={"kind": "zipf", "exponent": 0.5})),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=80)),
    ),
    "experts over tensor-parallel ranks": (s.cluster(moe(parallel={"tp": 4, "ep": 4})), BUSY),
    "async": (s.cluster(s.llm(batching={"async_scheduling": True})), BUSY),
    "async, preemptions": (s.cluster(engine(async_scheduling=True)), BUSY),
    "swap": (s.cluster(engine(preemption="swap")), BUSY),
    "swap with little room": (
        s.cluster(
            s.llm(
                kv_cache={**FEW_BLOCKS, "swap_space": "64 MiB"},
                batching={"full_sequence_gate": False, "preemption": "swap", "victim": "fewest_generated"},
            )
        ),
        BUSY,
    ),
    "radix": (s.cluster(with_cache(prefix_cache="radix", insert_at="step_end")), shared()),
    "hashes at the end of a step": (s.cluster(with_cache(insert_at="step_end")), shared()),
    "hashes at once": (s.cluster(with_cache()), shared()),
    "no prefix cache": (s.cluster(with_cache(prefix_caching=False)), shared()),
    "sliding windows beside full layers": (
        s.cluster(s.llm(model="gemma_2_9b", kv_cache={"num_gpu_blocks": 700}, batching={"full_sequence_gate": False})),
        shared(),
    ),
    "sliding windows only": (s.cluster(s.llm(model="mistral_7b", kv_cache=FEW_BLOCKS)), shared()),
    "drafts": (s.cluster(s.llm(speculative=DRAFTS)), BUSY),
    "drafts, preemptions": (
        s.cluster({**engine(), "speculative": {**DRAFTS, "adaptive": True, "tree_width": 2}}), BUSY,
    ),
    "drafts of a model": (
        s.cluster(
            s.llm(
                model="llama_3_70b", placement={"gpu": 4}, parallel={"tp": 4},
                speculative={
                    "num_draft_tokens": 4, "acceptance": {"kind": "per_position", "rates": [0.8, 0.6, 0.4, 0.2]},
                    "draft": {"kind": "model", "model": "llama_3_8b"}, "max_batch_size": 8,
                },
            )
        ),
        s.workload(),
    ),
    "drafts of another device": (s.cluster(s.llm(speculative=from_elsewhere())), BUSY),
    "drafted ahead, stopped early, preempted": (
        s.cluster({
            **engine(),
            "speculative": from_elsewhere(
                count=3, pre_drafting={"kind": "all_accepted"}, early_stop={"wrong_caught": 0.6, "right_lost": 0.1}
            ),
        }),
        BUSY,
    ),
    "drafted ahead behind an early exit, samples": (
        s.cluster(s.llm(speculative=from_elsewhere(pre_drafting={"kind": "early_exit", "agreement": 0.7}))),
        s.workload(s.PREFILL, TWO_SAMPLES),
    ),
    "drafts of another device, replicas that fail": (
        s.cluster(
            s.llm(replicas=2, speculative=from_elsewhere()),
            availability={
                "outages": [{"engine": "llm", "replica": 0, "at": "1 s", "lasts": "1 s"}], "detection": "50 ms",
            },
        ),
        BUSY,
    ),
    "drafts of another device, decode apart, prompts first": (
        s.cluster(
            s.llm("prefill", serves=["prefill"]),
            s.llm("decode", serves=["decode"], batching={"kind": "prefill_first"},
                  speculative=from_elsewhere(pre_drafting={"kind": "all_accepted", "bonus": "skipped"})),
        ),
        BUSY,
    ),
    "front end": (
        s.cluster(s.llm(host=FRONT_END, replicas=2), routing={"kind": "least_outstanding_tokens"}),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=100)),
    ),
    "closed loop": (
        s.cluster(s.llm(replicas=2)),
        s.workload(
            traffic={
                "closed_loop": {"concurrency": 6, "think_time": "50 ms", "think_time_cv": 1.0},
                "num_requests": 60,
                "lengths": FIXED,
            }
        ),
    ),
    "closed loop without pauses": (
        s.cluster(s.llm(replicas=2)),
        s.workload(
            traffic={
                "closed_loop": {"concurrency": 24},
                "num_requests": 300,
                "lengths": {"kind": "lognormal", "prompt": {"mean": 500, "cv": 1.0}, "output": {"mean": 60, "cv": 1.0}},
            }
        ),
    ),
    "closed loop of equal requests": (
        s.cluster(s.llm(replicas=2, batching={"async_scheduling": True})),
        s.workload(traffic={"closed_loop": {"concurrency": 12}, "num_requests": 90, "lengths": FIXED}),
    ),
    "closed loop of equal requests, front end": (
        s.cluster(s.llm(replicas=2, host=FRONT_END)),
        s.workload(traffic={"closed_loop": {"concurrency": 12}, "num_requests": 90, "lengths": FIXED}),
    ),
    "closed loop of equal requests, retrieval": (
        s.cluster(s.llm(), s.workers(["embed", "retrieve"], num_workers=2)),
        s.workload(*s.RAG, traffic={"closed_loop": {"concurrency": 8}, "num_requests": 40, "lengths": FIXED}),
    ),
    "closed loop of equal requests, disaggregated": (
        s.cluster(s.llm("prefiller", serves=["prefill"], replicas=2), s.llm("decoder", serves=["decode"])),
        s.workload(traffic={"closed_loop": {"concurrency": 8}, "num_requests": 60, "lengths": FIXED}),
    ),
    "a constant rate of equal requests": (
        s.cluster(s.llm(replicas=2)),
        s.workload(traffic={"arrivals": {"kind": "constant", "rate": "20 /s"}, "num_requests": 80, "lengths": FIXED}),
    ),
    "sessions": (
        s.cluster(s.llm(replicas=2), routing={"kind": "prefix_aware"}),
        s.workload(traffic={**s.traffic(rate="4 /s"), "sessions": {"mean_num_turns": 4, "think_time": "0.5 s"}}),
    ),
    "KV stores": (
        with_stores(s.llm(replicas=2), routing={"kind": "least_outstanding_tokens"}),
        s.workload(
            *recalled(), traffic={**s.traffic(rate="6 /s"), "sessions": {"mean_num_turns": 4, "think_time": "0.2 s"}}
        ),
    ),
    "KV stores, preemptions": (
        with_stores({**engine(), "kv_cache": {**FEW_BLOCKS, "prefix_caching": False}}),
        s.workload(*recalled(write="all"), traffic={**s.traffic(rate="30 /s"), **SHARED}),
    ),
    "KV stores, fastest, disaggregated": (
        with_stores(s.llm("prefiller", serves=["prefill"], replicas=2), s.llm("decoder", serves=["decode"])),
        s.workload(*recalled(policy="fastest"), traffic={**s.traffic(rate="20 /s"), **SHARED}),
    ),
    "KV stores, fastest, front end, samples": (
        with_stores(
            s.llm(
                kv_cache={**FEW_BLOCKS, "prefix_caching": False}, host=FRONT_END, batching={"async_scheduling": True}
            )
        ),
        s.workload(*recalled(TWO_SAMPLES, policy="fastest"), traffic={**s.traffic(rate="10 /s"), **SHARED}),
    ),
    "KV stores, closed loop, given hits": (
        with_stores(s.llm(replicas=2, batching={"max_num_seqs": 8})),
        s.workload(
            *recalled(hit_frac=[0.5, 0.5], num_cached_tokens={"kind": "uniform", "low": 0, "high": 400}),
            traffic={"closed_loop": {"concurrency": 20}, "num_requests": 90, "lengths": FIXED},
        ),
    ),
    "KV stores, rounds, shortest job first": (
        with_stores(s.llm(kv_cache=FEW_BLOCKS, batching={"queue_order": "sjf"}), s.workers(["retrieve"])),
        s.workload(
            {"name": "hop", "kind": "repeat", "rounds": {"kind": "uniform", "low": 1, "high": 3}, "stages": [
                {**s.RETRIEVE, "after": []},
                {**recalled()[0], "after": ["retrieve"]}, *recalled()[1:],
            ]},
            traffic=s.traffic(rate="10 /s"),
        ),
    ),
    "pictures through an encoder": (
        s.cluster(
            {"name": "encoder", "serves": ["encode"], "replicas": 2, "placement": {"gpu": 1},
             "batching": {"kind": "dynamic", "max_batch_size": 4, "max_wait": "10 ms"}},
            s.llm(replicas=2, host=FRONT_END), routing={"kind": "least_outstanding_tokens"},
        ),
        s.workload(
            {"name": "encode", "kind": "encode", "model": "qwen2_vl_vit", "cache": {"capacity": "100 MB"}},
            {**s.PREFILL, "after": ["encode"]}, s.DECODE,
            traffic={**s.traffic(rate="20 /s"), "images": {
                "share": 0.8, "sizes": [{"width": 640, "height": 480}, {"width": 1600, "height": 1200}],
                "popularity": {"num_distinct": 30},
            }},
        ),
    ),
    "adapters": (
        s.cluster(s.llm(replicas=2, lora={"max_loras": 2, "rank": 32}, kv_cache=FEW_BLOCKS)),
        s.workload(traffic={**s.traffic(rate="30 /s", num_requests=120), **SHARED, "adapters": ADAPTERS}),
    ),
    "adapters, disaggregated, samples": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], lora={"max_loras": 2}),
            s.llm("decoder", serves=["decode"], replicas=2, lora={"max_loras": 3}),
        ),
        s.workload(s.PREFILL, TWO_SAMPLES, traffic={**s.traffic(rate="10 /s"), "adapters": ADAPTERS}),
    ),
    "stages by chance": (
        s.cluster(s.llm(), s.workers(["embed", "retrieve"])),
        s.workload(
            {**s.EMBED, "probability": 0.5}, {**s.RETRIEVE, "probability": 0.5}, {**s.PREFILL, "after": ["retrieve"]},
            s.DECODE,
        ),
    ),
}  # fmt: skip

CASES |= {
    f"router {kind}": (
        s.cluster(s.llm(replicas=3), routing={"kind": kind}),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=150)),
    )
    for kind in ROUTERS
}
"""Arrivals that are known before the run are routed by compiled code, one event each under exact steps."""
CASES |= {f"policy {kind}": (s.cluster(engine(kind=kind)), shared()) for kind in TOKEN_POLICIES}
CASES["policy prefill_first in chunks"] = s.cluster(engine(kind="prefill_first", chunk_prompts=True)), shared()
CASES |= {f"queue order {order}": (s.cluster(engine(queue_order=order)), shared()) for order in QUEUE_ORDERS}
CASES |= {
    f"preset {preset}": (s.cluster(s.llm(engine_preset=preset, kv_cache={"num_gpu_blocks": 5000})), shared())
    for preset in ENGINE_PRESETS
}


def run(cluster: s.Document, workload: s.Document, *, exact_steps: bool) -> RunTables:
    return simulate_scenario(load_scenario(cluster, workload, exact_steps=exact_steps))


def assert_equal(first: RunTables, second: RunTables) -> None:
    for name in ("requests", "visits", "engines", "links", "operators", "timeline", "kv_stores"):
        for column, values in (getattr(first, name) or {}).items():
            np.testing.assert_array_equal(values, getattr(second, name)[column], err_msg=f"{name}.{column}")
    np.testing.assert_array_equal(first.itl_counts, second.itl_counts)
    assert first.num_steps == second.num_steps
    assert first.duration_s == second.duration_s
    assert first.notes == second.notes


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_last_bit(case: str) -> None:
    assert_equal(run(*CASES[case], exact_steps=False), run(*CASES[case], exact_steps=True))


ABOUT: dict[str, Callable[[RunTables], Any]] = {
    "preemptions": lambda tables: tables.requests["num_preemptions"].sum(),
    "pipeline parallel, preemptions": lambda tables: tables.requests["num_preemptions"].sum(),
    "async, preemptions": lambda tables: tables.requests["num_preemptions"].sum(),
    "drafts, preemptions": lambda tables: tables.requests["num_preemptions"].sum(),
    "swap": lambda tables: tables.engines["num_swapped_blocks"].sum(),
    "several samples": lambda tables: tables.engines["num_copied_blocks"].sum(),
    "radix": lambda tables: tables.engines["num_hit_blocks"].sum(),
    "drafts": lambda tables: tables.engines["num_accepted_tokens"].sum(),
    "disaggregated": lambda tables: tables.links["num_transfers"].sum(),
    "adapters": lambda tables: tables.engines["num_adapter_loads"].min(),
    "pictures through an encoder": lambda tables: tables.requests["num_cached_images"].sum(),
    **{
        case: lambda tables: tables.requests["num_reloaded_tokens"].sum()
        for case in CASES
        if case.startswith("KV stores")
    },
}


@pytest.mark.parametrize("case", ABOUT)
def test_the_cases_are_about_something(case: str) -> None:
    assert ABOUT[case](run(*CASES[case], exact_steps=False)) > 0


def test_contention_is_in_the_case_that_is_there_for_it() -> None:
    cluster, workload = CASES["shared cores"]
    crowded = run(cluster, workload, exact_steps=False).visits
    lone = run(cluster, {**workload, "traffic": s.traffic(rate="0.1 /s", num_requests=20)}, exact_steps=False).visits
    assert crowded["memory_s"][crowded["kind"] == "retrieve"].max() > lone["memory_s"][lone["kind"] == "retrieve"].max()


@st.composite
def any_engine(draw: st.DrawFn, name: str, serves: list[str]) -> s.Document:
    """Options that may or may not go together; the checks say which."""
    batching: dict[str, Any] = {
        "kind": draw(st.sampled_from(list(TOKEN_POLICIES))),
        "queue_order": draw(st.sampled_from(QUEUE_ORDERS)),
        "max_num_seqs": draw(st.sampled_from([2, 8, 256])),
        "max_num_batched_tokens": draw(st.sampled_from([256, 300, 2048])),
        "full_sequence_gate": draw(st.booleans()),
        "watermark_frac": draw(st.sampled_from([0.0, 0.02])),
        "output_reserve_frac": draw(st.sampled_from([0.0, 0.0, 0.5])),
        "preemption": draw(st.sampled_from(["recompute", "swap"])),
        "victim": draw(st.sampled_from(["last", "fewest_generated"])),
        "async_scheduling": draw(st.booleans()),
        "receive_every_steps": draw(st.sampled_from([1, 1, 5])),
        "long_prefill_token_threshold": draw(st.sampled_from([0, 0, 100])),
    }
    parallel = draw(st.sampled_from([{}, {}, {}, {"tp": 2}, {"pp": 2}, {"dp": 2}]))
    cache = draw(st.sampled_from(["none", "hash", "late", "radix"]))
    keys: dict[str, Any] = {
        "parallel": parallel,
        "placement": {"gpu": 2 if parallel else 1},
        "batching": batching,
        "kv_cache": {
            "num_gpu_blocks": draw(st.sampled_from([130, 200, 2000])),
            "prefix_caching": cache != "none",
            "prefix_cache": "radix" if cache == "radix" else "hash",
            "insert_at": "schedule" if cache == "hash" else "step_end",
        },
    }
    if "pp" in parallel or draw(st.booleans()):
        batching["async_scheduling"] = False
    if batching["kind"] not in ("static", "padded", "prepacked", "layered_prefill") and draw(st.booleans()):
        batching["async_scheduling"] = False
        keys["speculative"] = {
            **DRAFTS,
            "adaptive": draw(st.booleans()),
            "max_batch_size": draw(st.sampled_from([2, None])),
        }
    if draw(st.booleans()):
        keys["host"] = FRONT_END
    return s.llm(name, serves=serves, replicas=draw(st.integers(1, 2)), **keys)


@st.composite
def any_scenario(draw: st.DrawFn) -> tuple[s.Document, s.Document]:
    if draw(st.booleans()):
        engines = [draw(any_engine("llm", ["prefill", "decode"]))]
    else:
        engines = [draw(any_engine("prefiller", ["prefill"])), draw(any_engine("decoder", ["decode"]))]
    jobs = draw(st.booleans())
    if jobs:
        engines.append(s.workers(["embed", "retrieve"], num_workers=draw(st.integers(1, 2))))
    lengths = draw(st.sampled_from([FIXED, {**s.traffic(prompt=200, output=40)["lengths"]}]))
    number = draw(st.integers(1, 40))
    arrivals: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"arrivals": {"kind": "constant", "rate": "25 /s"}},
                {"arrivals": {"kind": "poisson", "rate": "60 /s"}},
                {"closed_loop": {"concurrency": 8}},
                {"closed_loop": {"concurrency": 3, "think_time": "20 ms", "think_time_cv": 1.0}},
            ]
        )
    )
    traffic = {**arrivals, "num_requests": number, "lengths": lengths, **draw(st.sampled_from([{}, SHARED]))}
    decode = draw(st.sampled_from([s.DECODE, TWO_SAMPLES]))
    stores = STORES if draw(st.booleans()) else []
    stages = [*s.RAG[:3], decode] if jobs else [s.PREFILL, decode]
    if stores:
        policy, write = draw(st.sampled_from(["reload", "fastest"])), draw(st.sampled_from(["first", "all"]))
        stages = [*stages[: 2 if jobs else 0], *recalled(decode, policy=policy, write=write)]
        stages = [{**stage, "after": ["retrieve"]} if jobs and stage["name"] == "recall" else stage for stage in stages]
    routing = draw(st.sampled_from(["round_robin", "least_outstanding_tokens", "power_of_two_choices", "prefix_aware"]))
    return s.cluster(*engines, kv_stores=stores, routing={"kind": routing}), s.workload(*stages, traffic=traffic)


@settings(max_examples=60)
@given(any_scenario())
def test_equal_on_any_scenario(scenario: tuple[s.Document, s.Document]) -> None:
    try:
        load_scenario(*scenario)
    except ConfigError:
        assume(False)
    assert_equal(run(*scenario, exact_steps=False), run(*scenario, exact_steps=True))
