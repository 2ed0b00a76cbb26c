"""Parameter counts, weight bytes and cache sizes that follow from the shape of a model.

Counted matrix by matrix, as the reference implementations in Hugging Face transformers allocate them.
Multi-token-prediction modules and vision towers are not part of the architecture and not counted.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.models.architecture import Mla, ModelArchitecture, Part, Quantization, StateSpace
from hermes_sim.models.encoder_decoder import decoder_stack, encoder_stack

OUTLIER_INDEX_BYTES: Final = 2.0
"""Column of one weight that is kept apart (SpQR, arXiv 2306.03078, section 4.3: 16 bits of value, 16 of index)."""


def part_parameters(model: ModelArchitecture) -> dict[str, int]:
    """Parameters of each group: the keys of `Part`, and embedding, router, and other (norms, biases, pooler).

    A tied output matrix counts once, as embedding; so does the embedding that encoder and decoder share.
    """
    if model.num_encoder_layers > 0:
        return _encoder_decoder_parameters(model)
    moe = model.moe
    hidden = model.hidden_size
    matrices_per_mlp = 3 if model.gated_mlp else 2
    embedding_width = model.embedding_size or hidden
    expert = matrices_per_mlp * hidden * moe.expert_intermediate_size if moe else 0
    untied_head = model.family != "encoder" and not model.tied_embeddings
    return {
        "embedding": model.vocab_size * embedding_width
        + (model.learned_positions + model.token_types) * hidden
        + (2 * embedding_width * hidden if model.embedding_size else 0),
        "attention": _attention_matrices(model),
        "mlp": model.num_dense_layers * matrices_per_mlp * hidden * model.intermediate_size,
        "experts": model.num_moe_layers * moe.num_experts * expert if moe else 0,
        "shared_experts": model.num_moe_layers * matrices_per_mlp * hidden * moe.shared_width if moe else 0,
        "router": model.num_moe_layers * _router(model),
        "state_space": _state_space_matrices(model.state_space, hidden) if model.state_space else 0,
        "lm_head": model.vocab_size * hidden if untied_head else 0,
        "other": _norms(model) + _biases(model) + _encoder_head(model),
    }


def _encoder_decoder_parameters(model: ModelArchitecture) -> dict[str, int]:
    """Both stacks, and in each decoder layer cross-attention with a norm before it."""
    decoder, encoder = part_parameters(decoder_stack(model)), part_parameters(encoder_stack(model))
    parts = {part: count + encoder[part] for part, count in decoder.items()}
    parts["embedding"] -= model.vocab_size * (model.embedding_size or model.hidden_size)
    parts["attention"] += _attention_matrices(model)
    norm = (2 if model.norm == "layer" else 1) * model.hidden_size
    parts["other"] += model.num_layers * (norm + _attention_biases(model))
    return parts


def num_parameters(model: ModelArchitecture) -> int:
    """All parameters of the language model."""
    return sum(part_parameters(model).values())


def num_active_parameters(model: ModelArchitecture) -> int:
    """Parameters multiplied for one token: the chosen experts only, the embedding look-up left out.

    As gpt-oss's model card counts (arXiv 2508.10925, table 1); authors who count the look-up state more.
    """
    parts = part_parameters(model)
    active = sum(parts.values()) - parts["embedding"] - parts["experts"]
    if model.moe is not None:
        active += parts["experts"] * model.moe.num_experts_per_token // model.moe.num_experts
    if model.tied_embeddings:
        active += model.vocab_size * (model.embedding_size or model.hidden_size)
    return active


def bytes_per_weight(model: ModelArchitecture, part: Part, dtype: Dtype | None = None) -> float:
    """Stored bytes of one weight of a part, scales included; `dtype` overrides the checkpoint's for every part."""
    if dtype is not None:
        return DTYPE_BYTES[dtype]
    quantization = part_quantization(model, part)
    if quantization is None:
        return DTYPE_BYTES[model.weight_dtype]
    stored = DTYPE_BYTES[quantization.weight_dtype]
    if quantization.sparsity is not None:
        stored = quantization.sparsity.stored_bytes(stored)
    wide = DTYPE_BYTES[model.activation_dtype]
    stored += outlier_column_bytes(model, part)
    stored += quantization.outlier_weights_frac * (wide + OUTLIER_INDEX_BYTES)
    return stored + quantization.scale_bytes_per_weight


