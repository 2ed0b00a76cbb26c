"""The operators of one forward pass, on one device of a tensor-parallel group, without any notion of time.

Shapes follow Megatron-LM's split (arXiv 1909.08053): query, key, value, gate and up by column, output and down by row,
one all-reduce after each row-split matrix, embedding and logits by vocabulary. A dimension that tp does not divide is
padded. What depends on the number of tokens alone (`token_operators`) is kept apart from what depends on contexts
(`context_operators`) and on sampled sequences (`sampling_operators`), so that each can be tabulated.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, comb

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.models.architecture import Mla, ModelArchitecture, Moe, StateSpace
from hermes_sim.models.attention import Batch, context_operators
from hermes_sim.models.encoder_decoder import encoder_stack
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import bytes_per_weight, compute_dtype, part_quantization
from hermes_sim.models.shards import elementwise, gemm, share, with_side_paths

__all__ = [
    "Batch",
    "context_operators",
    "decoder_operators",
    "encoder_operators",
    "encoder_pass_operators",
    "expected_distinct_experts",
    "sampling_operators",
    "token_operators",
]


def expected_distinct_experts(num_experts: int, num_experts_per_token: int, num_tokens: float) -> float:
    """Experts that at least one of `num_tokens` tokens chooses, if every choice of k out of E is equally likely.

    E (1 - (1 - k / E)^T): an expert is missed by one token with probability 1 - k / E.
    """
    return num_experts * (1.0 - float((1.0 - num_experts_per_token / num_experts) ** num_tokens))


def decoder_operators(
    model: ModelArchitecture, batch: Batch, *, tp: int = 1, ep: int = 1, kv_dtype: Dtype | None = None
) -> tuple[Operator, ...]:
    """Every operator of one step of a decoder, on one device of a tensor-parallel group of `tp`.

    The experts are spread over `ep` shares of the tp devices (ep divides tp); the devices of a share split each expert.
    An encoder-decoder model takes prompts through its encoder, and each prompt's start token through the decoder.
    """
    if model.num_encoder_layers > 0:
        return (
            *encoder_pass_operators(model, batch.num_prefill_tokens, tp=tp),
            *token_operators(model, batch.num_decode_tokens + batch.num_prefill, tp=tp),
            *context_operators(model, batch, tp=tp, kv_dtype=kv_dtype),
            *sampling_operators(model, batch.num_sampled, tp=tp),
        )
    return (
        *token_operators(model, batch.num_tokens, tp=tp, ep=ep),
        *context_operators(model, batch, tp=tp, kv_dtype=kv_dtype),
        *sampling_operators(model, batch.num_sampled, tp=tp),
    )


def token_operators(
    model: ModelArchitecture, num_tokens: int, *, tp: int = 1, ep: int = 1, dp: int = 1
) -> tuple[Operator, ...]:
    """Operators whose work depends on the number of new tokens alone: all but attention, recurrence and logits.

    Of an encoder-decoder model: the decoder's. With dp > 1 ranks of `tp` devices, each with `num_tokens` of its own,
    experts are spread over `ep` shares of all tp x dp devices, and tokens travel to them and back.
    """
    if num_tokens == 0:
        return ()
    operators = [*_embedding(model, num_tokens, tp), *_norms(model, num_tokens)]
    if model.num_attention_layers > 0:
        attention = _latent_projections if model.mla is not None else _head_projections
        operators += attention(model, num_tokens, tp)
    if model.num_encoder_layers > 0:
        operators += _cross_projections(model, num_tokens, tp)
    if model.state_space is not None:
        operators += _state_space_projections(model, model.state_space, num_tokens, tp)
    if model.num_dense_layers > 0:
        operators += _mlp(model, num_tokens, tp)
    if model.moe is not None:
        operators += _experts(model, model.moe, num_tokens, tp, ep, dp)
    return (*with_side_paths(model, operators), *_all_reduces(model, num_tokens, tp))


def sampling_operators(
    model: ModelArchitecture, num_sampled: int, *, tp: int = 1, sort_bytes_per_logit: float = 0.0
) -> tuple[Operator, ...]:
    """Logits of the sequences that get a token, gathered over the group, and the sampler's passes over them.

    The sampler reads the fp32 logits three times: temperature, softmax, choice. Top-p sampling sorts them first.
    """
    if num_sampled == 0:
        return ()
    vocab = share(model.vocab_size, tp)
    logits = gemm(model, "logits", "lm_head", num_sampled, vocab, model.hidden_size, 1)
    bytes_per_logit = 3.0 * DTYPE_BYTES["fp32"] + sort_bytes_per_logit
    sampler = Operator("sampler", "elementwise", bytes=bytes_per_logit * num_sampled * model.vocab_size)
    products = tuple(with_side_paths(model, [logits]))
    if tp == 1:
        return *products, sampler
    message = float(num_sampled) * model.vocab_size * DTYPE_BYTES[model.activation_dtype]
    return *products, Operator("logits_all_gather", "collective", bytes=message), sampler


def encoder_pass_operators(model: ModelArchitecture, num_tokens: int, *, tp: int = 1) -> tuple[Operator, ...]:
    """What an encoder-decoder model does with its prompts, attention apart: encoder, then keys and values for decoding.

    Every layer of the decoder projects the encoder's output to keys and values once and keeps them in the KV cache.
    Nothing for a model without an encoder of its own.
    """
    if num_tokens == 0 or model.num_encoder_layers == 0:
        return ()
    encoder = token_operators(encoder_stack(model), num_tokens, tp=tp)
    key_value = 2 * share(model.num_kv_heads, tp) * model.head_dim
    layers = model.num_layers
    return (
        *(replace(operator, name=f"encoder_{operator.name}") for operator in encoder),
        gemm(model, "cross_kv", "attention", num_tokens, key_value, model.hidden_size, layers),
        elementwise(model, "cross_kv_write", 2.0 * num_tokens * key_value, layers),
    )


def encoder_operators(model: ModelArchitecture, num_tokens: int, sequence_len: int) -> tuple[Operator, ...]:
    """One pass over whole sequences of `sequence_len` tokens, `num_tokens` in all, on one device; nothing is cached.

    An encoder attends both ways, that of an encoder-decoder model too; a decoder used to embed or to rank attends
    causally. Then the pooler or the classification head of each sequence.
    """
    if model.family == "encoder_decoder":
        model = encoder_stack(model)
    if num_tokens == 0:
        return ()
    sequence_len = max(1, min(sequence_len, num_tokens))
    num_sequences = max(1, round(num_tokens / sequence_len))
    causal = model.family != "encoder"
    pairs = num_tokens * (sequence_len + 1) // 2 if causal else num_tokens * sequence_len
    batch = Batch(
        num_prefill=num_sequences,
        num_prefill_tokens=num_tokens,
        prefill_token_pairs=pairs,
        prefill_context_sum=num_tokens,
    )
    hidden, dtype = model.hidden_size, model.weight_dtype
    operators = [*token_operators(model, num_tokens), *context_operators(model, batch)]
    if model.pooler:
        operators.append(Operator("pooler", "gemm", m=num_sequences, n=hidden, k=hidden, dtype=dtype))
    if model.num_labels:
        operators.append(Operator("classifier", "gemm", m=num_sequences, n=model.num_labels, k=hidden, dtype=dtype))
    return tuple(operators)


def _embedding(model: ModelArchitecture, num_tokens: int, tp: int) -> list[Operator]:
    """Rows looked up and written; each device holds a share of the vocabulary, and writes zeros for the rest.

    An encoder that is fed vectors looks none up.
    """
    width = model.embedding_size or model.hidden_size
    moved = num_tokens * width * (1.0 + 1.0 / tp) * DTYPE_BYTES[model.activation_dtype]
    operators = []
    if model.vocab_size > 0:
        operators.append(Operator("embedding", "gather", bytes=moved, dtype=model.activation_dtype))
    if model.learned_positions or model.token_types:
        tables = int(model.learned_positions > 0) + int(model.token_types > 0)
        operators.append(elementwise(model, "position_embedding", num_tokens * model.hidden_size * (2.0 + tables), 1))
    if model.embedding_size:
        for name, n, k in (
            ("embedding_in", model.hidden_size, model.embedding_size),
            ("embedding_out", model.embedding_size, model.hidden_size),
        ):
            operators.append(Operator(name, "gemm", m=num_tokens, n=n, k=k, dtype=model.weight_dtype))
    return operators


def _norms(model: ModelArchitecture, num_tokens: int) -> list[Operator]:
    """Norms fused with the residual addition: read the layer's output and the residual, write both."""
    per_layer = model.num_norms_per_layer + int(model.num_encoder_layers > 0)  # one before the cross-attention
    count = model.num_layers * per_layer + int(model.final_norm) + int(model.embedding_norm)
    return [elementwise(model, "norm", 4.0 * num_tokens * model.hidden_size, count)]


