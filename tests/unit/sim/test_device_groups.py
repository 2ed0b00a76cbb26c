"""Engines that span device groups, and arrays: exact steps, energy and rent that add up, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import ConfigError, SimulationError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s

ON_CPU = {"placement": {"gpu": 1, "cpu": {"devices": 2, "cores": 96}}}
SPANS = {
    "attention": s.llm(**ON_CPU, operators_on={"linear": "gpu", "attention": "cpu", "prefill_attention": "gpu"}),
    "in_turns": s.llm(
        **ON_CPU, operators_on={"linear": "gpu", "attention": "cpu", "interleave_sub_batches": True},
        kv_cache={"num_gpu_blocks": 400},
    ),
    "matrices_apart": s.llm(
        placement={"gpu": 2, "cpu": 2}, parallel={"tp": 2}, operators_on={"linear": "gpu", "rest": "cpu"},
        batching={"kind": "prefill_first"},
    ),
    "experts": s.llm(**ON_CPU, model="mixtral_8x7b", operators_on={"linear": "gpu", "experts": "cpu"}),
}  # fmt: skip
BUSY = s.workload(traffic=s.traffic(rate="6 /s", num_requests=40))


def run(engine: s.Document, **keys: Any) -> RunTables:
    return simulate_scenario(load_scenario(s.cluster(engine), {**BUSY, **keys}))


@pytest.mark.parametrize("name", SPANS)
def test_many_steps_a_call_are_one_event_a_step(name: str) -> None:
    production = run(SPANS[name])
    exact = simulate_scenario(load_scenario(s.cluster(SPANS[name]), BUSY, exact_steps=True))
    for table in ("requests", "visits", "engines", "timeline", "device_groups"):
        for column, values in getattr(production, table).items():
            np.testing.assert_array_equal(values, getattr(exact, table)[column], err_msg=f"{table}.{column}")


@pytest.mark.parametrize("name", SPANS)
def test_groups_add_up_to_their_engine_and_requests_to_both(name: str) -> None:
    tables = run(SPANS[name])
    groups = tables.device_groups
    assert groups is not None
    assert groups["energy_j"].sum() == pytest.approx(tables.engines["energy_j"].sum(), rel=1e-9)
    assert groups["cost_usd"].sum() == pytest.approx(tables.engines["cost_usd"].sum(), rel=1e-9)
    requests = tables.requests
    spent_j = requests["energy_j"].sum() + requests["idle_energy_j"].sum()
    assert spent_j == pytest.approx(groups["energy_j"].sum(), rel=1e-9)
    assert (groups["busy_s"] <= tables.engines["busy_s"][0] * (1 + 1e-9)).all()
    assert (groups["active_energy_j"] > 0.0).all()


def test_the_kv_cache_is_as_large_as_the_memory_beside_attention() -> None:
    """128 kB a token of Llama-3-8B; 0.9 of two times 512 GiB less 1 GB each, where a GPU has 61 GB left."""
    on_cpu = load_scenario(s.cluster(SPANS["attention"]), BUSY)
    tables = simulate_scenario(on_cpu)
    memory_bytes = 2 * (0.9 * on_cpu.devices["epyc_7742"].memory.capacity_bytes - 1e9)
    assert tables.engines["num_blocks"][0] * 16 * 131072 == pytest.approx(memory_bytes, rel=1e-3)


def test_a_run_without_groups_has_no_table_of_them() -> None:
    assert run(s.llm()).device_groups is None


@pytest.mark.parametrize(
    ("engine", "key", "words"),
    [
        (s.llm(placement={"gpu": 1, "cpu": 1}), "placement", "needs operators_on"),
        (s.llm(**ON_CPU, operators_on={"linear": "gpu", "attention": "cpus"}), "operators_on.attention", "cpus"),
        (s.llm(**ON_CPU, operators_on={"linear": "gpu"}), "placement.cpu", "nothing to do"),
        (
            s.llm(placement={"gpu": 2, "cpu": 1}, operators_on={"linear": "gpu", "attention": "cpu"}),
            "parallel.tp", "needs tp 2",
        ),
        (
            s.llm(**ON_CPU, operators_on={"linear": "gpu", "rest": "cpu", "interleave_sub_batches": True}),
            "operators_on", "on a group that has nothing else",
        ),
        (
            s.llm(**ON_CPU, model="llama_3_70b", operators_on={"linear": "gpu", "attention": "cpu"}),
            "model", "does not fit on 'gpu'",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(engine: s.Document, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_scenario(s.cluster(engine), BUSY)
    found = [(problem.key, problem.message) for problem in refused.value.problems]
    assert any(path.endswith(key) and words in message for path, message in found), found


def test_a_model_that_does_not_stay_in_the_array_is_refused() -> None:
    cluster = s.cluster(s.llm(placement={"cim": 1}))
    cluster["nodes"][0]["devices"]["cim"] = {"profile": "dcim_3nm", "count": 1}
    with pytest.raises(ConfigError, match="does not stay in the array"):
        load_scenario(cluster, BUSY)


def embedder(profile: str = "dcim_edge_flex", serves: tuple[str, ...] = ("embed",), **batching: Any) -> s.Document:
    """A cluster of a language model, searches on a CPU, and jobs on a compute-in-memory card of their own."""
    jobs = {
        "name": "embedder", "serves": list(serves), "placement": {"cim": 1},
        "batching": {"kind": "dynamic", "max_batch_size": 4, **batching},
    }  # fmt: skip
    cluster = s.cluster(s.llm(), jobs, s.workers(["retrieve"], name="search"))
    cluster["nodes"][0]["devices"]["cim"] = {"profile": profile, "count": 1}
    cluster["nodes"][0]["links"].append({"between": ["cim", "cpu"], "profile": "pcie4_x16"})
    return cluster


def rag(**embed: Any) -> s.Document:
    """Bursts, so that texts are embedded in batches of several sizes."""
    return s.workload({**s.EMBED, **embed}, *s.RAG[1:], traffic=s.traffic(rate="200 /s", num_requests=40))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_texts_embedded_in_an_array(num_workers: int) -> None:
    """One event a step is the same program; energy by operation adds up to requests, groups and watts."""
    cluster, workload = embedder(num_workers=num_workers), rag(dtype="int8", num_tokens=None)
    tables = simulate_scenario(load_scenario(cluster, workload))
    exact = simulate_scenario(load_scenario(cluster, workload, exact_steps=True))
    for table in ("requests", "visits", "engines", "timeline", "device_groups"):
        for column, values in getattr(tables, table).items():
            np.testing.assert_array_equal(values, getattr(exact, table)[column], err_msg=f"{table}.{column}")
    groups, engines, requests = tables.device_groups, tables.engines, tables.requests
    assert groups is not None
    (place,) = np.flatnonzero(engines["engine"] == "embedder[0]")
    for column in ("energy_j", "cost_usd"):
        assert groups[column][0] == pytest.approx(engines[column][place], rel=1e-9)
    assert groups["active_energy_j"][0] > 0.0
    spent_j = requests["energy_j"].sum() + requests["idle_energy_j"].sum()
    assert spent_j == pytest.approx(engines["energy_j"].sum(), rel=1e-9)


@pytest.mark.parametrize(
    ("profile", "keys", "batching", "words"),
    [
        (
            "dcim_3nm",
            {"model": "mistral_7b", "dtype": "bf16"},
            {},
            "851,968 macros, a replica of engine",
        ),
        ("dcim_3nm", {"dtype": "bf16"}, {"num_workers": 20}, "each worker of engine 'embedder' has"),
        ("dcim_3nm", {}, {}, "'embed' multiplies in fp32, which the array of dcim_3nm does not"),
        ("dcim_edge_dense", {"model": "llama_3_70b", "dtype": "int8"}, {}, "'embed' needs 70.6 GB of memory"),
    ],
)
def test_jobs_that_an_array_has_no_room_for_are_refused(
    profile: str, keys: s.Document, batching: s.Document, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_scenario(embedder(profile, **batching), rag(**keys))
    (problem,) = refused.value.problems
    assert problem.key == "pipelines[0].stages[0]"
    assert words in problem.message


def test_a_batch_has_room_beside_the_weights() -> None:
    """65,536 texts of 64 tokens: 4 million rows of 28,672 into the activation, 14,336 out, a byte each."""
    scenario = load_scenario(embedder(max_batch_size=65536), rag(model="llama_3_8b", dtype="int8"))
    with pytest.raises(SimulationError, match=r"activations of a batch 180 GB, a replica has 17.2 GB"):
        simulate_scenario(scenario)


def test_stages_of_one_engine_share_its_cells_and_its_memory() -> None:
    """Each of the two encoders would stay alone."""
    rerank = {
        "name": "rerank", "kind": "rerank", "after": ["retrieve"], "model": "mistral_7b", "dtype": "bf16",
        "num_candidates": 4, "tokens_per_candidate": 64,
    }  # fmt: skip
    stages = [{**s.EMBED, "model": "llama_3_8b", "dtype": "bf16"}, s.RAG[1], rerank]
    cluster = embedder("analog_cim_3d", ("embed", "rerank"))
    both = s.workload(*stages, {**s.PREFILL, "after": ["rerank"]}, s.DECODE)
    load_scenario(cluster, rag(model="llama_3_8b", dtype="bf16"))
    with pytest.raises(ConfigError, match="weights of 'embed', 'rerank' do not stay in the array"):
        load_scenario(cluster, both)


def test_a_language_model_has_all_cells_of_its_devices() -> None:
    cluster = embedder()
    for engine in cluster["engines"][:2]:
        engine["placement"] = {"cim": {"devices": 1, "cores": 8}}
    with pytest.raises(ConfigError) as refused:
        load_scenario(cluster, rag(dtype="int8"))
    assert any("'embedder' shares the array" in problem.message for problem in refused.value.problems), refused.value