def outlier_column_bytes(model: ModelArchitecture, part: Part) -> float:
    """Bytes of one weight that are those of the outlier columns' wide copies, spread over all weights of the part."""
    quantization = part_quantization(model, part)
    return 0.0 if quantization is None else quantization.outlier_columns_frac * DTYPE_BYTES[model.activation_dtype]


def part_quantization(model: ModelArchitecture, part: Part) -> Quantization | None:
    """How the matrices of a part are stored and multiplied; None where that is in `weight_dtype`."""
    if part in model.quantization_by_part:
        return model.quantization_by_part[part]
    return model.quantization if model.quantization is not None and part in model.quantization.parts else None


def compute_dtype(model: ModelArchitecture, part: Part) -> Dtype:
    """Dtype in which the matrices of a part are multiplied."""
    quantization = part_quantization(model, part)
    return model.weight_dtype if quantization is None else quantization.compute_dtype


def kv_element_bytes(model: ModelArchitecture, dtype: Dtype | None = None) -> float:
    """Bytes of one number in the KV cache, its share of the scales included; another `dtype` has no scales."""
    if dtype is None or dtype == model.kv_dtype:
        return DTYPE_BYTES[model.kv_dtype] + model.kv_scale_bytes_per_element
    return DTYPE_BYTES[dtype]


def weight_bytes(model: ModelArchitecture, dtype: Dtype | None = None) -> float:
    """Bytes of all weights as the checkpoint stores them, or with every matrix in `dtype`.

    Embedding, router, norms and biases are kept in the activations' dtype, as inference engines keep them.
    """
    total = 0.0
    for part, count in part_parameters(model).items():
        if part in get_args(Part):
            total += count * bytes_per_weight(model, part, dtype)  # type: ignore[arg-type]
        else:
            total += count * DTYPE_BYTES[model.activation_dtype]
    return total


def in_dtype(model: ModelArchitecture, dtype: Dtype | None) -> ModelArchitecture:
    """The model with weights and activations cast to `dtype`, nothing quantised; as it is for None."""
    if dtype is None:
        return model
    update: dict[str, Any] = {"weight_dtype": dtype, "activation_dtype": dtype}
    update |= {"quantization": None, "quantization_by_part": {}}
    return model.model_copy(update=update)


def kv_elements_per_token_per_layer(model: ModelArchitecture) -> int:
    """Numbers cached for one token by one attention layer: keys and values, or the latent and the rotary key of MLA."""
    if model.mla is not None:
        return model.mla.kv_lora_rank + model.mla.qk_rope_head_dim
    return 2 * model.num_kv_heads * model.head_dim


def indexer_bytes_per_token_per_layer(model: ModelArchitecture) -> float:
    """Bytes of the sparse indexer's key in one layer that has an indexer: fp8 and one fp32 scale a token.

    Source: the reference inference code of DeepSeek-V3.2-Exp.
    """
    if model.mla is None or model.mla.indexer is None:
        return 0.0
    return model.mla.indexer.head_dim * DTYPE_BYTES["fp8"] + DTYPE_BYTES["fp32"]


def kv_bytes_per_token(model: ModelArchitecture, dtype: Dtype | None = None) -> float:
    """KV-cache bytes that one token adds in all attention layers of the whole model.

    Sliding layers are counted: they stop growing at their window. State-space layers and encoders add nothing. A prompt
    token of an encoder-decoder model leaves its cross-attention's keys and values in every decoder layer, a generated
    one those of the self-attention: as many bytes.
    """
    if model.family == "encoder":
        return 0.0
    per_layer = kv_elements_per_token_per_layer(model) * kv_element_bytes(model, dtype)
    return model.num_attention_layers * per_layer + _indexer_bytes_per_token(model)


def state_bytes_per_sequence(model: ModelArchitecture, dtype: Dtype | None = None) -> float:
    """Bytes of the recurrent state of one sequence, whatever its length: state matrices and convolution windows.

    `dtype` is that of the state matrices; fp32 if not given, as the reference kernels keep them.
    """
    recurrent = model.state_space
    if recurrent is None:
        return 0.0
    matrix = recurrent.inner_size * recurrent.state_size * DTYPE_BYTES[dtype or "fp32"]
    window = recurrent.conv_size * (recurrent.conv_kernel - 1) * DTYPE_BYTES[model.activation_dtype]
    return recurrent.num_layers * (matrix + window)


def _indexer_bytes_per_token(model: ModelArchitecture) -> float:
    if model.mla is None or model.mla.indexer is None:
        return 0.0
    return model.mla.indexer.num_layers * indexer_bytes_per_token_per_layer(model)