def _head_projections(model: ModelArchitecture, num_tokens: int, tp: int) -> list[Operator]:
    """Query, key and value in one matrix, rotary embedding and KV write, output. KV heads fewer than tp are copied."""
    layers = model.num_attention_layers
    query = share(model.num_heads, tp) * model.head_dim
    key_value = 2 * share(model.num_kv_heads, tp) * model.head_dim
    gate = query if model.attention_output_gate else 0
    hidden = model.hidden_size
    operators = [gemm(model, "qkv", "attention", num_tokens, query + key_value + gate, hidden, layers)]
    if model.qk_norm != "none":
        operators.append(elementwise(model, "qk_norm", 2.0 * num_tokens * (query + key_value / 2.0), layers))
    if model.has_rotary_positions:
        operators.append(elementwise(model, "rope", 2.0 * num_tokens * (query + key_value / 2.0), layers))
    if model.family != "encoder":
        operators.append(elementwise(model, "kv_write", 2.0 * num_tokens * key_value, layers))
    if gate:
        operators.append(elementwise(model, "attention_gate", 3.0 * num_tokens * query, layers))
    return [*operators, gemm(model, "out", "attention", num_tokens, hidden, query, layers)]


def _cross_projections(model: ModelArchitecture, num_tokens: int, tp: int) -> list[Operator]:
    """Query and output of the cross-attention; its keys and values come from the encoder."""
    query = share(model.num_heads, tp) * model.head_dim
    return [
        gemm(model, "cross_q", "attention", num_tokens, query, model.hidden_size, model.num_layers),
        gemm(model, "cross_out", "attention", num_tokens, model.hidden_size, query, model.num_layers),
    ]


