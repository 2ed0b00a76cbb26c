"""Many steps per call and one event per step are the same program: equal tables, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one engine": (s.cluster(s.llm()), s.workload()),
    "two engines, least tokens": (
        s.cluster(s.llm(replicas=2), routing={"kind": "least_outstanding_tokens"}),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=150)),
    ),
    "preemptions": (
        s.cluster(s.llm(kv_cache={"num_gpu_blocks": 260}, batching={"full_sequence_gate": False})),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=80)),
    ),
    "continuous": (s.cluster(s.llm(batching={"kind": "continuous"})), s.workload()),
    "retrieval": (s.cluster(s.llm(), s.workers(["embed", "retrieve"], num_workers=3)), s.workload(*s.RAG)),
    "shared cores": (
        s.cluster(
            s.workers(["embed"], name="embedder", cores=32, max_wait="2 ms"),
            s.workers(["retrieve"], name="retriever", cores=32, num_workers=4),
            s.llm(replicas=2),
            num_cpus=1,
            routing={"kind": "power_of_two_choices"},
        ),
        s.workload(*s.RAG, traffic=s.traffic(rate="60 /s", num_requests=200)),
    ),
    "disaggregated": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=2),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 500}),
        ),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=150)),
    ),
    "prefill waits for blocks to be granted": (
        s.cluster(
            s.llm("prefiller", serves=["prefill"], replicas=2, batching={"long_prefill_token_threshold": 256}),
            s.llm("decoder", serves=["decode"], kv_cache={"num_gpu_blocks": 300}),
        ),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=300)),
    ),
    "mixed": (
        s.cluster(s.llm("both"), s.llm("decoder", serves=["decode"]), s.llm("prefiller", serves=["prefill"])),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=100)),
    ),
    "pipeline parallel": (
        s.cluster(s.llm(parallel={"pp": 4}, placement={"gpu": 4})),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=100)),
    ),
    "closed loop": (
        s.cluster(s.llm(replicas=2)),
        s.workload(
            traffic={
                "closed_loop": {"concurrency": 6, "think_time": "50 ms", "think_time_cv": 1.0},
                "num_requests": 60,
                "lengths": {"kind": "fixed", "num_prompt_tokens": 300, "num_output_tokens": 40},
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
    "sessions": (
        s.cluster(s.llm(replicas=2), routing={"kind": "prefix_aware"}),
        s.workload(traffic={**s.traffic(rate="4 /s"), "sessions": {"mean_num_turns": 4, "think_time": "0.5 s"}}),
    ),
    "priorities": (
        s.cluster(s.llm(batching={"queue_order": "priority"}, kv_cache={"num_gpu_blocks": 300})),
        s.workload(traffic=s.traffic(rate="30 /s", num_requests=80)),
    ),
    "stages by chance": (
        s.cluster(s.llm(), s.workers(["embed", "retrieve"])),
        s.workload(
            {**s.EMBED, "probability": 0.5}, {**s.RETRIEVE, "probability": 0.5}, {**s.PREFILL, "after": ["retrieve"]},
            s.DECODE,
        ),
    ),
}  # fmt: skip


def run(case: str, *, exact_steps: bool) -> RunTables:
    cluster, workload = CASES[case]
    return simulate_scenario(load_scenario(cluster, workload, exact_steps=exact_steps))


def assert_equal(first: RunTables, second: RunTables) -> None:
    for name in ("requests", "visits", "engines", "links"):
        for column, values in getattr(first, name).items():
            np.testing.assert_array_equal(values, getattr(second, name)[column], err_msg=f"{name}.{column}")
    np.testing.assert_array_equal(first.itl_counts, second.itl_counts)
    assert first.num_steps == second.num_steps
    assert first.duration_s == second.duration_s


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_last_bit(case: str) -> None:
    assert_equal(run(case, exact_steps=False), run(case, exact_steps=True))


def test_the_cases_are_about_something() -> None:
    """Preemption, contention and transfers do happen in the cases that are there for them."""
    assert run("preemptions", exact_steps=False).requests["num_preemptions"].sum() > 0
    assert run("disaggregated", exact_steps=False).links["num_transfers"].sum() > 0
    crowded = run("shared cores", exact_steps=False).visits
    cluster, workload = CASES["shared cores"]
    lone = simulate_scenario(
        load_scenario(cluster, {**workload, "traffic": s.traffic(rate="0.1 /s", num_requests=20)})
    ).visits
    assert crowded["memory_s"][crowded["kind"] == "retrieve"].max() > lone["memory_s"][lone["kind"] == "retrieve"].max()
