"""Any key of either file can be set, and a wrong one is named by what the user typed."""

from __future__ import annotations

import pytest

from hermes_sim.scenario.cluster import ClusterFile
from tests.unit.scenario.files import Folder


def test_values_are_set(folder: Folder) -> None:
    scenario = folder.load(
        overrides=(
            "cluster.engines.llm.replicas=1",
            "cluster.engines[0].batching.kind=continuous",
            "cluster.engines.llm.kv_cache.prefix_caching=false",
            "cluster.carbon=50 g/kWh",
            "workload.traffic.arrivals.rate=8 /s",
            "workload.pipelines.rag.stages.retrieve.index={kind: flat, num_vectors: 1e5, dim: 64}",
            "workload.slo={}",
            "workload.name=12:30",
        )
    )
    llm = scenario.cluster.engines[0]
    assert (llm.replicas, llm.batching.model_dump()["kind"], llm.kv_cache.prefix_caching) == (1, "continuous", False)
    assert llm.batching.model_dump()["max_num_seqs"] == 256
    assert scenario.cluster.carbon_g_per_kwh == 50.0
    assert scenario.workload.traffic.model_dump(by_alias=True, mode="json")["arrivals"]["rate"] == "8.0/s"
    assert scenario.workload.pipelines[0].stages[1].model_dump()["index"]["num_vectors"] == 100_000
    assert scenario.workload.slo.limits() == []
    assert scenario.workload.name == "12:30"


def test_an_entry_is_put_behind_the_others(folder: Folder) -> None:
    small = "{name: small, serves: [embed], placement: {cpu: {devices: 1, cores: 2}}, batching: {kind: dynamic}}"
    scenario = folder.load(
        overrides=(
            f"cluster.engines[+]={small}",
            "cluster.engines.small.batching.max_batch_size=3",
            "cluster.availability.outages[+]={engine: llm, replica: 0, at: 1 s, lasts: 1 s}",
        )
    )
    assert [engine.name for engine in scenario.cluster.engines] == ["llm", "retriever", "small"]
    assert scenario.cluster.engines[2].batching.model_dump()["max_batch_size"] == 3
    assert scenario.cluster.availability.outages[0].engine == "llm"


def test_a_mapping_says_the_same(folder: Folder) -> None:
    """Values are those of a file, or descriptions; wrong ones are named by their key."""
    listed = folder.load(overrides=("cluster.engines.llm.batching={kind: continuous}", "workload.seed=7"))
    batching = listed.cluster.engines[0].batching
    for given in ({"kind": "continuous"}, batching):
        assert folder.load(overrides={"cluster.engines.llm.batching": given, "workload.seed": 7}) == listed
    (problem,) = folder.problems(overrides={"cluster.engines.lm.replicas": 2})
    assert problem.startswith("overrides cluster.engines.lm.replicas: engines has no entry named 'lm'")


def test_the_last_one_wins(folder: Folder) -> None:
    assert folder.load(overrides=("workload.seed=3", "workload.seed=4")).seed == 4


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "workload.seed",
            "--set workload.seed: needs KEY=VALUE with a key such as cluster.engines.llm.replicas or workload.seed",
        ),
        ("seed=3", "--set seed=3: needs KEY=VALUE with a key such as cluster.engines.llm.replicas or workload.seed"),
        ("=3", "--set =3: needs KEY=VALUE with a key such as cluster.engines.llm.replicas or workload.seed"),
        (
            "workload..seed=3",
            "--set workload..seed=3: needs KEY=VALUE with a key such as cluster.engines.llm.replicas or workload.seed",
        ),
        (
            "clstr.name=x",
            "--set clstr.name=x: a key starts with 'cluster.' or 'workload.', not 'clstr'. Did you mean 'cluster'?",
        ),
        (
            "cluster.engines.lm.replicas=3",
            "--set cluster.engines.lm.replicas=3: engines has no entry named 'lm' "
            "(llm, retriever). Did you mean 'llm'?",
        ),
        ("cluster.engines[2].replicas=3", "--set cluster.engines[2].replicas=3: engines has 2 entries, counted from 0"),
        ("cluster.name.x=3", "--set cluster.name.x=3: name is 'two_engines', not a mapping of keys"),
        (
            "cluster.nodes[0].devices[0]=3",
            "--set cluster.nodes[0].devices[0]=3: nodes[0].devices is a mapping, not a list",
        ),
        (
            "cluster.engines.llm.batching.max_num_seq=3",
            "--set cluster.engines.llm.batching.max_num_seq=3 "
            "engines[0].batching.max_num_seq: unknown key. Did you mean 'max_num_seqs'?",
        ),
        (
            "workload.slo.ttft.p99=fast",
            (
                "--set workload.slo.ttft.p99=fast slo.ttft.p99: 'fast' is not a time with a unit (ns, us, "
                "ms, s, min, h, d)"
            ),
        ),
        ("workload.seed=[1", "--set workload.seed=[1: is not YAML: did not find expected ',' or ']'"),
        (
            "cluster.engines.llm.parallel.tp=3",
            "--set cluster.engines.llm.parallel.tp=3 engines[0].parallel.tp: "
            "3 does not divide 64 attention heads of llama_3_70b (1, 2, 4, 8, ...)",
        ),
        (
            "cluster.zzz.y=1",
            "--set cluster.zzz.y=1 zzz: unknown key; known here: "
            + ", ".join(field.alias or name for name, field in ClusterFile.model_fields.items()),
        ),
        (
            "workload.traffic.trace={format: azure}",
            "--set workload.traffic.trace={format: azure} traffic: trace holds "
            "arrivals and lengths already: remove arrivals and lengths and num_requests, or trace",
        ),
    ],
)
def test_a_wrong_one_is_named(folder: Folder, override: str, problem: str) -> None:
    assert problem in folder.problems(overrides=(override,))


def test_wrong_ones_come_together(folder: Folder) -> None:
    found = folder.problems(overrides=("seed=1", "cluster.engines.x.replicas=1", "workload.slo.ttft.p98=1 s"))
    assert len(found) == 3
