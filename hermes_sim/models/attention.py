"""Operators that depend on contexts: attention over the KV cache, and the recurrence of state-space layers."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_sim.core.schema import DTYPE_BYTES, Dtype
from hermes_sim.models.architecture import Mla, ModelArchitecture, SparseIndexer, StateSpace
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import (
    indexer_bytes_per_token_per_layer,
    kv_element_bytes,
    kv_elements_per_token_per_layer,
    state_bytes_per_sequence,
)
from hermes_sim.models.shards import gemm, share


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass computes: counts and sums over its sequences."""

    num_decode: int = 0
    """Sequences with one new token."""
    decode_context_sum: int = 0
    """KV tokens that the decodes read, each one's new token included."""
    num_prefill: int = 0
    """Prompt chunks."""
    num_prefill_tokens: int = 0
    prefill_token_pairs: int = 0
    """Query-key pairs under the causal mask: sum of new x context + new (new + 1) / 2."""
    prefill_context_sum: int = 0
    """KV tokens that the chunks read: sum of context + new."""
    num_sampled: int = 0
    """Tokens that need logits."""
    num_draft_tokens: int = 0
    """Drafts that the decodes verify beside their one new token, all together."""

    @property
    def num_tokens(self) -> int:
        """New tokens of the pass."""
        return self.num_decode_tokens + self.num_prefill_tokens

    @property
    def num_decode_tokens(self) -> int:
        """New tokens of the decoding sequences."""
        return self.num_decode + self.num_draft_tokens

    def decode_pairs(self, num_keys: float) -> float:
        """Query-key pairs of the decodes when they read `num_keys` once for all queries of a sequence."""
        return num_keys * self.num_decode_tokens / self.num_decode if self.num_draft_tokens else num_keys


def context_operators(
    model: ModelArchitecture, batch: Batch, *, tp: int = 1, kv_dtype: Dtype | None = None
) -> tuple[Operator, ...]:
    """Attention over the cached contexts, and the recurrence of state-space layers."""
    operators: list[Operator] = []
    for name, num_layers, window in (
        ("full", model.num_full_attention_layers, 0),
        ("sliding", model.num_sliding_layers, model.sliding_window),
    ):
        if num_layers > 0:
            operators += _attention(model, batch, name, num_layers, window, tp, kv_dtype or model.kv_dtype)
    if model.state_space is not None and batch.num_tokens > 0:
        operators.append(_recurrence(model, model.state_space, batch, tp))
    return tuple(operators)


def _attention(
    model: ModelArchitecture, batch: Batch, name: str, num_layers: int, window: int, tp: int, kv_dtype: Dtype
) -> list[Operator]:
    """Attention proper, 2 FLOPs per multiply-add of query-key and weight-value products; softmax left out.

    With a window every query sees at most that many keys: exact where all contexts are on one side of it.
    """
    pairs, context = batch.prefill_token_pairs, batch.prefill_context_sum
    decode_context = batch.decode_context_sum
    if window > 0:
        pairs = min(pairs, batch.num_prefill_tokens * window)
        context = min(context, batch.num_prefill_tokens + batch.num_prefill * window)
        decode_context = min(decode_context, batch.num_decode * window)
    if model.mla is not None:
        return _latent_attention(model, model.mla, batch, tp, kv_dtype)
    if model.num_encoder_layers > 0:
        return _encoder_decoder_attention(model, batch, tp, kv_dtype)
    heads = share(model.num_heads, tp)
    flops_per_pair = 4.0 * heads * model.head_dim
    kv_bytes = 2.0 * share(model.num_kv_heads, tp) * model.head_dim * kv_element_bytes(model, kv_dtype)
    query_bytes = 2.0 * heads * model.head_dim * DTYPE_BYTES[model.activation_dtype]
    operators = []
    for phase, num_queries, num_pairs, num_keys in (
        ("prefill", batch.num_prefill_tokens, pairs, context),
        ("decode", batch.num_decode_tokens, batch.decode_pairs(decode_context), decode_context),
    ):
        if num_queries > 0:
            operators.append(
                Operator(
                    f"attention_{phase}_{name}",
                    "attention",
                    count=num_layers,
                    flops=flops_per_pair * num_pairs,
                    bytes=kv_bytes * num_keys + query_bytes * num_queries,
                    dtype=model.activation_dtype,
                )
            )
    return operators


def _encoder_decoder_attention(model: ModelArchitecture, batch: Batch, tp: int, kv_dtype: Dtype) -> list[Operator]:
    """The encoder over whole prompts, all pairs of tokens; the decoder over prompt and generated tokens.

    Cross-attention reads the keys and values of the prompt, self-attention those of the generated tokens: together the
    context of a decoder-only model, in two calls a layer. The step of a prompt takes its start token through the
    decoder too.
    """
    heads = share(model.num_heads, tp)
    flops_per_pair = 4.0 * heads * model.head_dim
    kv_bytes = 2.0 * share(model.num_kv_heads, tp) * model.head_dim
    query_bytes = 2.0 * heads * model.head_dim * DTYPE_BYTES[model.activation_dtype]
    new = batch.num_prefill_tokens
    operators = []
    if new > 0:
        operators.append(
            Operator(
                "attention_prefill_full",
                "attention",
                count=model.num_encoder_layers,
                flops=flops_per_pair * (2.0 * batch.prefill_token_pairs - new),
                bytes=kv_bytes * DTYPE_BYTES[model.activation_dtype] * new + query_bytes * new,
                dtype=model.activation_dtype,
            )
        )
    num_queries = batch.num_decode_tokens + batch.num_prefill
    if num_queries > 0:
        context = batch.decode_context_sum + batch.prefill_context_sum
        operators.append(
            Operator(
                "attention_decode_full",
                "attention",
                count=model.num_layers,
                flops=flops_per_pair * (batch.decode_pairs(batch.decode_context_sum) + batch.prefill_context_sum),
                bytes=kv_bytes * kv_element_bytes(model, kv_dtype) * context + 2.0 * query_bytes * num_queries,
                dtype=model.activation_dtype,
            )
        )
    return operators


