"""What cannot run is said before it runs, with the line and by how much."""

from __future__ import annotations

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.checks import placed_engines
from hermes_sim.scenario.engine_memory import plan_memory
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.names import Hardware
from hermes_sim.stages import STAGES
from tests import scenarios
from tests.unit.scenario.files import CLUSTER, WORKLOAD, Folder

SMALL = ("model: llama_3_70b", "model: llama_3_8b")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            [("tp: 4", "tp: 3")],
            "cluster.yaml:15 engines[0].parallel.tp: "
            "3 does not divide 64 attention heads of llama_3_70b (1, 2, 4, 8, ...)",
        ),
        (
            [("replicas: 2", "replicas: 4")],
            "cluster.yaml:4 nodes[0].devices.gpu.count: engine 'llm' wants 4 x 4 gpu, node 'dgx' has 8",
        ),
        (
            [("cores: 96", "cores: 129")],
            "cluster.yaml:4 nodes[0].devices.cpu.count: "
            "engine 'retriever' wants 129 cores of cpu, node 'dgx' has 128 free of 128",
        ),
        (
            [("cores: 96", "cores: 1")],
            "cluster.yaml:19 engines[1].placement.cpu: 1 cores are fewer than the 2 devices they are on",
        ),
        (
            [("tp: 4", "tp: 2")],
            ("cluster.yaml:15 engines[0].parallel: tp 2 x pp 1 makes 2 devices, placement gives a replica 4 gpu"),
        ),
        (
            [("{tp: 4}", "{tp: 4, pp: 81}")],
            "cluster.yaml:15 engines[0].parallel.pp: 81 is more than the 80 layers of llama_3_70b",
        ),
        (
            [("{tp: 4}", "{tp: 4, ep: 2}")],
            "cluster.yaml:15 engines[0].parallel.ep: llama_3_70b has no experts: ep must be 1, got 2",
        ),
        (
            [("placement: {gpu: 4}", "placement: {gpus: 4}")],
            "cluster.yaml:14 engines[0].placement.gpus: no node has 'gpus' (gpu, cpu). Did you mean 'gpu'?",
        ),
        (
            [("    placement: {gpu: 4}", "    node: dgxx\n    placement: {gpu: 4}")],
            "cluster.yaml:14 engines[0].node: there is no node 'dgxx' (dgx). Did you mean 'dgx'?",
        ),
        (
            [("[gpu, cpu]", "[gpu, cpus]")],
            ("cluster.yaml:7 nodes[0].links[1].between[1]: node 'dgx' has no 'cpus' (gpu, cpu). Did you mean 'cpu'?"),
        ),
        ([("name: retriever", "name: llm")], "cluster.yaml:17 engines[1].name: a second engine named 'llm'"),
        (
            [("    model: llama_3_70b\n", "")],
            "cluster.yaml:10 engines[0].model: is missing: an engine that serves prefill, decode needs one",
        ),
        (
            [("model: llama_3_70b", "model: e5_base")],
            "cluster.yaml:12 engines[0].model: e5_base is an encoder: it cannot serve prefill, decode",
        ),
        (
            [("[prefill, decode]", "[prefill, decod]")],
            (
                "cluster.yaml:11 engines[0].serves[1]: 'decod' is not a stage kind "
                f"({', '.join(kind for kind, stage in STAGES.items() if stage.runs_on != 'nowhere')}). "
                "Did you mean 'decode'?"
            ),
        ),
        (
            [("[prefill, decode]", "[prefill, decode, embed]")],
            "cluster.yaml:11 engines[0].serves: "
            "prefill, decode run token by token, embed as whole jobs: they need two engines",
        ),
        (
            [("kind: chunked_prefill, max_num_seqs: 256, max_num_batched_tokens: 2048", "kind: dynamic")],
            "cluster.yaml:16 engines[0].batching.kind: 'dynamic' does not batch prefill and decode; "
            "one of: chunked_prefill, continuous, prefill_first, decode_first, mixed_pool, static, padded, prepacked, "
            "layered_prefill",
        ),
        (
            [("max_num_batched_tokens: 2048", "max_num_batched_tokens: 100")],
            "cluster.yaml:16 "
            "engines[0].batching.max_num_batched_tokens: 100 is less than max_num_seqs 256: "
            "every running sequence needs a token of the budget",
        ),
        (
            [("max_num_batched_tokens: 2048", "max_num_batched_tokens: 9e6")],
            "cluster.yaml:16 engines[0].batching.max_num_batched_tokens: must be <= 1,000,000, got 9,000,000",
        ),
        (
            [("after: [embed]", "after: [embd]")],
            (
                "workload.yaml:12 pipelines[0].stages[1].after[0]: there is no stage 'embd' (embed, prefill, "
                "decode). Did you mean 'embed'?"
            ),
        ),
        (
            [("name: decode", "name: prefill")],
            "workload.yaml:17 pipelines[0].stages[3].name: a second stage named 'prefill'",
        ),
        (
            [("kind: decode, after: [prefill]", "kind: decode, after: [embed]")],
            ("workload.yaml:17 pipelines[0].stages[3]: decode 'decode' needs a prefill before it (after: [prefill])"),
        ),
        (
            [("num_tokens: 64}", "num_tokens: 64, after: [prefill]}")],
            "workload.yaml:9 pipelines[0].stages[0].after: "
            "stages wait for each other in a circle: embed -> retrieve -> prefill -> embed",
        ),
        (
            [("num_tokens: 64}", "num_tokens: 64, after: [embed]}")],
            "workload.yaml:9 pipelines[0].stages[0].after: stages wait for each other in a circle: embed -> embed",
        ),
        (
            [("serves: [embed, retrieve, rerank]", "serves: [embed, rerank]")],
            (
                "workload.yaml:11 pipelines[0].stages[1].kind: no engine serves 'retrieve' (llm: prefill, "
                "decode; retriever: embed, rerank)"
            ),
        ),
        (
            [("{name: prefill, kind: prefill,", "{name: prefill, kind: prefill, model: llama_3_8b,")],
            "workload.yaml:16 "
            "pipelines[0].stages[2].model: no engine that serves 'prefill' hosts llama_3_8b (llm: llama_3_70b)",
        ),
        (
            [
                (
                    "kind: ivf_pq, num_vectors: 1e8, dim: 768, nlist: 65536, nprobe: 32, code_bytes: 64",
                    "kind: flat, num_vectors: 1e9, dim: 1024",
                )
            ],
            (
                "workload.yaml:10 pipelines[0].stages[1]: 'retrieve' needs 4.1 TB of memory, a replica of "
                "engine 'retriever' has 2.2 TB"
            ),
        ),
        (
            [("      - {between: [gpu, cpu], profile: pcie4_x16}\n", "")],
            (
                "workload.yaml:16 pipelines[0].stages[2].after: 'retrieve' cannot hand over to 'prefill': "
                "retriever to llm: no route from dgx[0].cpu[0] to dgx[0].gpu[0]: node 'dgx' needs a link "
                "{between: [cpu, gpu], profile: ...}"
            ),
        ),
        (
            [("name: two_engines", "name: two_engines\nrouting_per_stage: {decod: {kind: random}}")],
            (
                "cluster.yaml:2 routing_per_stage.decod: the workload has no stage 'decod' (embed, retrieve, "
                "prefill, decode). Did you mean 'decode'?"
            ),
        ),
        (
            [("devices: {gpu", "count: 1e9\n    devices: {gpu")],
            "cluster.yaml:4 nodes[0].count: more than 100,000 devices and uplinks in all",
        ),
        (
            [("replicas: 2", "replicas: 1e9")],
            "cluster.yaml:13 engines[0].replicas: wants 4,000,000,000 devices, a cluster has at most 100,000",
        ),
    ],
)
def test_one_problem(folder: Folder, changes: list[tuple[str, str]], problem: str) -> None:
    assert problem in folder.problems(*changes)


