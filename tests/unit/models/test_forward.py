"""The operators of a forward pass: by hand, and against the parameter counts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.forward import (
    Batch,
    context_operators,
    decoder_operators,
    encoder_operators,
    encoder_pass_operators,
    expected_distinct_experts,
    sampling_operators,
    token_operators,
)
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import part_parameters
from tests.unit.models.shipped_models import models

ALL = sorted(models())
DECODERS = [name for name in ALL if models()[name].family != "encoder"]


def by_name(operators: Iterable[Operator]) -> dict[str, Operator]:
    return {operator.name: operator for operator in operators}


def multiplied_parameters(model: ModelArchitecture) -> float:
    """Matrix elements that one token meets, the output matrix included."""
    parts = part_parameters(model)
    total = parts["attention"] + parts["mlp"] + parts["shared_experts"] + parts["state_space"] + parts["router"]
    if model.moe is not None:
        total += parts["experts"] * model.moe.num_experts_per_token // model.moe.num_experts
        total -= model.num_moe_layers * model.moe.num_experts if model.moe.router_bias else 0
    return total + (0 if model.family == "encoder" else model.vocab_size * model.hidden_size)


@pytest.mark.parametrize("name", ALL)
def test_matrix_flops_are_two_per_parameter_and_token(name: str) -> None:
    model, num_tokens = models()[name], 8
    operators = [*token_operators(model, num_tokens), *encoder_pass_operators(model, num_tokens)]
    if model.family != "encoder":
        operators += sampling_operators(model, num_tokens)
    flops = sum(operator.total_flops for operator in operators if operator.kind == "gemm" or operator.name == "conv")
    assert flops == pytest.approx(2.0 * num_tokens * multiplied_parameters(model), rel=1e-12)


@pytest.mark.parametrize("name", ["llama_3_70b", "llama_3_8b", "mistral_7b", "qwen3_32b", "falcon_180b"])
@pytest.mark.parametrize("tp", [2, 4, 8])
def test_shards_of_a_dense_model_share_its_flops_evenly(name: str, tp: int) -> None:
    model = models()[name]
    whole = sum(op.total_flops for op in token_operators(model, 64) if op.kind == "gemm")
    shard = sum(op.total_flops for op in token_operators(model, 64, tp=tp) if op.kind == "gemm")
    assert shard * tp == pytest.approx(whole, rel=1e-12)


def test_llama_3_70b_tp4_by_hand() -> None:
    operators = by_name(token_operators(models()["llama_3_70b"], 100, tp=4))
    assert (operators["qkv"].m, operators["qkv"].n, operators["qkv"].k) == (100, (64 + 2 * 8) // 4 * 128, 8192)
    assert (operators["out"].m, operators["out"].n, operators["out"].k) == (100, 8192, 2048)
    assert (operators["up"].n, operators["up"].k) == (2 * 28672 // 4, 8192)
    assert (operators["down"].n, operators["down"].k) == (8192, 28672 // 4)
    assert {operators[name].count for name in ("qkv", "out", "up", "down", "act", "rope")} == {80}
    assert operators["qkv"].bytes == 2 * (2560 * 8192 + 100 * (2560 + 8192))
    # Two a layer and one after the embedding, each of the hidden states.
    assert (operators["all_reduce"].count, operators["all_reduce"].bytes) == (161, 100 * 8192 * 2)
    # Two a layer and the last one: input and residual read, sum and norm written.
    assert (operators["norm"].count, operators["norm"].bytes) == (161, 4 * 100 * 8192 * 2)


def test_more_devices_than_kv_heads_copy_them() -> None:
    operators = by_name(token_operators(models()["llama_3_8b"], 1, tp=16))
    assert operators["qkv"].n == (2 + 2 * 1) * 128


def test_one_all_reduce_a_layer_where_branches_are_parallel() -> None:
    assert by_name(token_operators(models()["falcon_180b"], 1, tp=8))["all_reduce"].count == 81


def test_sampling_by_hand() -> None:
    logits, gather, sampler = sampling_operators(models()["llama_3_8b"], 3, tp=2)
    assert (logits.m, logits.n, logits.k) == (3, 64128, 4096)
    assert gather.bytes == 3 * 128256 * 2
    assert sampler.bytes == 3 * 4 * 3 * 128256
    assert sampling_operators(models()["llama_3_8b"], 0) == ()


def test_grouped_query_attention_by_hand() -> None:
    model = models()["llama_3_8b"]
    batch = Batch(
        num_decode=3, decode_context_sum=600, num_prefill=1, num_prefill_tokens=10, prefill_token_pairs=55,
        prefill_context_sum=10,
    )  # fmt: skip
    operators = by_name(context_operators(model, batch, tp=2))
    prefill, decode = operators["attention_prefill_full"], operators["attention_decode_full"]
    assert (prefill.count, decode.count) == (32, 32)
    assert prefill.flops == 4 * 16 * 128 * 55
    assert decode.flops == 4 * 16 * 128 * 600
    assert decode.bytes == 2 * (2 * 4 * 128 * 600) + 2 * (2 * 16 * 128 * 3)
    assert by_name(context_operators(model, batch, tp=2, kv_dtype="fp8"))["attention_decode_full"].bytes == (
        2 * 4 * 128 * 600 + 2 * (2 * 16 * 128 * 3)
    )


def test_sliding_layers_look_back_one_window() -> None:
    operators = by_name(context_operators(models()["gpt_oss_120b"], Batch(num_decode=2, decode_context_sum=2000)))
    full, sliding = operators["attention_decode_full"], operators["attention_decode_sliding"]
    assert (full.count, sliding.count) == (18, 18)
    assert full.flops == 4 * 64 * 64 * 2000
    assert sliding.flops == 4 * 64 * 64 * 2 * 128


def test_latent_attention_by_hand() -> None:
    model = models()["deepseek_r1"]
    operators = by_name(context_operators(model, Batch(num_decode=1, decode_context_sum=1000), tp=8))
    decode = operators["attention_decode_latent"]
    # 16 heads; query-key product over 512 + 64 numbers, weighted sum over 512; the latent is on every device.
    assert decode.flops == 2 * 16 * (576 + 512) * 1000
    assert decode.bytes == 576 * 2 * 1000 + 16 * (576 + 512) * 2
    chunk = Batch(num_prefill=1, num_prefill_tokens=4, prefill_token_pairs=4 * 6 + 10, prefill_context_sum=10)
    operators = by_name(context_operators(model, chunk))
    assert operators["attention_prefill_expanded"].flops == 2 * 128 * (192 + 128) * 34
    assert (operators["kv_up_context"].m, operators["kv_up_context"].n) == (6, 128 * 256)


def test_sparse_attention_by_hand() -> None:
    operators = by_name(context_operators(models()["deepseek_v3_2"], Batch(num_decode=1, decode_context_sum=100_000)))
    assert operators["indexer_scores"].flops == 2 * 64 * 128 * 100_000
    assert operators["indexer_scores"].bytes == 132 * 100_000
    assert operators["attention_decode_latent"].flops == 2 * 128 * 1088 * 2048


def test_recurrence_by_hand() -> None:
    (scan,) = context_operators(models()["mamba2_2_7b"], Batch(num_decode=2, decode_context_sum=50_000))
    assert scan.count == 64
    assert scan.flops == 5 * 5120 * 128 * 2
    state_bytes = 5120 * 128 * 4 + 3 * 5376 * 2
    assert scan.bytes == 2 * 2 * state_bytes + 2 * (5376 + 5120) * 2


def test_experts_by_hand() -> None:
    model = models()["mixtral_8x7b"]
    operators = by_name(token_operators(model, 1, tp=2, ep=2))
    up = operators["experts_up"]
    # One token: two of eight experts, one on each of two devices on average.
    assert (up.m, up.n, up.k, up.num_groups) == (1, 2 * 14336, 4096, 4)
    assert up.bytes == pytest.approx(2 * (1.0 * up.n * up.k + up.n + up.k))
    split = by_name(token_operators(model, 1, tp=2))["experts_up"]
    assert (split.m, split.n, split.num_groups) == (2, 14336, 8)


def test_many_tokens_read_every_expert_once() -> None:
    model = models()["qwen3_30b_a3b"]
    up = by_name(token_operators(model, 100_000))["experts_up"]
    weights = 128 * up.n * up.k * 2
    assert up.bytes - 100_000 * 8 * (up.n + up.k) * 2 == pytest.approx(weights, rel=1e-9)


@given(st.integers(1, 512), st.data())
def test_distinct_experts_lie_between_one_choice_and_all(num_experts: int, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(1, num_experts))
    num_tokens = data.draw(st.integers(1, 10_000))
    distinct = expected_distinct_experts(num_experts, chosen, num_tokens)
    assert chosen * (1 - 1e-12) <= distinct <= min(num_experts, chosen * num_tokens) * (1 + 1e-12)
    assert expected_distinct_experts(num_experts, chosen, 1) == pytest.approx(chosen)


def test_distinct_experts_of_two_choices_by_enumeration() -> None:
    # Two tokens, one of three experts each: 3 of 9 cases name one expert, 6 name two.
    assert expected_distinct_experts(3, 1, 2) == pytest.approx((3 * 1 + 6 * 2) / 9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DECODERS), st.sampled_from([1, 2, 4, 8]), st.integers(1, 3000), st.integers(1, 500))
def test_work_is_positive_and_grows_with_tokens(name: str, tp: int, num_tokens: int, more: int) -> None:
    model = models()[name]
    few, many = (by_name(token_operators(model, count, tp=tp)) for count in (num_tokens, num_tokens + more))
    assert few.keys() == many.keys()
    for key, operator in few.items():
        assert 0 < operator.total_bytes <= many[key].total_bytes
        assert 0 <= operator.total_flops <= many[key].total_flops


@pytest.mark.parametrize("name", [name for name in DECODERS if not models()[name].num_encoder_layers])
def test_a_step_is_the_sum_of_its_three_lists(name: str) -> None:
    model = models()[name]
    batch = Batch(1, 100, 1, 20, 210, 20, 2)
    step = decoder_operators(model, batch, tp=2)
    assert step == (
        *token_operators(model, 21, tp=2), *context_operators(model, batch, tp=2), *sampling_operators(model, 2, tp=2)
    )  # fmt: skip
    assert decoder_operators(model, Batch()) == ()


@pytest.mark.parametrize("name", ["llama_3_8b", "deepseek_r1", "deepseek_v3_2", "gpt_oss_20b", "qwen3_5_397b_a17b"])
def test_verified_drafts_add_queries_but_read_the_cache_once(name: str) -> None:
    """Three drafts beside each of 4 tokens: four times the arithmetic, the same keys and values."""
    model = models()[name]
    plain, verified = (
        by_name(context_operators(model, Batch(num_decode=4, decode_context_sum=8000, num_draft_tokens=drafts)))
        for drafts in (0, 12)
    )
    assert plain.keys() == verified.keys()
    for key, operator in plain.items():
        assert verified[key].flops == 4 * operator.flops
        assert operator.bytes <= verified[key].bytes < 4 * operator.bytes
    assert Batch(num_decode=4, num_draft_tokens=12).num_tokens == 16


@pytest.mark.parametrize("name", ["e5_base", "bge_reranker_base", "llama_3_8b"])
def test_encoder_attends_within_each_sequence(name: str) -> None:
    model = models()[name]
    operators = by_name(encoder_operators(model, 512, 128))
    pairs = 512 * 128 if model.family == "encoder" else 4 * (128 * 129 // 2)
    assert operators["attention_prefill_full"].flops == 4 * model.num_heads * model.head_dim * pairs
    assert encoder_operators(model, 0, 128) == ()


def test_encoder_heads_by_hand() -> None:
    operators = by_name(encoder_operators(models()["bge_reranker_base"], 512, 128))
    assert (operators["pooler"].m, operators["pooler"].n, operators["pooler"].k) == (4, 768, 768)
    assert (operators["classifier"].m, operators["classifier"].n) == (4, 1)
    assert "kv_write" not in operators
    assert "rope" not in operators


def test_operator_derives_what_is_not_stated() -> None:
    operator = Operator("product", "gemm", count=3, m=2, n=5, k=7, dtype="fp32")
    assert operator.flops_per_call == 2 * 2 * 5 * 7
    assert operator.bytes_per_call == 4 * (2 * 7 + 7 * 5 + 2 * 5)
    assert operator.total_flops == 3 * operator.flops_per_call
    assert operator.total_bytes == 3 * operator.bytes_per_call
    assert Operator("stated", "scan", flops=9.0, bytes=4.0).total_flops == 9.0