def _latent_projections(model: ModelArchitecture, num_tokens: int, tp: int) -> list[Operator]:
    """MLA: down-projections on every device, up-projections by head.

    The up-projection of keys and values costs the same expanded (prefill) or absorbed into query and output (decode).
    """
    mla, layers, hidden = _required_mla(model), model.num_attention_layers, model.hidden_size
    heads = share(model.num_heads, tp)
    latent = mla.kv_lora_rank + mla.qk_rope_head_dim
    compressed = mla.q_lora_rank + latent
    operators = [gemm(model, "qkv_down", "attention", num_tokens, compressed, hidden, layers)]
    operators.append(elementwise(model, "latent_norm", 2.0 * num_tokens * compressed, layers))
    operators.append(
        gemm(model, "q_up", "attention", num_tokens, heads * mla.qk_head_dim, mla.q_lora_rank or hidden, layers)
    )
    kv_width = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    operators.append(gemm(model, "kv_up", "attention", num_tokens, kv_width, mla.kv_lora_rank, layers))
    if mla.indexer is not None:
        indexer = mla.indexer
        query = indexer.num_heads * indexer.head_dim
        key = indexer.head_dim + indexer.num_heads
        own = indexer.num_layers
        operators.append(gemm(model, "indexer_q", "attention", num_tokens, query, mla.q_lora_rank or hidden, own))
        operators.append(gemm(model, "indexer_k", "attention", num_tokens, key, hidden, own))
    rotary = (heads + 1) * mla.qk_rope_head_dim
    operators.append(elementwise(model, "rope", 2.0 * num_tokens * rotary, layers))
    operators.append(elementwise(model, "kv_write", 2.0 * num_tokens * latent, layers))
    operators.append(gemm(model, "out", "attention", num_tokens, hidden, heads * mla.v_head_dim, layers))
    return operators


