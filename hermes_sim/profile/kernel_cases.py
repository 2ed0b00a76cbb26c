"""How each operator is built at a shape, whatever the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hermes_sim.profile.backend import ITEM_BYTES, Array, Backend, Call, PagedCache
from hermes_sim.profile.case import Case

BLOCK_TOKENS = 16
Distribution = Literal["uniform", "power_law_1.2"]


def gemm_case(kernel: str, dtype: str, m: int, n: int, k: int) -> Case:
    """C[m, n] = A[m, k] B[n, k] transposed. Weights are cold, activations warm, as between two layers of a model."""

    def prepare(backend: Backend, num_buffers: int) -> list[Call]:
        activations = backend.activations(m, k, dtype)
        weights = [backend.linear(n, k, dtype) for _ in range(num_buffers)]
        return [_bound(backend.product, activations, weight, dtype) for weight in weights]

    item = ITEM_BYTES[dtype]
    shape: dict[str, object] = {"m": m, "n": n, "k": k}
    return Case("gemm", kernel, dtype, shape, item * n * k, item * m * k + 8.0 * m * n, prepare)


def prefill_case(
    kernel: str, dtype: str, num_seqs: int, new_tokens: int, history_tokens: int, heads: tuple[int, int, int]
) -> Case:
    """Causal attention of equal prompts over their history and themselves; heads: query heads, KV heads, head size."""
    num_heads, num_kv_heads, head_dim = heads
    context = history_tokens + new_tokens

    def prepare(backend: Backend, num_buffers: int) -> list[Call]:
        calls: list[Call] = []
        for _ in range(num_buffers):
            queries = backend.random((num_seqs, num_heads, new_tokens, head_dim), dtype)
            keys, values = (backend.random((num_seqs, num_kv_heads, context, head_dim), dtype) for _ in range(2))
            calls.append(_bound(backend.attend, queries, keys, values))
        return calls

    shape: dict[str, object] = {"num_seqs": num_seqs, "new_tokens": new_tokens, "history_tokens": history_tokens}
    kept = ITEM_BYTES[dtype] * num_seqs * head_dim * (2.0 * num_kv_heads * context + num_heads * new_tokens)
    scores = 4.0 * num_heads * new_tokens * ITEM_BYTES[dtype] * head_dim * num_seqs
    return Case("attention_prefill", kernel, dtype, {**shape, **_head_columns(heads, dtype)}, kept, scores, prepare)


def decode_case(kernel: str, dtype: str, contexts: Sequence[int], heads: tuple[int, int, int], *, paged: bool) -> Case:
    """One query a sequence over its context; paged: any mix of contexts, in blocks scattered over the cache."""
    num_heads, num_kv_heads, head_dim = heads
    num_seqs, longest = len(contexts), max(contexts)

    def prepare(backend: Backend, num_buffers: int) -> list[Call]:
        queries = backend.random((num_seqs, num_heads, head_dim), dtype)
        if paged:
            tables, num_blocks = _scattered_blocks(contexts)
            block_tables, lengths = backend.integers(tables), backend.integers(np.array(contexts))
            caches = [_cache(backend, num_blocks, heads, dtype) for _ in range(num_buffers)]
            return [_bound(backend.attend_paged, queries, cache, block_tables, lengths) for cache in caches]
        calls: list[Call] = []
        for _ in range(num_buffers):
            keys, values = (backend.random((num_seqs, num_kv_heads, longest, head_dim), dtype) for _ in range(2))
            calls.append(_bound(backend.attend, queries[:, :, None], keys, values))
        return calls

    shape: dict[str, object] = {
        "num_seqs": num_seqs,
        "context_tokens": float(np.mean(contexts)),
        "max_context_tokens": longest,
        **_head_columns(heads, dtype),
    }
    kept = ITEM_BYTES[dtype] * 2.0 * num_kv_heads * head_dim * (sum(contexts) + num_seqs * BLOCK_TOKENS)
    return Case("attention_decode", kernel, dtype, shape, kept, 64.0 * num_seqs * num_heads * head_dim * 4.0, prepare)


def moe_case(
    kernel: str, dtype: str, num_tokens: int, experts: tuple[int, int, int, int], distribution: Distribution
) -> Case:
    """Gather, gate and up, activation, down, weighted sum; experts: hidden, width, experts, experts per token."""
    hidden, width, num_experts, share = experts
    assignment = assign_experts(num_tokens, num_experts, share, distribution)

    def prepare(backend: Backend, num_buffers: int) -> list[Call]:
        tokens = backend.random((num_tokens, hidden), dtype)
        routing = backend.route(assignment, num_experts)
        weights = [backend.expert_weights(num_experts, hidden, width, dtype) for _ in range(num_buffers)]
        return [_bound(backend.experts, tokens, gate_up, down, routing) for gate_up, down in weights]

    shape: dict[str, object] = {
        "num_tokens": num_tokens,
        "hidden": hidden,
        "width": width,
        "num_experts": num_experts,
        "num_experts_per_token": share,
        "moe_tp": 1,
        "moe_ep": 1,
        "distribution": distribution,
        "num_active_experts": len(np.unique(assignment)),
    }
    item = ITEM_BYTES[dtype]
    activations = item * num_tokens * share * (4.0 * hidden + 4.0 * width)
    return Case("moe", kernel, dtype, shape, item * 3.0 * num_experts * hidden * width, activations, prepare)


def stream_case(name: str, dtype: str, num_tokens: int, width: int, num_bytes: float) -> Case:
    """One kernel that only moves bytes, of operands that the cache may hold, as activations are."""

    def prepare(backend: Backend, num_buffers: int) -> list[Call]:
        return [backend.stream_kernels(num_tokens, width, dtype)[name][0]]

    return Case(
        "stream", name, dtype, {"num_tokens": num_tokens, "num_bytes": num_bytes}, 3.0 * num_bytes, 0.0, prepare
    )


def assign_experts(
    num_tokens: int, num_experts: int, share: int, distribution: Distribution
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Experts of every token, [num_tokens, share], without repeats: the Gumbel top-k trick (arXiv 1903.06059)."""
    random = np.random.default_rng(0)
    exponent = 1.2 if distribution == "power_law_1.2" else 0.0
    log_popularity = -exponent * np.log(np.arange(1, num_experts + 1))
    scores = log_popularity + random.gumbel(size=(num_tokens, num_experts))
    return np.argsort(-scores, axis=1)[:, :share].astype(np.int64)


def _head_columns(heads: tuple[int, int, int], dtype: str) -> dict[str, object]:
    names = ("num_heads", "num_kv_heads", "head_dim")
    return {**dict(zip(names, heads, strict=True)), "window_tokens": 0, "kv_dtype": dtype}


def _scattered_blocks(contexts: Sequence[int]) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], int]:
    """Block tables [num_seqs, max_blocks] of a cache that was used for a while, and its number of blocks."""
    counts = [-(-context // BLOCK_TOKENS) for context in contexts]
    blocks = np.random.default_rng(0).permutation(sum(counts))
    tables = np.zeros((len(contexts), max(counts)), np.int64)
    first = 0
    for seq, count in enumerate(counts):
        tables[seq, :count] = blocks[first : first + count]
        first += count
    return tables, len(blocks)


def _cache(backend: Backend, num_blocks: int, heads: tuple[int, int, int], dtype: str) -> PagedCache:
    shape = (num_blocks, BLOCK_TOKENS, heads[1], heads[2])
    return PagedCache(backend.random(shape, dtype), backend.random(shape, dtype))


def _bound(function: object, *arguments: Array) -> Call:
    """A call with its operands; each call keeps only its own."""
    assert callable(function)
    return lambda: function(*arguments)
