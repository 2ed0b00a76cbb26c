"""The shipped clusters: they load, hold their engines, and say nothing about themselves that is not so."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.hardware.network import Endpoint, Network
from hermes_sim.hardware.placement import Slots
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.memory import MemoryPlan
from hermes_sim.scenario.check import check_file
from hermes_sim.scenario.cluster import ClusterFile, Engine
from hermes_sim.scenario.engine_memory import plan_memory
from hermes_sim.scenario.library import find
from hermes_sim.scenario.served_model import served_model
from hermes_sim.scenario.unit_placement import unit_placement
from hermes_sim.scenario.yaml_reader import read_yaml
from tests.shipped_pairs import CLUSTER_OF
from tests.unit.hardware.shipped import devices, files, links

CLUSTERS = {path.stem: ClusterFile.model_validate(read_yaml(path).data) for path in files("clusters")}

each_cluster = pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS.keys())


def placed(cluster: ClusterFile) -> dict[str, list[list[Endpoint]]]:
    """Devices of every replica of every engine."""
    slots = Slots(cluster.nodes, devices())
    return {
        engine.name: slots.allocate_replicas(
            engine.node,
            {group: (share.devices, share.cores) for group, share in engine.placement.items()},
            engine.replicas,
        )
        for engine in cluster.engines
    }


def plan(cluster: ClusterFile, engine: Engine) -> MemoryPlan:
    endpoint = placed(cluster)[engine.name][0][0]
    node = next(node for node in cluster.nodes if node.name == endpoint.node_group)
    assert engine.model is not None
    checkpoint = ModelArchitecture.model_validate(read_yaml(find("model", engine.model)).data)
    model = served_model(engine, {engine.model: checkpoint})
    assert model is not None
    own = {group: devices()[node.devices[group].profile] for group in engine.placement}
    placement = unit_placement(engine, own)
    device = own[endpoint.device_group] if placement is None else placement.of("attention").device
    return plan_memory(engine, model, None, device, placement=placement)


def test_the_library_holds_the_clusters_it_promises() -> None:
    assert [path.stem for path in files("clusters")] == [cluster.name for cluster in CLUSTERS.values()]
    promised = {
        "a100x8",
        "h100x8",
        "h200x8",
        "b200x8",
        "mixed_rack",
        "edge_box",
        "cpu_only",
        "cim_box",
        "h200x8_deepseek",
        "gb200_nvl72",
        "gb300_nvl72",
        "b300x8",
        "mi300x8",
        "l40sx4",
    }
    assert set(CLUSTERS) >= promised


@pytest.mark.parametrize("path", files("clusters"), ids=lambda path: path.stem)
def test_every_cluster_passes_all_checks(path: Path) -> None:
    assert check_file(path) == []


@each_cluster
def test_every_cluster_serves_a_whole_rag_pipeline(cluster: ClusterFile) -> None:
    if cluster.name in CLUSTER_OF.values():
        return  # made for one workload
    served = {kind for engine in cluster.engines for kind in engine.serves}
    assert served >= {"embed", "retrieve", "rerank", "prefill", "decode"}


@each_cluster
def test_all_engines_can_hand_over_to_each_other(cluster: ClusterFile) -> None:
    network = Network(cluster.nodes, links(), cluster.network)
    replicas = [replica for engine in placed(cluster).values() for replica in engine]
    for source in replicas:
        assert network.tp_link(source).bandwidth_bytes_per_s > 20e9
        for target in replicas:
            assert network.group_route(source, target).bandwidth_bytes_per_s > 5e9


@each_cluster
def test_replicas_stay_inside_a_node(cluster: ClusterFile) -> None:
    for engine in placed(cluster).values():
        for replica in engine:
            assert len({endpoint.node for endpoint in replica}) == 1


@each_cluster
def test_language_models_fit_with_room_for_a_useful_batch(cluster: ClusterFile) -> None:
    """KV cache for at least sixteen sequences of a thousand tokens."""
    for engine in cluster.engines:
        if engine.model is not None:
            memory = plan(cluster, engine)
            assert memory.shortfall_bytes == 0
            assert memory.num_blocks * engine.kv_cache.block_tokens >= 16 * 1000


@pytest.mark.parametrize(
    ("name", "engine", "num_tokens"), [("edge_box", "llm", 49_000), ("mixed_rack", "decode", 200_000)]
)
def test_comments_about_kv_capacity_hold(name: str, engine: str, num_tokens: int) -> None:
    cluster = CLUSTERS[name]
    memory = plan(cluster, next(other for other in cluster.engines if other.name == engine))
    assert memory.num_blocks * 16 == pytest.approx(num_tokens, rel=0.1)