def _state_space_projections(
    model: ModelArchitecture, recurrent: StateSpace, num_tokens: int, tp: int
) -> list[Operator]:
    """Input projection, short convolution, gated norm and output projection of the recurrent layers."""
    layers, hidden = recurrent.num_layers, model.hidden_size
    inner = share(recurrent.inner_size, tp)
    conv = share(recurrent.conv_size, tp)
    conv_elements = float(num_tokens) * conv
    return [
        gemm(model, "ssm_in", "state_space", num_tokens, share(recurrent.projection_size, tp), hidden, layers),
        Operator(
            "conv",
            "elementwise",
            count=layers,
            flops=2.0 * conv_elements * recurrent.conv_kernel,
            bytes=2.0 * conv_elements * DTYPE_BYTES[model.activation_dtype],
            dtype=model.activation_dtype,
        ),
        elementwise(model, "gated_norm", 3.0 * num_tokens * inner, layers),
        gemm(model, "ssm_out", "state_space", num_tokens, hidden, inner, layers),
    ]


def _mlp(model: ModelArchitecture, num_tokens: int, tp: int) -> list[Operator]:
    """Gate and up in one matrix, activation, down."""
    layers, hidden, width = model.num_dense_layers, model.hidden_size, share(model.intermediate_size, tp)
    inputs = 2 if model.gated_mlp else 1
    return [
        gemm(model, "up", "mlp", num_tokens, inputs * width, hidden, layers),
        elementwise(model, "act", (inputs + 1.0) * num_tokens * width, layers),
        gemm(model, "down", "mlp", num_tokens, hidden, width, layers),
    ]


