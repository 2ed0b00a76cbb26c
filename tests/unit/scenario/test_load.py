"""Names to a Scenario, and a Scenario to a file and back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import dump_scenario, load_scenario, read_scenario
from hermes_sim.stages import STAGES as STAGE_KINDS
from tests import scenarios
from tests.shipped_pairs import CLUSTER_OF, WORKLOAD_OF
from tests.unit.scenario.files import CLUSTER, WORKLOAD, Folder

SHIPPED = Path(__file__).resolve().parents[3]


def test_a_scenario_has_everything_resolved(folder: Folder) -> None:
    scenario = folder.load()
    assert list(scenario.devices) == ["a100_sxm_80gb", "epyc_7742"]
    assert list(scenario.links) == ["nvlink3", "pcie4_x16", "xgmi2_epyc"]
    assert list(scenario.models) == ["llama_3_70b", "e5_base"]
    assert scenario.seed == 1
    assert scenario.cluster.engines[0].placement["gpu"].devices == 4
    assert scenario.notes == ()


def test_what_is_left_out(folder: Folder) -> None:
    pipelines = WORKLOAD[WORKLOAD.index("pipelines:") : WORKLOAD.index("slo:")]
    batching = "    batching: {kind: chunked_prefill, max_num_seqs: 256, max_num_batched_tokens: 2048}\n"
    scenario = folder.load((pipelines, ""), (batching, "    batching: {max_num_seqs: 7}\n"))
    (pipeline,) = scenario.workload.pipelines
    assert [(stage.name, stage.after) for stage in pipeline.stages] == [("prefill", ()), ("decode", ("prefill",))]
    llm, retriever = scenario.cluster.engines
    assert llm.batching.model_dump() == llm.batching.model_dump() | {"kind": "chunked_prefill", "max_num_seqs": 7}
    assert retriever.batching.model_dump()["kind"] == "dynamic"


def test_dumped_and_read_back_it_is_equal(folder: Folder) -> None:
    scenario = folder.load(overrides=("workload.slo.e2e={p90: 6 x, mean: 10 s}", "workload.measure.warm_up=5 %"))
    file = folder.write("scenario.yaml", dump_scenario(scenario))
    assert read_scenario(file) == scenario
    assert dump_scenario(read_scenario(file)) == dump_scenario(scenario)


def test_a_saved_scenario_takes_overrides_as_its_files_would(folder: Folder) -> None:
    folder.write("scenario.yaml", dump_scenario(folder.load()))
    changes = (
        "cluster.engines.llm.model=llama_3_8b",
        "cluster.nodes.dgx.devices.gpu.profile=h100_sxm",
        "workload.pipelines=[rag_rerank]",
        "workload.seed=5",
    )
    again = read_scenario(Path(), overrides=changes, exact_steps=True)
    assert again == load_scenario("cluster", "workload", overrides=changes, exact_steps=True)
    assert list(again.models) == ["llama_3_8b", "e5_base", "bge_reranker_large"]
    assert read_scenario("scenario.yaml", overrides=changes, seed=6).seed == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cluster.engines.llm.model=no_such", "no model 'no_such' here or in the library"),
        ("cluster.engines.llm.parallel.tp=3", "3 does not divide 64"),
        ("workload.traffic.rate=3", "unknown key"),
        ("workload.pipelines=[rga]", "no pipeline 'rga' here or in the library"),
        ("seed=3", "needs KEY=VALUE"),
    ],
)
def test_wrong_overrides_of_a_saved_scenario(folder: Folder, change: str, message: str) -> None:
    file = folder.write("scenario.yaml", dump_scenario(folder.load()))
    with pytest.raises(ConfigError, match=f"--set {re.escape(change)}.*{message}"):
        read_scenario(file, overrides=[change])


def test_another_file_is_no_saved_scenario(folder: Folder) -> None:
    folder.load()
    with pytest.raises(ConfigError, match=r"cluster\.yaml: is no saved scenario: the scenario\.yaml of a run has"):
        read_scenario("cluster.yaml")


def test_a_broken_scenario_file_is_refused_with_its_line(folder: Folder) -> None:
    text = dump_scenario(folder.load()).replace("    tp: 4", "    tp: 3").replace("      tp: 4", "      tp: 3")
    with pytest.raises(ConfigError, match=r"scenario\.yaml:\d+ engines\[0\]\.parallel\.tp: 3 does not divide 64"):
        read_scenario(folder.write("scenario.yaml", text))


def test_seed(folder: Folder) -> None:
    folder.load()
    assert load_scenario("cluster", "workload", seed=7).seed == 7
    assert load_scenario("cluster", "workload", overrides=["workload.seed=8"]).seed == 8
    with pytest.raises(ConfigError, match="--seed: must be >= 0, got -1"):
        load_scenario("cluster", "workload", seed=-1)


def test_mappings_in_place_of_files(folder: Folder) -> None:
    files = folder.load()
    assert load_scenario(yaml.safe_load(CLUSTER), yaml.safe_load(WORKLOAD.replace("1e8", "1.0e+8"))) == files
    with pytest.raises(ConfigError, match=r"^workload traffic\.nonsense: unknown key"):
        load_scenario("cluster", {"name": "x", "traffic": {"nonsense": 1}})


def test_a_mapping_is_not_changed() -> None:
    cluster, workload = scenarios.cluster(scenarios.llm()), scenarios.workload()
    before = json.dumps([cluster, workload])
    scenario = load_scenario(cluster, workload, overrides=["cluster.engines.llm.replicas=2", "workload.seed=3"])
    assert (scenario.cluster.engines[0].replicas, scenario.seed) == (2, 3)
    assert json.dumps([cluster, workload]) == before


def test_no_such_file(folder: Folder) -> None:
    with pytest.raises(ConfigError) as caught:
        load_scenario("a100x8.yaml", "rag.yml")
    assert str(caught.value) == (
        "no workload 'rag.yml' here or in the library. Did you mean 'rag.yaml'? (hermes-sim list workloads)"
    )
    with pytest.raises(ConfigError) as caught:
        load_scenario("rag", "a100x8")
    assert str(caught.value).splitlines() == [
        "no cluster 'rag' here or in the library, but there is a workload of that name. (hermes-sim list clusters)",
        "no workload 'a100x8' here or in the library, but there is a cluster of that name. (hermes-sim list workloads)",
    ]


def test_unknown_names_inside_the_files_come_together(folder: Folder) -> None:
    found = folder.problems(
        ("profile: a100_sxm_80gb", "profile: a100_sxm_80"),
        ("profile: nvlink3", "profile: nvlink33"),
        ("model: llama_3_70b", "model: llama_3_70"),
        ("model: e5_base", "model: e5_bas"),
    )
    assert found == [
        "cluster.yaml:4 nodes[0].devices.gpu.profile: no device 'a100_sxm_80' here or in the library. "
        "Did you mean 'a100_sxm_80gb'? (hermes-sim list devices)",
        "cluster.yaml:6 nodes[0].links[0].profile: no link 'nvlink33' here or in the library. "
        "Did you mean 'nvlink3'? (hermes-sim list links)",
        "cluster.yaml:12 engines[0].model: no model 'llama_3_70' here or in the library. "
        "Did you mean 'llama_3_70b'? (hermes-sim list models)",
        "workload.yaml:9 pipelines[0].stages[0].model: no model 'e5_bas' here or in the library. "
        "Did you mean 'e5_base'? (hermes-sim list models)",
    ]


def test_a_device_file_beside_the_cluster(folder: Folder) -> None:
    shipped = (SHIPPED / "hardware_profiles/devices/a100_sxm_80gb.yaml").read_text(encoding="utf-8")
    mine = shipped.replace("name: a100_sxm_80gb", "name: my_gpu").replace("capacity: 81920 MiB", "capacity: 96 GiB")
    folder.write("rack/my_gpu.yaml", mine)
    folder.write("rack/cluster.yaml", CLUSTER.replace("profile: a100_sxm_80gb", "profile: my_gpu"))
    folder.write("workload.yaml", WORKLOAD)
    scenario = load_scenario("rack/cluster.yaml", "workload.yaml")
    assert scenario.devices["my_gpu"].memory.capacity_bytes == 96 * 2**30
    folder.write("rack/my_gpu.yaml", mine.replace("num_cores: 108", "num_core: 108"))
    with pytest.raises(ConfigError) as caught:
        load_scenario("rack/cluster.yaml", "workload.yaml")
    line = mine.splitlines().index("num_cores: 108") + 1
    assert f"rack/my_gpu.yaml:{line} num_core: unknown key. Did you mean 'num_cores'?" in str(caught.value).splitlines()


def test_a_model_may_be_a_hugging_face_config(folder: Folder) -> None:
    config = {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
        "max_position_embeddings": 8192, "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5,
    }  # fmt: skip
    folder.write("mine/config.json", json.dumps(config))
    scenario = folder.load(("model: llama_3_70b", "model: mine/config.json"))
    model = scenario.models["mine/config.json"]
    assert (model.name, model.num_layers, model.num_kv_heads) == ("mine", 32, 8)
    folder.write("mine/config.json", '{"model_type": "lama"}')
    (found,) = folder.problems(("model: llama_3_70b", "model: mine/config.json"))
    assert found.startswith("mine/config.json: is not a usable Hugging Face config: 'lama' is not a model family")
    folder.write("mine/config.json", "{")
    (found,) = folder.problems(("model: llama_3_70b", "model: mine/config.json"))
    assert found.startswith("mine/config.json: is not a usable Hugging Face config: ")


STAGES = WORKLOAD[WORKLOAD.index("pipelines:") : WORKLOAD.index("slo:")]


def test_a_pipeline_by_its_name(folder: Folder) -> None:
    named = folder.load((STAGES, "pipelines: [rag, {name: llm, weight: 3}]\n"))
    assert [(pipeline.name, pipeline.weight) for pipeline in named.workload.pipelines] == [("rag", 1.0), ("llm", 3.0)]
    overridden = folder.load(
        (STAGES, "pipelines: [rag]\n"), overrides=("workload.pipelines.rag.stages.embed.num_tokens=9",)
    )
    assert overridden.workload.pipelines[0].stages[0].model_dump()["num_tokens"] == 9


def test_problems_of_a_named_pipeline_point_to_its_file(folder: Folder) -> None:
    folder.write("mine.yaml", "name: mine\nstages:\n  - {name: prefill, kind: prefil}\n")
    assert folder.problems((STAGES, "pipelines:\n  - mine\n")) == [
        "mine.yaml:3 pipelines[0].stages[0].kind: 'prefil' is not a stage kind "
        f"({', '.join(sorted(STAGE_KINDS))}). Did you mean 'prefill'?"
    ]
    assert folder.problems((STAGES, "pipelines:\n  - ragg\n")) == [
        "workload.yaml:7 pipelines[0]: no pipeline 'ragg' here or in the library. "
        "Did you mean 'rag'? (hermes-sim list pipelines)"
    ]


TRAFFIC = WORKLOAD[WORKLOAD.index("traffic:") : WORKLOAD.index("pipelines:")]
TRACE = "traffic: {trace: {format: azure, path: trace.csv}}\n"


def test_a_trace_is_found_in_the_working_directory_or_beside_the_workload(folder: Folder) -> None:
    assert folder.problems((TRAFFIC, TRACE)) == [
        (
            "workload.yaml:2 traffic.trace.path: there is no file 'trace.csv' in the working directory "
            "or beside workload.yaml"
        )
    ]
    folder.write("far/workload.yaml", WORKLOAD.replace(TRAFFIC, TRACE))
    beside = folder.write("far/trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n")
    scenario = load_scenario("cluster.yaml", "far/workload.yaml")
    assert scenario.workload.traffic.trace is not None
    assert scenario.workload.traffic.trace.path == str(beside)
    here = folder.write("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n")
    scenario = load_scenario("cluster.yaml", "far/workload.yaml")
    assert scenario.workload.traffic.trace is not None
    assert scenario.workload.traffic.trace.path == str(here)


@pytest.mark.parametrize("cluster", sorted(path.stem for path in SHIPPED.glob("hardware_profiles/clusters/*.yaml")))
def test_shipped_clusters_take_their_workload(cluster: str) -> None:
    workload = WORKLOAD_OF.get(cluster, "rag")
    assert load_scenario(cluster, workload).workload.name == workload


@pytest.mark.parametrize("workload", sorted(path.stem for path in SHIPPED.glob("workloads/*.yaml")))
def test_shipped_workloads_run_on_their_cluster(workload: str, tmp_path: Path) -> None:
    scenario = load_scenario(CLUSTER_OF.get(workload, "a100x8"), workload)
    file = tmp_path / "scenario.yaml"
    file.write_text(dump_scenario(scenario), encoding="utf-8")
    assert read_scenario(file) == scenario


def test_unknown_keys_do_not_hide_what_else_is_wrong() -> None:
    """All problems of a file together: schema, devices and parallel degrees."""
    cluster = {
        "name": "test",
        "nodes": [{"name": "node", "devices": {"gpu": {"profile": "a100_sxm_80gb", "count": 4}}}],
        "engines": [
            {
                "name": "llm", "serves": ["prefill", "decode"], "model": "llama_3_70b", "placement": {"gpu": 3},
                "replicas": 2, "parallel": {"tp": 3}, "batching": {"kind": "chunked_prefill", "max_num_seq": 3},
            }
        ],
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load_scenario(cluster, "chat.yaml")
    text = str(caught.value)
    assert "unknown key. Did you mean 'max_num_seqs'?" in text
    assert "3 does not divide 64 attention heads of llama_3_70b" in text
    assert "wants 2 x 3 gpu, node 'node' has 4" in text
