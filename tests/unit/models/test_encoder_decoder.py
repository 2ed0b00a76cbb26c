"""Encoder-decoder models: the work of both stacks, by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from pydantic import ValidationError

from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.encoder_decoder import decoder_stack, encoder_stack
from hermes_sim.models.families.encoder_decoders import bart
from hermes_sim.models.forward import (
    Batch,
    context_operators,
    decoder_operators,
    encoder_operators,
    encoder_pass_operators,
    token_operators,
)
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import kv_bytes_per_token, num_parameters, part_parameters
from tests.unit.models.config_examples import EXAMPLES
from tests.unit.models.shipped_models import models


def by_name(operators: Iterable[Operator]) -> dict[str, Operator]:
    return {operator.name: operator for operator in operators}


def test_parts_of_flan_t5_xxl_by_hand() -> None:
    parts = part_parameters(models()["flan_t5_xxl"])
    square = 4096 * 4096
    assert parts["embedding"] == parts["lm_head"] == 32128 * 4096  # shared by both stacks; the output matrix is apart
    assert parts["attention"] == (24 + 2 * 24) * 4 * square
    assert parts["mlp"] == 48 * 3 * 4096 * 10240
    # norms: two an encoder layer, three a decoder layer, one at the end of each; 32 buckets x 64 heads in each stack
    assert parts["other"] == (2 * 24 + 3 * 24 + 2) * 4096 + 2 * 32 * 64


def test_the_stacks_share_an_embedding_and_nothing_else() -> None:
    model = models()["bart_large_cnn"]
    cross = 12 * (4 * 1024 * 1024 + 4 * 1024 + 2 * 1024)  # four matrices, their biases, one norm
    both = num_parameters(encoder_stack(model)) + num_parameters(decoder_stack(model))
    assert num_parameters(model) == both - 50264 * 1024 + cross


def test_decoder_pass_has_a_second_attention() -> None:
    model = models()["flan_t5_xxl"]
    operators = by_name(token_operators(model, 10, tp=2))
    for name, shape in {"cross_q": (10, 2048, 4096), "cross_out": (10, 4096, 2048), "qkv": (10, 6144, 4096)}.items():
        assert (operators[name].m, operators[name].n, operators[name].k) == shape
        assert operators[name].count == 24
    assert operators["all_reduce"].count == 1 + 3 * 24
    assert operators["norm"].count == 3 * 24 + 1
    assert "rope" not in operators


def test_encoder_pass_ends_with_keys_and_values_for_every_decoder_layer() -> None:
    model = models()["bart_large_cnn"].model_copy(update={"num_layers": 3})
    operators = by_name(encoder_pass_operators(model, 100))
    assert (operators["encoder_qkv"].n, operators["encoder_qkv"].count) == (3 * 1024, 12)
    assert (operators["encoder_up"].n, operators["encoder_up"].count) == (4096, 12)
    assert operators["encoder_norm"].count == 2 * 12 + 1  # and the one after the embedding
    assert (operators["cross_kv"].m, operators["cross_kv"].n, operators["cross_kv"].count) == (100, 2048, 3)
    assert operators["cross_kv_write"].bytes == 2 * 100 * 2048 * 2
    assert not {"encoder_kv_write", "encoder_cross_q", "encoder_rope"} & operators.keys()
    assert encoder_pass_operators(models()["llama_3_8b"], 100) == ()


def test_prompts_attend_both_ways_and_their_start_tokens_to_the_prompt() -> None:
    model = models()["bart_large_cnn"]
    # prompts of 100 and 50 tokens
    batch = Batch(
        num_prefill=2,
        num_prefill_tokens=150,
        prefill_token_pairs=100 * 101 // 2 + 50 * 51 // 2,
        prefill_context_sum=150,
    )
    operators = by_name(context_operators(model, batch))
    assert operators["attention_prefill_full"].flops == 4 * 1024 * (100**2 + 50**2)
    assert operators["attention_prefill_full"].count == 12
    start = operators["attention_decode_full"]
    assert start.flops == 4 * 1024 * 150
    assert start.bytes == 2 * (2 * 1024 * 150) + 2 * 2 * (2 * 1024 * 2)


def test_a_decode_reads_prompt_and_generated_tokens_alike() -> None:
    """Cross-attention reads the prompt, self-attention the rest: the sum is that of a decoder-only model."""
    model = models()["flan_t5_xxl"]
    batch = Batch(num_decode=2, decode_context_sum=900)
    both = by_name(context_operators(model, batch))["attention_decode_full"]
    alone = by_name(context_operators(decoder_stack(model), batch))["attention_decode_full"]
    assert both.flops == alone.flops
    assert both.bytes - alone.bytes == 2 * 64 * 64 * 2 * 2  # a query and its output more, in bf16, of two sequences
    assert kv_bytes_per_token(model) == kv_bytes_per_token(decoder_stack(model)) == 24 * 2 * 4096 * 2


def test_a_step_is_the_sum_of_its_parts() -> None:
    model = models()["bart_large_cnn"]
    batch = Batch(num_prefill=1, num_prefill_tokens=20, prefill_token_pairs=210, prefill_context_sum=20, num_sampled=1)
    names = [operator.name for operator in decoder_operators(model, batch)]
    assert names.count("encoder_qkv") == names.count("qkv") == names.count("logits") == 1
    assert by_name(decoder_operators(model, batch))["qkv"].m == 1


def test_only_the_encoder_embeds() -> None:
    model = models()["flan_t5_xxl"]
    embed = encoder_operators(model, 512, 128)
    assert embed == encoder_operators(encoder_stack(model), 512, 128)
    assert by_name(embed)["attention_prefill_full"].flops == 4 * 4096 * 512 * 128


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "decoder"},
        {"num_encoder_layers": 0},
        {"num_sliding_layers": 2, "sliding_window": 10},
        {"moe": {"num_experts": 8, "num_experts_per_token": 2, "expert_intermediate_size": 8}},
    ],
)
def test_shapes_that_no_encoder_decoder_has_are_refused(changes: dict[str, object]) -> None:
    shape = models()["bart_large_cnn"].model_dump(by_alias=True)
    with pytest.raises(ValidationError, match="encoder"):
        ModelArchitecture.model_validate({**shape, **changes})


def test_stacks_of_different_width_are_refused() -> None:
    with pytest.raises(ValueError, match="encoder_ffn_dim 4096 and decoder_ffn_dim 2048 differ"):
        bart({**EXAMPLES["bart_large_cnn"], "decoder_ffn_dim": 2048})
