"""Low-rank adapters of Llama 3 8B by hand: weights, kernels, and the memory they take from the KV cache."""

from __future__ import annotations

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.perf.adapters import adapted_matrices, adapter_cost, adapter_weight_bytes
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import lower
from hermes_sim.workload.requests import request_table
from tests import scenarios as s
from tests.unit.models.shipped_models import models

ALL = ("qkv", "out", "up", "down")
LLAMA = models()["llama_3_8b"]


def test_weights_by_hand() -> None:
    """PEFT counts 41,943,040 trainable parameters for rank 16 on all linear layers of Llama 3 8B."""
    hidden, query, key_value, width = 4096, 4096, 1024, 14336
    per_rank = (hidden + query) + 2 * (hidden + key_value) + (query + hidden) + 2 * (hidden + width) + (width + hidden)
    assert 32 * 16 * per_rank == 41_943_040
    assert adapter_weight_bytes(LLAMA, ALL, 16, 1) == 2 * 41_943_040
    assert adapter_weight_bytes(LLAMA, ("qkv",), 8, 1) == 2 * 32 * 8 * ((hidden + query) + 2 * (hidden + key_value))


def test_shards_split_one_of_the_two_matrices() -> None:
    """By column the outputs, by row the inputs: A of qkv and up, and B of out and down, are on every device."""
    qkv, out, up, down = adapted_matrices(LLAMA, ALL, 4)
    assert [matrix.num_weights(16) for matrix in (qkv, out, up, down)] == [
        16 * (3 * 4096 + (4096 + 2 * 1024) // 4),
        16 * (1024 + 4096),
        16 * (2 * 4096 + 2 * 14336 // 4),
        16 * (14336 // 4 + 4096),
    ]


def test_costs_by_hand() -> None:
    """Rank 16 is bound by memory: x read, y read and written, two fp32 numbers a rank and slice between."""
    scenario = load_scenario(s.cluster(s.llm()), s.workload())
    device = scenario.devices["a100_sxm_80gb"]
    cost = adapter_cost(LLAMA, device, ("out",), 16, 1)
    bytes_per_s = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
    assert cost.token_s == pytest.approx(32 * (2 * (4096 + 2 * 4096) + 2 * 16 * 4) / bytes_per_s)
    assert cost.weight_s == pytest.approx(2 * 32 * 16 * 8192 / bytes_per_s)
    assert cost.step_s == 64 * device.cost_model.elementwise_launch_s
    wide = adapter_cost(LLAMA, device, ("out",), 4096, 1)
    by_compute_s = 32 * 2 * 4096 * 8192 / device.peak_flops_per_s["bf16"]
    assert wide.token_s >= by_compute_s * (1 - 1e-12) > cost.token_s


def test_slots_take_room_of_the_kv_cache() -> None:
    table = request_table([0.0], [10], [2])
    plans = []
    for lora in (None, {"max_loras": 32, "rank": 64}):
        scenario = load_scenario(s.cluster(s.llm(lora=lora)), s.workload())
        plans.append(lower(scenario, table).replicas[0].plan)
    without, with_slots = plans
    assert without is not None
    assert with_slots is not None
    assert without.kv_bytes - with_slots.kv_bytes == pytest.approx(32 * 4 * 2 * 41_943_040)


def test_a_load_crosses_the_link_to_the_host() -> None:
    scenario = load_scenario(s.cluster(s.llm(lora={"max_loras": 4, "adapters_on": "cpu"})), s.workload())
    replica = lower(scenario, request_table([0.0], [10], [2])).replicas[0]
    assert replica.costs is not None
    link = scenario.links["pcie4_x16"]
    expected_s = 2 * 41_943_040 / (link.bandwidth_bytes_per_s * link.efficiency_frac)
    assert replica.costs.adapter_load_s == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (s.llm(lora={"max_loras": 0}), "lora.max_loras: must be >= 1"),
        (s.llm(lora={"max_loras": 4, "targets": ["qkv", "qkv"]}), "'qkv' is there twice"),
        (s.llm(lora={"max_loras": 4, "adapters_on": "dram"}), "no device group 'dram' of node 'node' is linked"),
        (
            s.llm(model="qwen3_30b_a3b", placement={"gpu": 1}, lora={"max_loras": 4}),
            "qwen3_30b_a3b has no dense 'up': take some of qkv, out",
        ),
    ],
)
def test_what_cannot_be(engine: s.Document, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load_scenario(s.cluster(engine), s.workload())


def test_adapters_need_slots_somewhere() -> None:
    traffic = {**s.traffic(), "adapters": {"num_adapters": 4}}
    with pytest.raises(
        ConfigError, match=r"traffic\.adapters: no engine of the cluster has slots for adapters \(lora\)"
    ):
        load_scenario(s.cluster(s.llm()), s.workload(traffic=traffic))
