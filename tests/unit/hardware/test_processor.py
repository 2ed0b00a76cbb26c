"""Cores of a socket: bandwidth by NUMA policy, peaks by clock, counted on paper."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.processor import memory_bytes_per_s, nodes_used, share_of_processor
from hermes_sim.scenario.cluster import Placement
from hermes_sim.scenario.engine_device import engine_device
from hermes_sim.scenario.load import load_scenario
from tests import scenarios as s
from tests.unit.perf.engines import plain_device


def socket(**processor: Any) -> Device:
    """100 cores at 2 GHz, 1 TB/s on 4 NUMA nodes of 25 cores and 250 GB/s, 80 GB."""
    changes = {"kind": "cpu", "class": "cpu", "clock": "2 GHz", "processor": {"numa_nodes": 4, **processor}}
    return Device.model_validate({**plain_device().model_dump(by_alias=True, mode="json"), **changes})


def test_cores_fill_nodes_one_after_the_other() -> None:
    assert [nodes_used(socket(), cores) for cores in (1, 25, 26, 50, 76, 100)] == [1, 1, 2, 2, 4, 4]


def test_bound_memory_is_that_of_the_own_nodes() -> None:
    part = share_of_processor(socket(), 50, "bind")
    assert part.memory.bandwidth_bytes_per_s == 500e9
    assert part.memory.capacity_bytes == 40e9
    assert part.power.tdp_w == 200.0
    assert part.num_cores == 50


def test_interleaved_memory_is_as_fast_as_its_slower_way() -> None:
    # half of the bytes from two own nodes at 500 GB/s, half over 2 x 50 GB/s: 5 ps a byte
    assert memory_bytes_per_s(socket(remote_bandwidth="50 GB/s"), 50, "interleave") == pytest.approx(200e9)
    # 2 x 400 GB/s of the way in, but the other two nodes give no more than 500 GB/s: both ways at once
    assert memory_bytes_per_s(socket(remote_bandwidth="400 GB/s"), 50, "interleave") == pytest.approx(1e12)
    # all nodes are own ones
    assert memory_bytes_per_s(socket(remote_bandwidth="1 GB/s"), 100, "interleave") == 1e12


def test_few_cores_draw_what_they_can() -> None:
    device = socket(core_bandwidth="20 GB/s")
    assert memory_bytes_per_s(device, 5, "bind") == 100e9
    assert memory_bytes_per_s(device, 100, "bind") == 1e12


def test_clock_rises_as_constant_power_allows_up_to_the_boost() -> None:
    device = socket(boost_clock="3 GHz", licence_clock={"bf16": "1.6 GHz"})
    whole, some, one = (share_of_processor(device, cores, "bind").peak_flops_per_s for cores in (100, 50, 1))
    assert whole["fp32"] == pytest.approx(10e12)
    assert whole["bf16"] == pytest.approx(100e12 * 1.6 / 2.0)
    assert some["fp32"] == pytest.approx(0.5 * 10e12 * 2.0 ** (1 / 3))
    assert some["bf16"] == pytest.approx(0.5 * 100e12 * 0.8 * 2.0 ** (1 / 3))
    assert one["fp32"] == pytest.approx(0.01 * 10e12 * 1.5)


def test_without_a_share_the_device_is_itself() -> None:
    device = socket()
    assert engine_device(device, Placement()) is device
    two = engine_device(device, Placement(devices=2, cores=50))
    assert two.num_cores == 25


def test_more_cores_are_never_slower() -> None:
    device = socket(core_bandwidth="20 GB/s", remote_bandwidth="100 GB/s", boost_clock="4 GHz")
    for numa in ("bind", "interleave"):
        parts = [share_of_processor(device, cores, numa) for cores in (1, 10, 25, 50, 75, 100)]
        for few, more in itertools.pairwise(parts):
            assert more.memory.bandwidth_bytes_per_s >= few.memory.bandwidth_bytes_per_s
            assert more.peak_flops_per_s["bf16"] > few.peak_flops_per_s["bf16"]


def test_a_licence_above_the_boost_is_refused() -> None:
    with pytest.raises(ValueError, match="licence_clock of bf16 is above"):
        socket(boost_clock="3 GHz", licence_clock={"bf16": "3.5 GHz"})


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (s.llm(placement={"gpu": {"devices": 1, "numa": "bind"}}), "is for CPUs"),
        (s.workers(["embed"]) | {"placement": {"cpu": {"cores": 8, "numa": "bind"}}}, "serve prefill or decode"),
        (s.workers(["embed"]) | {"quantization": "w4a16"}, "is for engines that serve prefill or decode"),
    ],
)
def test_what_is_refused(engine: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scenario(s.cluster(s.llm(), engine | {"name": "other"}), s.workload())