def _experts(model: ModelArchitecture, moe: Moe, num_tokens: int, tp: int, ep: int, dp: int) -> list[Operator]:
    """Router, the chosen experts as grouped GEMMs, shared experts; rows of a device are the mean of uniform routing.

    A rank routes its own tokens and runs its shared experts; the routed experts see the tokens of all ranks.
    """
    layers, hidden = model.num_moe_layers, model.hidden_size
    inputs = 2 if model.gated_mlp else 1
    width = share(moe.expert_intermediate_size, tp * dp // ep)
    all_tokens = dp * num_tokens
    rows = ceil(all_tokens * moe.num_experts_per_token / ep)
    scores = moe.num_experts + int(moe.shared_expert_gate)
    router = Operator("router", "gemm", count=layers, m=num_tokens, n=scores, k=hidden, dtype=model.activation_dtype)
    operators = [
        router,
        _grouped_gemm(model, moe, "experts_up", all_tokens, rows, inputs * width, hidden, ep),
        elementwise(model, "experts_act", (inputs + 1.0) * rows * width, layers),
        _grouped_gemm(model, moe, "experts_down", all_tokens, rows, hidden, width, ep),
        # Each row is read, weighted and added to its token.
        elementwise(model, "experts_combine", float(rows + num_tokens) * hidden, layers),
    ]
    if dp > 1:
        operators += _expert_exchange(model, moe, num_tokens, tp, ep, dp)
    if moe.shared_width > 0:
        shared = share(moe.shared_width, tp)
        operators += [
            gemm(model, "shared_up", "shared_experts", num_tokens, inputs * shared, hidden, layers),
            elementwise(model, "shared_act", (inputs + 1.0) * num_tokens * shared, layers),
            gemm(model, "shared_down", "shared_experts", num_tokens, hidden, shared, layers),
        ]
    return operators


def _expert_exchange(model: ModelArchitecture, moe: Moe, num_tokens: int, tp: int, ep: int, dp: int) -> list[Operator]:
    """All-to-all before and after the experts of a layer, over the tp x dp devices; `bytes` of one device's tokens.

    Each device of a rank sends its part of the rank's tokens, once to every device of each share that holds one of a
    token's experts, in the dtype the experts multiply, and gets results in the activations' dtype (DeepSeek-V3, arXiv
    2412.19437, sections 3.2.2 and 3.3: dispatch in FP8, combine in BF16).
    """
    copies = expected_shares_reached(moe.num_experts, moe.num_experts_per_token, ep) * (tp * dp // ep)
    numbers = num_tokens / tp * model.hidden_size * copies
    wide = DTYPE_BYTES[model.activation_dtype]
    narrow = min(DTYPE_BYTES[compute_dtype(model, "experts")], wide)
    layers = model.num_moe_layers
    return [
        Operator("experts_dispatch", "collective", count=layers, bytes=numbers * narrow),
        Operator("experts_return", "collective", count=layers, bytes=numbers * wide),
    ]


def expected_shares_reached(num_experts: int, num_experts_per_token: int, ep: int) -> float:
    """Of ep equal shares of the experts, those that hold at least one of a token's k, all choices equally likely.

    ep (1 - C(E - E / ep, k) / C(E, k)): the share is missed if all k are among the other experts.
    """
    others = num_experts - max(num_experts // ep, 1)
    return ep * (1.0 - comb(others, num_experts_per_token) / comb(num_experts, num_experts_per_token))


def _grouped_gemm(
    model: ModelArchitecture, moe: Moe, name: str, num_tokens: int, rows: int, n: int, k: int, ep: int
) -> Operator:
    """Weights of the distinct experts are read once, however few rows each has."""
    distinct = expected_distinct_experts(moe.num_experts, moe.num_experts_per_token, num_tokens) / ep
    quantization = part_quantization(model, "experts")
    sparsity = quantization.sparsity if quantization is not None else None
    weights = distinct * n * k * bytes_per_weight(model, "experts")
    activations = float(rows) * (n + k) * DTYPE_BYTES[model.activation_dtype]
    return Operator(
        name,
        "gemm",
        count=model.num_moe_layers,
        flops=2.0 * rows * n * k * (sparsity.kept_frac if sparsity is not None else 1.0),
        bytes=weights + activations,
        m=rows,
        n=n,
        k=k,
        dtype=compute_dtype(model, "experts"),
        weight_dtype=quantization.weight_dtype if quantization is not None else None,
        sparsity=sparsity,
        part="experts",
        num_groups=ceil(moe.num_experts / ep),
    )


def _all_reduces(model: ModelArchitecture, num_tokens: int, tp: int) -> list[Operator]:
    """After the embedding, and after each row-split matrix: two a layer, one where both branches are summed first.

    One more with cross-attention. Experts that are spread over the tp devices are summed by it as well.
    """
    if tp == 1:
        return []
    has_mlp = model.num_dense_layers + model.num_moe_layers > 0
    per_layer = 2 if has_mlp and not model.parallel_attention else 1
    per_layer += int(model.num_encoder_layers > 0)
    message = float(num_tokens) * model.hidden_size * DTYPE_BYTES[model.activation_dtype]
    return [Operator("all_reduce", "collective", count=1 + per_layer * model.num_layers, bytes=message)]


def _required_mla(model: ModelArchitecture) -> Mla:
    assert model.mla is not None
    return model.mla
