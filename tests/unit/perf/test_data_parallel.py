"""DP attention: ranks that share their experts, by hand and against tensor parallelism."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from hermes_sim.models.forward import expected_shares_reached, token_operators
from hermes_sim.perf.expert_routing import busiest_rows
from hermes_sim.perf.operator_rows import NETWORK
from hermes_sim.perf.operator_table import StepBatch
from hermes_sim.perf.operators.collective import all_to_all_seconds
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.perf.step_kernel import FIRST_KIND
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine, plain_device, tiny_model

EP_LINK = {"ep_bandwidth_bytes_per_s": 50e9, "ep_latency_s": 20e-6}


def operator_seconds(cost: LlmCost, name: str, num_tokens: int) -> float:
    return cost.token_operators.seconds(cost.token_operators.names.index(name), num_tokens)[0]


@pytest.mark.parametrize("name", ["llama_3_8b", "deepseek_r1", "gpt_oss_120b"])
def test_one_rank_is_the_engine_without_ranks(name: str) -> None:
    plain, one = (engine(models()[name], devices()["h100_sxm"], tp=2, **link) for link in ({}, {"dp": 1, **EP_LINK}))
    for table in ("linear", "decode_linear", "sampled", "attention", "power_w"):
        np.testing.assert_array_equal(getattr(plain, table), getattr(one, table))


@pytest.mark.parametrize("name", ["experts_up", "experts_down", "experts_act"])
def test_experts_of_four_ranks_are_those_of_four_devices(name: str) -> None:
    """Experts see the tokens of all ranks: those of one engine over the same devices with as many tokens."""
    model, device = models()["qwen3_30b_a3b"], devices()["h100_sxm"]
    ranks = engine(model, device, dp=4, ep=4, **EP_LINK)
    group = engine(model, device, tp=4, ep=4)
    for num_tokens in (1, 16, 256):
        of_all = operator_seconds(group, name, 4 * num_tokens)
        assert operator_seconds(ranks, name, num_tokens) == pytest.approx(of_all, rel=1e-12)


@pytest.mark.parametrize("name", ["qkv", "out", "router", "norm"])
def test_attention_of_a_rank_is_that_of_one_device(name: str) -> None:
    model, device = models()["qwen3_30b_a3b"], devices()["h100_sxm"]
    ranks, alone = engine(model, device, dp=4, ep=4, **EP_LINK), engine(model, device)
    assert operator_seconds(ranks, name, 64) == operator_seconds(alone, name, 64)
    np.testing.assert_array_equal(ranks.attention[FIRST_KIND:], alone.attention[FIRST_KIND:])


def test_dispatch_and_return_by_hand() -> None:
    """8 of 128 experts over 4 devices; a token goes once to each device that holds one of its experts."""
    model = models()["qwen3_30b_a3b_fp8"]
    cost = engine(model, devices()["h100_sxm"], dp=4, ep=4, **EP_LINK)
    reached = expected_shares_reached(128, 8, 4)
    busiest = busiest_rows(100 * 4 * 8 / 4, 4) / (100 * 8)
    for name, width in (("experts_dispatch", 1), ("experts_return", 2)):  # fp8 there, bf16 back
        sent = 100 * 2048 * width * reached * busiest
        expected = model.num_moe_layers * (20e-6 + 0.75 * sent / 50e9)
        assert operator_seconds(cost, name, 100) == pytest.approx(expected, rel=1e-9)
    table = {line.operator: line for line in cost.operator_table(num_tokens=100, num_sampled=0, num_prefill=1)}
    assert table["experts_dispatch"].bound == "network"


def test_shares_reached_by_enumeration() -> None:
    # two of four experts in two shares: both in one share in 2 of 6 choices
    assert expected_shares_reached(4, 2, 2) == pytest.approx((2 * 1 + 4 * 2) / 6)
    assert expected_shares_reached(64, 1, 8) == pytest.approx(1.0)
    assert expected_shares_reached(8, 8, 4) == 4.0


def test_experts_cut_over_all_devices_are_gathered_and_reduced() -> None:
    """ep = 1: every device has a part of every expert, so every token goes to every other device."""
    model = models()["mixtral_8x7b"]
    operators = {operator.name: operator for operator in token_operators(model, 10, tp=2, ep=1, dp=3)}
    # a device sends half of its rank's tokens to all six devices
    assert operators["experts_dispatch"].bytes == operators["experts_return"].bytes == 10 / 2 * 4096 * 6 * 2
    assert operators["experts_up"].n == 2 * -(-14336 // 6)
    assert operators["experts_up"].m == 3 * 10 * 2


def test_ranks_of_a_dense_model_do_not_talk() -> None:
    cost = engine(tiny_model(), plain_device(), dp=4)
    assert (cost.linear[:, NETWORK] == 0.0).all()
    np.testing.assert_array_equal(cost.linear, engine(tiny_model(), plain_device()).linear)


def test_ranks_that_share_experts_need_a_link() -> None:
    with pytest.raises(ValueError, match="need the bandwidth of the links between them"):
        engine(models()["mixtral_8x7b"], devices()["h100_sxm"], dp=2, ep=2)


def test_totals_and_power_are_of_one_rank() -> None:
    """With whole experts a rank's share of the work is the work of its tokens."""
    model, device = models()["deepseek_r1"], devices()["h200_sxm"]
    rank = engine(model, device, dp=8, ep=8, **EP_LINK)
    group = engine(model, device, tp=8, ep=8)
    assert rank.power_w == pytest.approx(group.power_w / 8)
    batch = StepBatch(64, 64, 64, 64_000, 1000)
    lines = rank.operator_table(**asdict(batch))
    whole = group.operator_table(num_tokens=512, num_sampled=512, num_decode=512, decode_context_sum=512_000)
    flops, flops_of_all = (sum(line.flops for line in each if "experts" in line.operator) for each in (lines, whole))
    assert flops == pytest.approx(flops_of_all / 8, rel=1e-12)
    assert rank.seconds(batch)[NETWORK] > 0.0


def test_all_to_all_closed_form() -> None:
    assert all_to_all_seconds(8e6, 1, 100e9, 5e-6) == 0.0
    assert all_to_all_seconds(8e6, 4, 100e9, 5e-6) == pytest.approx(5e-6 + 6e6 / 100e9, rel=1e-12)


def test_more_tokens_never_take_less_time() -> None:
    for name in ("deepseek_r1", "mixtral_8x7b"):
        cost = engine(models()[name], devices()["b200_sxm"], dp=8, ep=8, max_tokens=1000, **EP_LINK)
        assert (np.diff(cost.linear.sum(axis=1)) >= -1e-15).all()


def test_operator_table_adds_up_to_the_step() -> None:
    cost = engine(models()["deepseek_r1"], devices()["h200_sxm"], tp=2, dp=4, ep=8, **EP_LINK)
    batch = StepBatch(64, 64, 64, 64_000, 1000)
    total_s = sum(line.seconds for line in cost.operator_table(**asdict(batch)))
    assert total_s == pytest.approx(cost.seconds(batch).sum(), rel=1e-12)