def test_weights_that_do_not_fit_say_by_how_much(folder: Folder) -> None:
    changes = [("replicas: 2", "replicas: 8"), ("placement: {gpu: 4}", "placement: {gpu: 1}"), ("{tp: 4}", "{tp: 1}")]
    (found,) = folder.problems(*changes)
    assert found.startswith("cluster.yaml:12 engines[0].model: llama_3_70b does not fit: 141 GB of weights and ")
    assert "a100_sxm_80gb x memory_fraction 0.9 has 77.3 GB: " in found
    scenario = folder.load()
    hardware = Hardware(scenario.cluster, scenario.devices, scenario.links, scenario.models)
    placed = placed_engines(hardware)[0]
    engine = placed.engine.model_copy(update={"parallel": placed.engine.parallel.model_copy(update={"tp": 1})})
    assert placed.model is not None
    plan = plan_memory(engine, placed.model, None, placed.devices["gpu"])
    assert found.endswith(f": {plan.shortfall_bytes / 1e9:.3g} GB short")


def test_problems_of_both_files_come_together(folder: Folder) -> None:
    found = folder.problems(("tp: 4", "tp: 3"), ("after: [embed]", "after: [embd]"), ("replicas: 2", "replicas: 4"))
    assert [line.split(":")[0] for line in found] == ["cluster.yaml"] * 3 + ["workload.yaml"]