def _latent_attention(model: ModelArchitecture, mla: Mla, batch: Batch, tp: int, kv_dtype: Dtype) -> list[Operator]:
    """MLA: prefill expands the latent to full heads, decode works on the latent itself, shared by all heads.

    Cached context of a prompt chunk is expanded again. With an indexer, queries attend to top_k tokens at most, after
    scoring all of them, and prefill works on the latent too. The latent is not split over the group.
    Sources: arXiv 2405.04434, section 2.1; arXiv 2512.02556, section 2.1.
    """
    heads, layers = share(model.num_heads, tp), model.num_attention_layers
    activation_bytes = DTYPE_BYTES[model.activation_dtype]
    latent_bytes = kv_elements_per_token_per_layer(model) * kv_element_bytes(model, kv_dtype)
    latent_width = heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim)

    def on_latent(phase: str, num_queries: int, num_pairs: float, num_keys: float) -> Operator:
        moved = latent_bytes * num_keys + latent_width * activation_bytes * num_queries
        flops = 2.0 * latent_width * num_pairs
        name = f"attention_{phase}_latent"
        return Operator(name, "attention", count=layers, flops=flops, bytes=moved, dtype=model.activation_dtype)

    pairs, keys = float(batch.prefill_token_pairs), float(batch.prefill_context_sum)
    decode_keys = float(batch.decode_context_sum)
    operators: list[Operator] = []
    if mla.indexer is not None and batch.num_tokens > 0:
        operators.append(_indexer_scores(model, mla.indexer, batch))
        pairs = min(pairs, float(batch.num_prefill_tokens) * mla.indexer.top_k)
        decode_keys = min(decode_keys, float(batch.num_decode) * mla.indexer.top_k)
    if batch.num_prefill_tokens > 0 and mla.indexer is not None:
        operators.append(on_latent("prefill", batch.num_prefill_tokens, pairs, keys))
    elif batch.num_prefill_tokens > 0:
        cached = batch.prefill_context_sum - batch.num_prefill_tokens
        if cached > 0:
            up_width = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
            operators.append(gemm(model, "kv_up_context", "attention", cached, up_width, mla.kv_lora_rank, layers))
        width = heads * (mla.qk_head_dim + mla.v_head_dim)
        operators.append(
            Operator(
                "attention_prefill_expanded",
                "attention",
                count=layers,
                flops=2.0 * width * pairs,
                bytes=width * activation_bytes * (keys + batch.num_prefill_tokens),
                dtype=model.activation_dtype,
            )
        )
    if batch.num_decode > 0:
        pairs = batch.decode_pairs(decode_keys)
        operators.append(on_latent("decode", batch.num_decode_tokens, pairs, decode_keys))
    return operators


def _indexer_scores(model: ModelArchitecture, indexer: SparseIndexer, batch: Batch) -> Operator:
    """Scores of all query-key pairs in fp8, before the top_k are kept; every device of the group computes them all."""
    pairs = float(batch.prefill_token_pairs + batch.decode_pairs(batch.decode_context_sum))
    keys = float(batch.prefill_context_sum + batch.decode_context_sum)
    return Operator(
        "indexer_scores",
        "attention",
        count=indexer.num_layers,
        flops=2.0 * indexer.num_heads * indexer.head_dim * pairs,
        bytes=indexer_bytes_per_token_per_layer(model) * keys,
        dtype="fp8",
    )


def _recurrence(model: ModelArchitecture, recurrent: StateSpace, batch: Batch, tp: int) -> Operator:
    """State update and read-out: each sequence's state is read and written once, its tokens stream through it.

    Per state element and token: Mamba-2 decays, adds the outer product and reads out (5 FLOPs, arXiv 2405.21060,
    equation 1); the delta net reads the old value for the key as well (7 FLOPs, arXiv 2412.06464, equation 10).
    """
    per_element = 7.0 if recurrent.kind == "gated_delta_net" else 5.0
    elements = float(recurrent.inner_size) * recurrent.state_size / tp
    state = state_bytes_per_sequence(model) / recurrent.num_layers / tp
    channels = (recurrent.conv_size + recurrent.inner_size) / tp * DTYPE_BYTES[model.activation_dtype]
    return Operator(
        "recurrence",
        "scan",
        count=recurrent.num_layers,
        flops=per_element * elements * batch.num_tokens,
        bytes=2.0 * state * (batch.num_decode + batch.num_prefill) + channels * batch.num_tokens,
        dtype=model.activation_dtype,
    )
