"""Devices and links with other numbers, stated by a cluster, on the command line, or of a resolved scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.hardware.device import Device
from hermes_sim.scenario.load import dump_scenario, load_scenario, read_scenario
from hermes_sim.scenario.scenario import Scenario
from tests import scenarios

BANDWIDTH = "cluster.devices.a100_sxm_80gb.memory.bandwidth"


def loaded(*overrides: str, **keys: object) -> Scenario:
    return load_scenario(scenarios.cluster(scenarios.llm(), **keys), scenarios.workload(), overrides=overrides)


def gpu(scenario: Scenario) -> Device:
    return scenario.devices["a100_sxm_80gb"]


def test_a_factor_and_a_quantity_are_two_ways_to_say_it() -> None:
    plain = gpu(loaded())
    twice = gpu(loaded(f"{BANDWIDTH}=2 x"))
    assert twice.memory.bandwidth_bytes_per_s == 2 * plain.memory.bandwidth_bytes_per_s
    stated = gpu(loaded(f"{BANDWIDTH}={twice.memory.bandwidth_bytes_per_s / 1e9!r} GB/s"))
    assert stated.memory == twice.memory
    assert twice.memory.capacity_bytes == plain.memory.capacity_bytes
    assert (twice.peak_flops_per_s, twice.power, twice.residuals) == (
        plain.peak_flops_per_s,
        plain.power,
        plain.residuals,
    )


def test_a_factor_of_a_mapping_is_one_of_all_its_numbers() -> None:
    plain, scaled = gpu(loaded()), gpu(loaded("cluster.devices.a100_sxm_80gb.peak=1.5 x"))
    assert scaled.peak_flops_per_s == {
        dtype: pytest.approx(1.5 * peak, rel=1e-12) for dtype, peak in plain.peak_flops_per_s.items()
    }


def test_what_is_changed_is_an_estimate_and_so_are_the_kernels() -> None:
    changed = gpu(loaded(f"{BANDWIDTH}=2 x"))
    assert changed.sources["memory.bandwidth"].kind == "estimate"
    assert changed.cost_model.source.kind == "estimate"
    assert changed.title.endswith("with other memory.bandwidth")
    cheaper = gpu(loaded("cluster.devices.a100_sxm_80gb.price=1 USD/h"))
    assert cheaper.cost_model == gpu(loaded()).cost_model


def test_a_chip_like_another_has_a_name_of_its_own() -> None:
    chip = {"base": "a100_sxm_80gb", "memory": {"bandwidth": "4 TB/s", "capacity": "2 x"}, "num_cores": "2 x"}
    scenario = loaded("cluster.nodes.node.devices.gpu.profile=chip", devices={"chip": chip})
    assert list(scenario.devices) == ["chip", "epyc_7742"]
    assert scenario.devices["chip"].num_cores == 2 * 108
    assert scenario.cluster.devices == {}


def test_links_too() -> None:
    plain, slow = loaded(), loaded("cluster.links.nvlink3.bandwidth=0.5 x")
    assert slow.links["nvlink3"].bandwidth_bytes_per_s == plain.links["nvlink3"].bandwidth_bytes_per_s / 2


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (f"{BANDWIDTH}=fast", "memory.bandwidth: 'fast' is not a bandwidth"),
        ("cluster.devices.a100_sxm_80gb.memory.bandwith=2 TB/s", "Did you mean 'bandwidth'?"),
        ("cluster.devices.a100_sxm_80gb.memory.bandwith=2 x", "there is no number that it could be one of"),
        ("cluster.devices.a100_sxm_80gb.kind=2 x", "no number that could be multiplied"),
        ("cluster.devices.a100_sxm.memory.bandwidth=2 x", "Did you mean 'a100_sxm_80gb'?"),
        ("cluster.devices.a100_sxm_80gb.base=b100", "no device 'b100' here or in the library"),
        ("cluster.devices.a100_sxm_80gb.memory.bandwidth.peak=2 x", "not a mapping of keys"),
    ],
)
def test_what_is_wrong_is_told_where_it_is_stated(override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(override)
    assert problem in str(refused.value)
    assert f"--set {override}" in str(refused.value)


def test_a_saved_run_has_the_device_as_it_was_and_takes_another(tmp_path: Path) -> None:
    scenario = loaded(f"{BANDWIDTH}=2 x")
    (tmp_path / "scenario.yaml").write_text(dump_scenario(scenario))
    assert read_scenario(tmp_path) == scenario
    again = gpu(read_scenario(tmp_path, overrides=[f"{BANDWIDTH}=0.5 x"]))
    assert again.memory == gpu(loaded()).memory
    with pytest.raises(ConfigError, match="the cluster has no device of profile 'h100'"):
        read_scenario(tmp_path, overrides=["cluster.devices.h100.num_cores=2 x"])


def test_with_gives_what_loading_gives() -> None:
    """And leaves the one it was made from as it was."""
    first = loaded()
    before = first.model_dump_json()
    overrides = ["cluster.engines.llm.replicas=2", "workload.traffic.arrivals.rate=3 /s"]
    assert first.with_(overrides) == loaded(*overrides)
    as_mapping = {"cluster.engines.llm.replicas": 2, "workload.traffic.arrivals.rate": "3 /s"}
    assert first.with_(as_mapping, seed=9) == loaded(*overrides).model_copy(update={"seed": 9})
    assert gpu(first.with_({BANDWIDTH: "2 x"})).memory == gpu(loaded(f"{BANDWIDTH}=2 x")).memory
    assert list(first.with_({"cluster.engines.llm.model": "llama_2_7b"}).models) == ["llama_2_7b"]
    assert first.with_() is first
    assert first.model_dump_json() == before


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"cluster.engines.lm.replicas": 2}, "has no entry named 'lm' (llm). Did you mean 'llm'?"),
        ({"cluster.engines.llm.parallel.tp": 3}, "3 does not divide"),
        ({"engines.llm.replicas": 2}, "a key starts with 'cluster.' or 'workload.'"),
        (["cluster.engines.llm.replicas"], "needs KEY=VALUE"),
        ({"cluster.engines.llm.model": "llama_2_7"}, "no model 'llama_2_7'"),
    ],
)
def test_with_refuses_what_loading_refuses(overrides: dict[str, object] | list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded().with_(overrides)
    assert problem in str(refused.value)
