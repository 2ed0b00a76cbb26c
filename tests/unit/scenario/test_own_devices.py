"""Devices that are made in Python: numbers of a shipped one replaced, or a whole data sheet as a mapping."""

from __future__ import annotations

import pytest
import yaml

from hermes_sim import ConfigError, device, simulate
from hermes_sim.hardware.device import Device
from hermes_sim.scenario.sources import missing_sources, source_of
from tests import scenarios as s
from tests.docs.blocks import REPOSITORY, blocks


def test_nothing_changed_is_the_file() -> None:
    assert device("h100_sxm") == device("H100")
    chip = device("h100_sxm")
    assert device(chip) is chip


def test_what_is_changed_and_nothing_else() -> None:
    base = device("h100_sxm")
    chip = device("h100_sxm", {"memory.bandwidth": "6.7 TB/s", "power.tdp": "900 W"}, name="wide")
    assert (chip.name, chip.memory.bandwidth_bytes_per_s, chip.power.tdp_w) == ("wide", 6.7e12, 900.0)
    assert chip.memory.capacity_bytes == base.memory.capacity_bytes
    assert chip.cost_model.gemm == base.cost_model.gemm
    assert chip.residuals == base.residuals
    assert device(base, {"memory": {"bandwidth": "2 x"}}).memory == chip.memory
    twice = device(device(base, {"memory.bandwidth": "6.7 TB/s"}), {"power.tdp": "900 W"}, name="wide")
    assert (twice.name, twice.memory, twice.power, twice.residuals) == ("wide", chip.memory, chip.power, chip.residuals)


def test_changes_are_estimates_and_so_are_kernels_on_other_hardware() -> None:
    chip = device("h100_sxm", {"memory.bandwidth": "6.7 TB/s"})
    source = source_of(chip.sources, ("memory", "bandwidth"))
    assert source is not None
    assert source.kind == "estimate"
    assert source_of(chip.sources, ("memory", "capacity")) == source_of(
        device("h100_sxm").sources, ("memory", "capacity")
    )
    assert chip.cost_model.source.kind == "estimate"
    cooler = device("h100_sxm", {"power.tdp": "500 W", "price": "2 USD/h"})
    assert cooler.cost_model.source == device("h100_sxm").cost_model.source
    assert missing_sources(chip) == missing_sources(cooler) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"memory.bandwith": "6 TB/s"}, "Did you mean 'bandwidth'"),
        ({"memory": "6 TB/s"}, "needs a mapping of keys"),
        ({"peak.bf16": "6 TB/s"}, "peak.bf16"),
    ],
)
def test_a_change_that_is_none(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        device("h100_sxm", changes)


def test_a_name_that_the_library_has_not() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'h100_sxm'"):
        device("h100_sxn")


def test_twice_the_bandwidth_is_half_the_time_of_a_lone_decode() -> None:
    """Nearly: weights are read once a token, but launches and the host's share stay as they are."""
    cluster = s.cluster(s.llm())
    profile = cluster["nodes"][0]["devices"]["gpu"]["profile"]
    faster = 2.0 * device(profile).memory.bandwidth_bytes_per_s
    lone = s.workload(traffic=s.traffic(num_requests=1, prompt=16, output=50))
    chip = device(profile, {"memory.bandwidth": f"{faster} B/s"})
    slow, fast = simulate(cluster, lone), simulate(cluster, lone, devices={profile: chip})
    ratio = fast.requests["tpot_s"].item() / slow.requests["tpot_s"].item()
    assert 0.5 < ratio < 0.7
    assert fast.summary["trust"]["provenance_frac"]["estimate"] == pytest.approx(1.0)


def test_a_data_sheet_as_a_mapping_runs_and_runs_again() -> None:
    (block,) = blocks(REPOSITORY / "docs" / "extending.md", "yaml")
    sheet = yaml.safe_load(block.text)
    assert isinstance(device(sheet), Device)
    cluster = s.cluster(s.llm())
    cluster["nodes"][0]["devices"]["gpu"]["profile"] = "my_npu"
    results = simulate(cluster, s.workload(), devices={"my_npu": sheet})
    assert results.scenario.devices["my_npu"] == device(sheet)
    assert "name: my_npu" in results.scenario_yaml


def test_a_cluster_may_change_a_device_that_is_given() -> None:
    chip = device("h100_sxm", {"memory.bandwidth": "1 TB/s"})
    wider = {"cluster.devices.h100_sxm.memory.bandwidth": "2 x", "workload.traffic.num_requests": 1}
    results = simulate("h100x8", "chat", overrides=wider, devices={"h100_sxm": chip})
    assert results.scenario.devices["h100_sxm"].memory.bandwidth_bytes_per_s == 2e12


def test_a_device_that_the_cluster_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"no device profile 'h100' .*Did you mean"):
        simulate("h100x8", "chat", devices={"h100": device("h100_sxm")})
