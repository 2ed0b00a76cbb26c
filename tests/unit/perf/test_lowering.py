"""Rows of numbers against the operators they stand for, and the models of expert routing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hermes_sim.models.expert_load import ZipfLoad
from hermes_sim.models.forward import expected_distinct_experts, sampling_operators, token_operators
from hermes_sim.perf.expert_routing import busiest_rows, distinct_experts, mean_distinct_experts
from hermes_sim.perf.operator_rows import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    COUNT,
    EXPERTS_PER_TOKEN,
    GROUPED_GEMM,
    KIND,
    NETWORK,
    NUM_EXPERTS,
    SEND,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    WEIGHT_BYTES,
)
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine, plain_device, tiny_model

MODELS = ("llama_3_70b", "mixtral_8x7b", "deepseek_r1", "gpt_oss_120b", "falcon_180b", "opt_13b", "mamba2_2_7b")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_tokens", [16, 160, 4096])
def test_rows_state_the_work_of_the_operators(name: str, num_tokens: int) -> None:
    model = models()[name]
    ep = 2 if model.moe else 1
    cost = engine(model, devices()["h100_sxm"], tp=2, ep=ep)
    operators = token_operators(model, num_tokens, tp=2, ep=ep)
    assert cost.token_operators.names == tuple(operator.name for operator in operators)
    for row, operator in zip(cost.token_operators.rows, operators, strict=True):
        weights = row[WEIGHT_BYTES]
        if operator.num_groups > 1:
            weights *= distinct_experts(num_tokens, row[NUM_EXPERTS], row[EXPERTS_PER_TOKEN]) / ep
        assert row[TOKEN_FLOPS] * num_tokens == pytest.approx(operator.flops_per_call, rel=1e-12)
        assert weights + row[TOKEN_BYTES] * num_tokens == pytest.approx(operator.bytes_per_call, rel=1e-9)
        assert row[COUNT] == operator.count


def test_sampling_rows_state_the_work_of_the_operators() -> None:
    cost = engine(models()["llama_3_8b"], devices()["h100_sxm"], tp=2)
    operators = sampling_operators(models()["llama_3_8b"], 33, tp=2)
    for row, operator in zip(cost.sampling_operators.rows, operators, strict=True):
        moved = row[WEIGHT_BYTES] + 33 * row[TOKEN_BYTES]
        assert moved == pytest.approx(operator.bytes_per_call, rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("load", [None, ZipfLoad(exponent=0.5)])
def test_bytes_are_the_sum_over_the_rows(name: str, load: ZipfLoad | None) -> None:
    """Weights once a step, of experts those that a step of the mean size reads; what goes over links is no traffic."""
    model = models()[name]
    lowered = engine(
        model, devices()["h100_sxm"], tp=2, ep=2 if model.moe else 1, expert_load=load if model.moe else None
    ).token_operators
    num_steps, num_tokens = np.array([1.0, 7.0, 0.0, 30.0]), np.array([16.0, 9000.0, 0.0, 31.0])
    expected = np.zeros(4)
    for row in lowered.rows:
        if row[KIND] in (
            ALL_REDUCE,
            ALL_GATHER,
            SEND,
            ALL_TO_ALL,
        ):
            continue
        for place in (0, 1, 3):
            weights = row[WEIGHT_BYTES]
            if row[KIND] == GROUPED_GEMM:
                tokens = num_tokens[place] / num_steps[place]
                if load is None:
                    experts = row[NUM_EXPERTS], row[EXPERTS_PER_TOKEN]
                    weights *= distinct_experts(tokens, *experts) / 2
                else:
                    weights *= mean_distinct_experts(lowered.expert_rates, tokens)
            each = num_steps[place] * weights + num_tokens[place] * row[TOKEN_BYTES]
            expected[place] += row[COUNT] * each
    np.testing.assert_allclose(lowered.bytes(num_steps, num_tokens), expected, rtol=1e-12)


def test_table_is_the_sum_of_its_rows() -> None:
    lowered = engine(models()["mixtral_8x7b"], devices()["a100_sxm_80gb"], tp=2, max_tokens=80).token_operators
    table = lowered.table(80)
    assert (table[0] == 0.0).all()
    for num_tokens in (1, 17, 80):
        by_resource = np.zeros(4)
        for index in range(len(lowered.names)):
            seconds, resource = lowered.seconds(index, num_tokens)
            by_resource[resource] += seconds
        np.testing.assert_array_equal(table[num_tokens], by_resource)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("device", ["a100_sxm_80gb", "b200_sxm", "l40s", "xeon_8480plus", "tpu_v6e"])
def test_more_tokens_never_take_less_time(name: str, device: str) -> None:
    total = engine(models()[name], devices()[device], tp=2, max_tokens=1500).linear.sum(axis=1)
    assert (np.diff(total) >= -1e-15).all()


def test_expert_counts_agree_with_the_model() -> None:
    for num_tokens in (1, 3, 50, 5000):
        assert distinct_experts(num_tokens, 256.0, 8.0) == pytest.approx(
            expected_distinct_experts(256, 8, num_tokens), rel=1e-12
        )
    assert distinct_experts(1.0, 256.0, 8.0) == pytest.approx(8.0, rel=1e-12)
    assert distinct_experts(5.0, 8.0, 8.0) == 8.0


def test_busiest_device_has_more_than_the_mean_but_no_more_than_all() -> None:
    assert busiest_rows(100.0, 1.0) == 100.0
    assert busiest_rows(10_000.0, 8.0) == pytest.approx(10_000 + math.sqrt(2 * 10_000 * math.log(8)), rel=1e-12)
    assert busiest_rows(0.5, 4.0) <= 2.0


def test_busiest_device_agrees_with_throwing_balls() -> None:
    rng = np.random.default_rng(7)
    loads = rng.multinomial(8 * 2000, np.full(8, 1 / 8), size=2000).max(axis=1)
    assert busiest_rows(2000.0, 8.0) == pytest.approx(loads.mean(), rel=0.03)


def test_experts_of_a_small_batch_cost_their_weights() -> None:
    """One token of Mixtral reads two experts; many tokens read all eight."""
    model = models()["mixtral_8x7b"]
    lowered = engine(model, plain_device(), max_tokens=64).token_operators
    up = lowered.names.index("experts_up")
    expert_s = 2.0 * model.hidden_size * 14336 * 2 / 0.5e12 * model.num_layers
    one_s, many_s = lowered.seconds(up, 1)[0], lowered.seconds(up, 64)[0]
    assert one_s == pytest.approx(2 * expert_s, rel=0.01)
    assert many_s == pytest.approx(8 * expert_s, rel=0.03)


def test_experts_pay_for_routing_and_a_slower_kernel() -> None:
    """Launches are shared out over both products; weights stream at the format's share of the bandwidth."""
    model = models()["mixtral_8x7b"]
    entry = {"compute_frac": 1.0, "memory_frac": 0.25, "launch": "10 us", "stream_frac": 0.5}
    lowered = engine(model, plain_device(experts={"bf16": entry}), max_tokens=64).token_operators
    distinct = distinct_experts(16.0, 8.0, 2.0)
    rows = 16 * 2
    for name, n, k in (("experts_up", 2 * 14336, 4096), ("experts_down", 4096, 14336)):
        moved = 2.0 * (distinct * n * k + rows * (n + k))
        expected_s = 5e-6 + moved / 0.25e12
        assert lowered.seconds(lowered.names.index(name), 16)[0] / model.num_layers == pytest.approx(expected_s)
    act_s = lowered.seconds(lowered.names.index("experts_act"), 16)[0] / model.num_layers
    assert act_s == pytest.approx(2.0 * 3 * 14336 * rows / 0.5e12)


def test_one_expert_a_device_is_still_a_layer_of_experts() -> None:
    lowered = engine(models()["mixtral_8x7b"], devices()["b200_sxm"], tp=8, ep=8, max_tokens=64).token_operators
    kinds = dict(zip(lowered.names, lowered.rows[:, KIND], strict=True))
    assert kinds["experts_up"] == kinds["experts_down"] == GROUPED_GEMM
    assert np.isfinite(lowered.table(64)).all()


def test_pipeline_sends_its_hidden_states_between_stages() -> None:
    cost = engine(tiny_model(), plain_device(), pp=2)
    assert cost.token_operators.names[-1] == "pipeline_send"
    seconds, resource = cost.token_operators.seconds(len(cost.token_operators.names) - 1, 100)
    assert seconds == pytest.approx(10e-6 + 100 * 1024 * 2 / 10e9, rel=1e-12)
    assert resource == NETWORK