def test_an_engine_without_a_prefill_in_the_pipeline() -> None:
    workload = scenarios.workload({**scenarios.DECODE, "after": []})
    with pytest.raises(ConfigError, match=r"decode 'decode' needs a prefill before it \(the pipeline has none\)"):
        load_scenario(scenarios.cluster(scenarios.llm()), workload)


def test_prefill_and_decode_of_different_models() -> None:
    prefill = scenarios.llm("p", serves=["prefill"])
    decode = scenarios.llm("d", serves=["decode"], model="mistral_7b")
    with pytest.raises(ConfigError, match="decodes with mistral_7b what was prefilled with llama_3_8b"):
        load_scenario(scenarios.cluster(prefill, decode), scenarios.workload())


def test_several_models_and_a_stage_that_names_none() -> None:
    engines = [scenarios.llm("a"), scenarios.llm("b", model="mistral_7b")]
    with pytest.raises(ConfigError, match=r"host different models \(a: llama_3_8b; b: mistral_7b\)"):
        load_scenario(scenarios.cluster(*engines), scenarios.workload())
    stages = [{**scenarios.PREFILL, "model": "mistral_7b"}, {**scenarios.DECODE, "model": "mistral_7b"}]
    assert load_scenario(scenarios.cluster(*engines), scenarios.workload(*stages)).models.keys() == {
        "llama_3_8b", "mistral_7b",
    }  # fmt: skip


def test_experts_are_divided_over_the_devices() -> None:
    engine = scenarios.llm(model="mixtral_8x7b", placement={"gpu": 8}, parallel={"tp": 8, "ep": 3})
    with pytest.raises(ConfigError, match=r"3 does not divide 8 experts of mixtral_8x7b \(1, 2, 4, 8\)"):
        load_scenario(scenarios.cluster(engine), scenarios.workload())
    assert load_scenario(scenarios.cluster({**engine, "parallel": {"tp": 8, "ep": 4}}), scenarios.workload())


def test_kv_heads_are_divided_or_repeated() -> None:
    """Llama-3-8B has 8 KV heads: 16 devices hold two copies of each."""
    sixteen = scenarios.llm(placement={"gpu": 16}, parallel={"tp": 16})
    assert load_scenario(scenarios.cluster(sixteen, num_gpus=16), scenarios.workload())


def test_devices_of_a_replica_must_be_linked() -> None:
    cluster = scenarios.cluster(scenarios.llm(placement={"gpu": 2}, parallel={"tp": 2}))
    cluster["nodes"][0]["links"] = []
    with pytest.raises(ConfigError, match="the devices of a replica are not linked: no route"):
        load_scenario(cluster, scenarios.workload())


def test_a_dtype_that_is_widened_is_noted() -> None:
    scenario = load_scenario(
        scenarios.cluster(scenarios.llm(model="qwen3_32b_fp8", placement={"gpu": 2}, parallel={"tp": 2})),
        scenarios.workload(),
    )
    assert scenario.notes == ("engine 'llm': a100_sxm_80gb does not multiply fp8; qwen3_32b_fp8 is computed in bf16",)


def test_the_pipeline_of_a_trace_exists(folder: Folder) -> None:
    traffic = WORKLOAD[WORKLOAD.index("traffic:") : WORKLOAD.index("pipelines:")]
    found = folder.problems((traffic, "traffic: {trace: {format: azure, pipeline: ragg}}\n"))
    assert found == ["workload.yaml:2 traffic.trace.pipeline: there is no pipeline 'ragg' (rag). Did you mean 'rag'?"]


def test_one_node_group_must_be_meant(folder: Folder) -> None:
    nodes = CLUSTER[CLUSTER.index("  - name: dgx") : CLUSTER.index("engines:")]
    found = folder.problems((nodes, nodes + nodes.replace("name: dgx", "name: other")), SMALL)
    assert (
        "cluster.yaml:20 engines[0].placement: engine 'llm': nodes dgx, other have 'gpu': say which with `node`"
    ) in found