def _attention_matrices(model: ModelArchitecture) -> int:
    """All attention layers together."""
    layers = model.num_attention_layers
    if model.mla is not None:
        latent = layers * _latent_attention_matrices(model.mla, model.hidden_size, model.num_heads)
        return latent + _indexer_matrices(model.mla, model.hidden_size)
    query = model.num_heads * model.head_dim
    key_value = 2 * model.num_kv_heads * model.head_dim
    gate = query if model.attention_output_gate else 0
    return layers * model.hidden_size * (query + key_value + gate + query)


def _latent_attention_matrices(mla: Mla, hidden: int, num_heads: int) -> int:
    query = num_heads * mla.qk_head_dim
    total = mla.q_lora_rank * (hidden + query) if mla.q_lora_rank else hidden * query
    total += hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim)
    total += mla.kv_lora_rank * num_heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return total + num_heads * mla.v_head_dim * hidden


def _indexer_matrices(mla: Mla, hidden: int) -> int:
    """Queries from the compressed query; one key and one weight a head from the hidden state."""
    indexer = mla.indexer
    if indexer is None:
        return 0
    query = (mla.q_lora_rank or hidden) * indexer.num_heads * indexer.head_dim
    return indexer.num_layers * (query + hidden * (indexer.head_dim + indexer.num_heads))


def _state_space_matrices(recurrent: StateSpace, hidden: int) -> int:
    conv = recurrent.conv_size * recurrent.conv_kernel
    return recurrent.num_layers * (hidden * recurrent.projection_size + conv + recurrent.inner_size * hidden)


def _router(model: ModelArchitecture) -> int:
    if model.moe is None:
        return 0
    total = model.hidden_size * model.moe.num_experts
    total += model.moe.num_experts if model.moe.router_bias else 0
    return total + (model.hidden_size if model.moe.shared_expert_gate else 0)


def _norms(model: ModelArchitecture) -> int:
    weights = 2 if model.norm == "layer" else 1
    num_norms = model.num_layers * model.num_norms_per_layer + int(model.final_norm) + int(model.embedding_norm)
    total = weights * num_norms * model.hidden_size
    if model.qk_norm == "per_head":
        total += model.num_attention_layers * 2 * model.head_dim
    elif model.qk_norm == "per_layer":
        total += model.num_attention_layers * (model.num_heads + model.num_kv_heads) * model.head_dim
    if model.mla is not None:
        total += model.num_attention_layers * (model.mla.q_lora_rank + model.mla.kv_lora_rank)
        # The indexer's key norm is a LayerNorm, weight and bias.
        total += 2 * model.mla.indexer.num_layers * model.mla.indexer.head_dim if model.mla.indexer else 0
    if model.state_space is not None:
        total += model.state_space.num_layers * _recurrence_vectors(model.state_space)
    return total


def _recurrence_vectors(recurrent: StateSpace) -> int:
    """Mamba-2: A, D, step bias a head and a norm over all channels; delta net: A, step bias, a norm of one head."""
    vectors = recurrent.conv_size if recurrent.conv_bias else 0
    if recurrent.kind == "gated_delta_net":
        return vectors + 2 * recurrent.num_heads + recurrent.head_dim
    return vectors + 3 * recurrent.num_heads + recurrent.inner_size


def _attention_biases(model: ModelArchitecture) -> int:
    """Of one layer, sinks included."""
    biases = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim if model.qkv_bias else 0
    biases += model.hidden_size if model.output_bias else 0
    return biases + (model.num_heads if model.attention_sinks else 0)


def _biases(model: ModelArchitecture) -> int:
    hidden = model.hidden_size
    inputs_per_mlp = 2 if model.gated_mlp else 1
    total = model.num_attention_layers * _attention_biases(model) + model.relative_position_buckets * model.num_heads
    if model.mlp_bias:
        total += model.num_dense_layers * (inputs_per_mlp * model.intermediate_size + hidden)
    if model.moe is not None and model.moe.expert_bias:
        per_expert = inputs_per_mlp * model.moe.expert_intermediate_size + hidden
        total += model.num_moe_layers * model.moe.num_experts * per_expert
    return total + (model.vocab_size if model.lm_head_bias else 0)


def _encoder_head(model: ModelArchitecture) -> int:
    dense = model.hidden_size * (model.hidden_size + 1)
    labels = model.num_labels * (model.hidden_size + 1)
    return (dense if model.pooler else 0) + labels
