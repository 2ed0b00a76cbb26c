"""Time of attention over a paged KV cache: prompts (compute) and decodes (bytes of the cache), one layer on one device.

A kernel such as FlashAttention gives one block of query rows of one head to one core, which walks over the keys. Three
things cost: the sum of the work over all cores, the longest walk of one core, and tiles that are only partly filled.
Sources: FlashAttention-2 (arXiv 2307.08691, section 3.3: work per block of query rows), Flash-Decoding (Dao et al.
2023: splitting the keys), GQA (arXiv 2305.13245: query heads share a KV head).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

FloatArray = npt.NDArray[np.float64]

DECODE_LAUNCH_S = 0  # the kernels of one layer with nothing to read
DECODE_BYTE_S = 1  # seconds per token of context, from its KV bytes
DECODE_FLOP_S = 2  # seconds per token of context, from its arithmetic
DECODE_SEQUENCE_S = 3  # seconds per sequence: scheduling its blocks, filling their last tiles
DECODE_LONGEST_S = 4  # seconds per token of the longest context: what the cores given to one sequence can draw
DECODE_SERIAL_FRAC = 5  # share of the shorter of bytes, longest and blocks that is not hidden
PREFILL_LAUNCH_S = 6
PAIR_S = 7  # seconds per query-key pair, over the whole device
TOKEN_PAIRS = 8  # pairs added per new token: half-filled tiles on the diagonal
SEQUENCE_PAIRS = 9  # pairs added per prompt: its last tile of queries
LONGEST_ROW_S = 10  # seconds per token of context for one block of queries on its one core
PREFILL_SERIAL_FRAC = 11  # share of the shorter of sum and longest row that is not hidden
PREFILL_BYTE_S = 12  # seconds per token of context, from its KV bytes
PREFILL_TOKEN_S = 13  # seconds per new token: its query, output and cache write
HISTORY_S = 14  # seconds per cached token that is computed again (MLA expands its latent)
WINDOW_TOKENS = 15  # 0: looks at everything
NUM_LAYERS = 16
DECODE_QUERY_S = 17  # seconds per query of a sequence beyond its first: query, output and cache write
NUM_LAYER_COEFFICIENTS = 18


@compiled
def decode_attention_seconds(
    num_decode: int,
    num_decode_tokens: int,
    context_sum: float,
    context_max: float,
    coefficients: FloatArray,
    start: int,
) -> tuple[float, bool]:
    """Seconds of one layer for the queries of `num_decode` sequences, and whether compute limits it.

    num_decode_tokens: queries of all sequences, more than sequences where drafts are verified: a sequence's cache is
    read once for all of its queries, arithmetic and the bytes of queries grow with their number. context_sum,
    context_max: KV tokens of all sequences and of the longest. `coefficients[start:]` describes a layer kind; a window
    clips the mean context, exact where all contexts are on one side of it.
    """
    window = coefficients[start + WINDOW_TOKENS]
    if window > 0.0:
        context_max = min(context_max, window)
        context_sum = min(context_sum, window * num_decode)
    memory_s = context_sum * coefficients[start + DECODE_BYTE_S]
    longest_s = context_max * coefficients[start + DECODE_LONGEST_S]
    compute_s = context_sum * coefficients[start + DECODE_FLOP_S]
    blocks_s = num_decode * coefficients[start + DECODE_SEQUENCE_S]
    if num_decode_tokens > num_decode:
        compute_s *= num_decode_tokens / num_decode
        blocks_s += (num_decode_tokens - num_decode) * coefficients[start + DECODE_QUERY_S]
    most_s = max(memory_s, longest_s, blocks_s)
    stream_s = most_s + coefficients[start + DECODE_SERIAL_FRAC] * (memory_s + longest_s + blocks_s - most_s)
    return coefficients[start + DECODE_LAUNCH_S] + max(stream_s, compute_s), compute_s > stream_s


@compiled
def prefill_attention_seconds(
    num_prefill: int, num_new: float, token_pairs: float, context_sum: float, coefficients: FloatArray, start: int
) -> tuple[float, bool]:
    """Seconds of one layer for `num_prefill` >= 1 prompt chunks, and whether compute limits it.

    num_new: new tokens of all chunks; token_pairs: causal query-key pairs, history included; context_sum: history and
    new tokens of all chunks.
    """
    history = context_sum - num_new
    row = context_sum / num_prefill
    window = coefficients[start + WINDOW_TOKENS]
    if window > 0.0:
        token_pairs = min(token_pairs, window * num_new)
        context_sum = min(context_sum, num_new + window * num_prefill)
        row = min(row, window)
    pairs = token_pairs + num_new * coefficients[start + TOKEN_PAIRS]
    pairs += num_prefill * coefficients[start + SEQUENCE_PAIRS]
    all_s = pairs * coefficients[start + PAIR_S]
    row_s = row * coefficients[start + LONGEST_ROW_S]
    compute_s = max(all_s, row_s) + coefficients[start + PREFILL_SERIAL_FRAC] * min(all_s, row_s)
    memory_s = context_sum * coefficients[start + PREFILL_BYTE_S]
    fixed_s = coefficients[start + PREFILL_LAUNCH_S] + num_new * coefficients[start + PREFILL_TOKEN_S]
    return fixed_s + history * coefficients[start + HISTORY_S] + max(compute_s, memory_s), compute_s >= memory_s
