"""`hermes-sim check FILE`: any kind of file, alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.core.schema import Source
from hermes_sim.hardware.link import Link
from hermes_sim.scenario.check import check_file, evidence_of, weakest_source
from hermes_sim.scenario.dump import dump_scenario
from hermes_sim.scenario.files import SCHEMAS
from hermes_sim.scenario.sources import evidence, missing_sources, source_of, weakest_kind
from tests.unit.scenario.files import CLUSTER, WORKLOAD, Folder

SHIPPED = Path(__file__).resolve().parents[3]
FILES = sorted([*SHIPPED.glob("hardware_profiles/*/*.yaml"), *SHIPPED.glob("workloads/**/*.yaml")])
A100 = (SHIPPED / "hardware_profiles/devices/a100_sxm_80gb.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SHIPPED)))
def test_shipped_files_are_right(file: Path) -> None:
    assert [str(problem) for problem in check_file(file)] == []


def found(folder: Folder, name: str, text: str) -> list[str]:
    return [str(problem) for problem in check_file(folder.write(name, text).relative_to(folder.path))]


def test_the_example_of_the_manual(folder: Folder) -> None:
    """A wrong key hides the rest of an engine; without it the other two come together, in the order of the lines."""
    text = CLUSTER.replace("max_num_seqs", "max_num_seq")
    assert found(folder, "my_cluster.yaml", text) == [
        "my_cluster.yaml:16 engines[0].batching.max_num_seq: unknown key. Did you mean 'max_num_seqs'?"
    ]
    text = CLUSTER.replace("tp: 4", "tp: 3").replace("count: 8", "count: 4")
    assert found(folder, "my_cluster.yaml", text) == [
        (
            "my_cluster.yaml:15 engines[0].parallel.tp: 3 does not divide 64 attention heads of "
            "llama_3_70b (1, 2, 4, 8, ...)"
        ),
        "my_cluster.yaml:15 engines[0].parallel: tp 3 x pp 1 makes 3 devices, placement gives a replica 4 gpu",
        "my_cluster.yaml:4 nodes[0].devices.gpu.count: engine 'llm' wants 2 x 4 gpu, node 'dgx' has 4",
    ]


def test_a_workload_alone(folder: Folder) -> None:
    assert found(folder, "w.yaml", WORKLOAD) == []
    text = WORKLOAD.replace("after: [embed]", "after: [embd]").replace("e5_base", "e5_bas")
    assert found(folder, "w.yaml", text) == [
        (
            "w.yaml:12 pipelines[0].stages[1].after[0]: there is no stage 'embd' (embed, prefill, "
            "decode). Did you mean 'embed'?"
        ),
        "w.yaml:9 pipelines[0].stages[0].model: no model 'e5_bas' here or in the library. "
        "Did you mean 'e5_base'? (hermes-sim list models)",
    ]


def test_a_pipeline_alone(folder: Folder) -> None:
    text = "name: mine\nstages:\n  - {name: decode, kind: decode}\n"
    assert found(folder, "p.yaml", text) == [
        "p.yaml:3 stages[0]: decode 'decode' needs a prefill before it (the pipeline has none)"
    ]


def test_a_number_without_a_source(folder: Folder) -> None:
    text = A100.replace("  memory.bandwidth:", "  memory.bandwith:")
    line = text.splitlines().index("memory: {kind: hbm2e, capacity: 81920 MiB, bandwidth: 2039 GB/s}") + 1
    assert found(folder, "gpu.yaml", text) == [
        f"gpu.yaml:{line} memory.bandwidth: no source covers this number (sources)"
    ]


def test_a_saved_scenario(folder: Folder) -> None:
    text = dump_scenario(folder.load())
    assert found(folder, "scenario.yaml", text) == []
    assert any(
        "3 does not divide 64" in line for line in found(folder, "scenario.yaml", text.replace("tp: 4", "tp: 3"))
    )


def test_names_of_the_library_and_files_that_are_none(folder: Folder) -> None:
    assert check_file("a100x8") == []
    assert [str(problem) for problem in check_file("nowhere.yaml")] == [
        "nowhere.yaml: there is no such file, here or in the library"
    ]
    assert found(folder, "strange.yaml", "name: x\n") == [
        f"strange.yaml: is no {', '.join(SCHEMAS)} file: no key tells which kind it is"
    ]
    assert found(folder, "broken.yaml", "name: [x\n") == [
        "broken.yaml:2: is not YAML: did not find expected ',' or ']'"
    ]


def test_a_source_covers_the_keys_below_its_path() -> None:
    whole, capacity = (Source(title=title, where="here", kind="datasheet") for title in ("memory", "capacity"))
    sources = {"memory": whole, "memory.capacity": capacity}
    assert source_of(sources, ("memory", "capacity")) is capacity
    assert source_of(sources, ("memory", "bandwidth")) is whole
    assert source_of(sources, ("memory_size",)) is None
    assert source_of({**sources, "*": capacity}, ("clock",)) is capacity


def test_the_weakest_kind_counts() -> None:
    def link(**kinds: str) -> Link:
        sources = {key: {"title": "t", "where": "w", "kind": kind} for key, kind in kinds.items()}
        data = {"name": "l", "title": "l", "kind": "pcie", "bandwidth": "1 GB/s", "latency": "1 us", "sources": sources}
        return Link.model_validate(data)

    assert weakest_kind(link(bandwidth="measured", latency="datasheet")) == "datasheet"
    assert weakest_kind(link(bandwidth="measured", latency="estimate")) == "estimate"
    assert missing_sources(link(bandwidth="measured")) == [("latency",)]
    assert missing_sources(link(bandwidth="measured", latency="fitted")) == []


def test_what_sets_the_speed_is_told_apart_from_prices() -> None:
    assert weakest_source("h100_sxm") == "estimate", "its price is"
    assert evidence_of("h100_sxm") == {"peak": "datasheet", "bandwidth": "datasheet", "kernels": "fitted"}
    assert evidence_of("a100x8") == {"kernels of a100_sxm_80gb": "fitted", "kernels of epyc_7742": "estimate"}
    assert evidence_of("llama_3_70b") == evidence_of("workloads/rag.yaml") == {}


def test_sources_of_single_values_count_for_their_part() -> None:
    sources = {
        "bandwidth": {"title": "t", "where": "w", "kind": "datasheet"},
        "*": {"title": "t", "where": "w", "kind": "measured"},
    }
    data = {"name": "l", "title": "l", "kind": "pcie", "bandwidth": "1 GB/s", "latency": "1 us", "sources": sources}
    assert evidence(Link.model_validate(data)) == {
        "bandwidth": "datasheet", "latency": "measured", "efficiency": "measured",
    }  # fmt: skip


def test_a_cluster_is_as_weak_as_what_it_names() -> None:
    assert weakest_source(SHIPPED / "hardware_profiles/clusters/a100x8.yaml") == "estimate"
    assert weakest_source(SHIPPED / "workloads/models/llama_3_70b.yaml") == "datasheet"
