"""Decode attention over a paged KV cache on a GPU, in Triton: the keys of a sequence are split over the cores.

Sources of the method: PagedAttention (arXiv 2309.06180, section 4.1: block tables), Flash-Decoding (Dao et al. 2023:
splitting the keys, joining the parts by their log-sum-exp).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

PROGRAMS_PER_CORE = 2
MOST_SPLITS = 32
LEAST_ROWS = 16
"""Rows of a matrix instruction: a group of fewer query heads is padded."""


@triton.jit
def _part_kernel(
    queries, keys, values, block_tables, context_tokens, part_out, part_sum,
    scale, max_blocks, num_heads: tl.constexpr, num_kv_heads: tl.constexpr, group: tl.constexpr, rows: tl.constexpr,
    head_dim: tl.constexpr, block_tokens: tl.constexpr, num_splits: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """One split of the keys of one KV head of one sequence, for the query heads that share it."""
    seq, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_tokens = tl.load(context_tokens + seq).to(tl.int32)
    num_tiles = tl.cdiv(num_tokens, tile)
    tiles_per_split = tl.cdiv(num_tiles, num_splits)
    first = split * tiles_per_split * tile
    last = tl.minimum(first + tiles_per_split * tile, num_tokens)
    row = tl.arange(0, rows)
    dim = tl.arange(0, head_dim)
    head = kv_head * group + row
    is_head = row < group
    query = tl.load(
        queries + (seq * num_heads + head)[:, None] * head_dim + dim[None, :], mask=is_head[:, None], other=0.0
    )
    largest = tl.full([rows], -1e30, tl.float32)
    total = tl.zeros([rows], tl.float32)
    out = tl.zeros([rows, head_dim], tl.float32)
    for start in range(first, last, tile):
        token = start + tl.arange(0, tile)
        is_token = token < last
        block = tl.load(block_tables + seq * max_blocks + token // block_tokens, mask=is_token, other=0)
        slot = block.to(tl.int64) * block_tokens + token % block_tokens
        place = (slot * num_kv_heads + kv_head)[:, None] * head_dim + dim[None, :]
        key = tl.load(keys + place, mask=is_token[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(key)) * scale
        scores = tl.where(is_token[None, :], scores, -1e30)
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weight = tl.exp(scores - new_largest[:, None])
        weight = tl.where(is_token[None, :], weight, 0.0)
        shrink = tl.exp(largest - new_largest)
        total = total * shrink + tl.sum(weight, 1)
        value = tl.load(values + place, mask=is_token[:, None], other=0.0)
        out = out * shrink[:, None] + tl.dot(weight.to(value.dtype), value)
        largest = new_largest
    found = tl.maximum(total, 1e-30)
    part = (seq * num_heads + head) * num_splits + split
    tl.store(part_out + part[:, None] * head_dim + dim[None, :], out / found[:, None], mask=is_head[:, None])
    tl.store(part_sum + part, largest + tl.log(found), mask=is_head)


@triton.jit
def _join_kernel(part_out, part_sum, out, head_dim: tl.constexpr, num_splits: tl.constexpr):
    """One query head of one sequence: its parts, weighted by their log-sum-exp."""
    head = tl.program_id(0)
    split = tl.arange(0, num_splits)
    dim = tl.arange(0, head_dim)
    sums = tl.load(part_sum + head * num_splits + split)
    weight = tl.exp(sums - tl.max(sums, 0))
    weight = weight / tl.sum(weight, 0)
    parts = tl.load(part_out + (head * num_splits + split)[:, None] * head_dim + dim[None, :])
    joined = tl.sum(parts * weight[:, None], 0)
    tl.store(out + head * head_dim + dim, joined.to(out.dtype.element_ty))


def paged_decode(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    block_tables: torch.Tensor,
    context_tokens: torch.Tensor,
) -> torch.Tensor:
    """One query a sequence [num_seqs, num_heads, head_dim] against keys, values [num_blocks, block_tokens, kv, dim]."""
    num_seqs, num_heads, head_dim = queries.shape
    block_tokens, num_kv_heads = keys.shape[1:3]
    group = num_heads // num_kv_heads
    num_splits = choose_splits(num_seqs * num_kv_heads, num_cores(queries.device))
    queries = queries.contiguous()
    part_out = torch.empty((num_seqs, num_heads, num_splits, head_dim), device=queries.device, dtype=torch.float32)
    part_sum = torch.empty((num_seqs, num_heads, num_splits), device=queries.device, dtype=torch.float32)
    out = torch.empty_like(queries)
    launch: Any = _part_kernel[(num_seqs, num_kv_heads, num_splits)]
    launch(
        queries, keys, values, block_tables, context_tokens, part_out, part_sum,
        head_dim**-0.5, block_tables.shape[1], num_heads, num_kv_heads, group,
        max(LEAST_ROWS, triton.next_power_of_2(group)), head_dim, block_tokens, num_splits, 64,
    )  # fmt: skip
    launch = _join_kernel[(num_seqs * num_heads,)]
    launch(part_out, part_sum, out, head_dim, num_splits)
    return out


def choose_splits(num_rows: int, cores: int) -> int:
    """Parts of a context, a power of two: enough programs for all cores. A graph does not know its contexts."""
    wanted = -(-PROGRAMS_PER_CORE * cores // num_rows)
    return int(min(max(triton.next_power_of_2(wanted), 1), MOST_SPLITS))


def num_cores(device: torch.device) -> int:
    """Streaming multiprocessors; four where Triton interprets on the CPU."""
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
