"""Which runs need no event for an arrival or for a job's end, and that they come to the same."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.sim.bulk_arrivals import can_be_laid_out
from hermes_sim.sim.lower import lower
from hermes_sim.sim.replicas import most_tokens
from hermes_sim.workload.generate import generate_requests
from tests import scenarios as s

RERANK = {"name": "rerank", "kind": "rerank", "model": "bge_reranker_v2_m3", "after": ["retrieve"], "num_passages": 8}
JOBS = s.workers(["embed", "retrieve", "rerank"], num_workers=2)


def is_laid_out(cluster: s.Document, workload: s.Document) -> bool:
    scenario = load_scenario(cluster, workload)
    lowered = lower(scenario, generate_requests(scenario.workload.traffic, scenario.seed))
    return can_be_laid_out(lowered, [most_tokens(replica) for replica in lowered.replicas])


def both(cluster: s.Document, workload: s.Document) -> tuple[RunTables, RunTables]:
    runs = [simulate_scenario(load_scenario(cluster, workload, exact_steps=exact)) for exact in (False, True)]
    return runs[0], runs[1]


def test_jobs_before_a_prompt_are_handed_on_in_the_loop() -> None:
    cluster, workload = s.cluster(s.llm(replicas=2), JOBS), s.workload(*s.RAG)
    assert is_laid_out(cluster, workload)
    fast, exact = both(cluster, workload)
    for name in ("first_token_s", "finish_s", "energy_j"):
        assert fast.requests[name].tolist() == exact.requests[name].tolist()
    for name in ("engine", "arrival_s", "start_s", "finish_s", "queue_s"):
        assert fast.visits[name].tolist() == exact.visits[name].tolist()


def test_pipelines_with_and_without_jobs_mix() -> None:
    pipelines = [
        {"name": "rag", "stages": s.RAG, "weight": 2},
        {"name": "plain", "stages": [s.PREFILL, s.DECODE], "weight": 1},
        {"name": "look_up", "stages": s.RAG[:2], "weight": 1},
    ]
    mixed = {**s.workload(traffic=s.traffic(rate="40 /s", num_requests=200)), "pipelines": pipelines}
    cluster = s.cluster(s.llm(replicas=3), JOBS, routing={"kind": "least_outstanding_tokens"})
    assert is_laid_out(cluster, mixed)
    fast, exact = both(cluster, mixed)
    assert fast.requests["finish_s"].tolist() == exact.requests["finish_s"].tolist()
    assert fast.visits["start_s"].tolist() == exact.visits["start_s"].tolist()


@pytest.mark.parametrize(
    ("engines", "stages", "keys"),
    [
        ([s.llm(), JOBS], [s.EMBED, {**s.RETRIEVE, "probability": 0.5}, *s.RAG[2:]], {}),
        ([s.llm(), JOBS], s.RAG, {"traffic": {"closed_loop": {"concurrency": 4}, "num_requests": 20,
                                              "lengths": {"kind": "fixed", "num_prompt_tokens": 9,
                                                          "num_output_tokens": 9}}}),
        ([s.llm("a", serves=["prefill"]), s.llm("b", serves=["decode"]), JOBS], s.RAG, {}),
        ([s.llm(), JOBS], [s.EMBED, {**s.RETRIEVE, "after": []}, {**s.PREFILL, "after": ["embed", "retrieve"]},
                           s.DECODE], {}),
    ],
    ids=["a stage that may be passed over", "a closed loop", "disaggregated", "a stage that waits for two"],
)  # fmt: skip
def test_what_needs_events(engines: list[s.Document], stages: list[s.Document], keys: dict[str, Any]) -> None:
    assert not is_laid_out(s.cluster(*engines), s.workload(*stages, **keys))
