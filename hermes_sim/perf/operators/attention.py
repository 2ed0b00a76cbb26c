"""Time of attention over a paged KV cache: prompts (compute) and decodes (bytes of the cache), one layer on one device.

A kernel such as FlashAttention gives one tile (a block of query rows of one head, or of the heads that share a KV
head) to one core, which walks over the keys in blocks. What costs: bytes and arithmetic of all tiles, the waves in
which tiles come to the cores, and the longest walk of one core, shorter where keys of few tiles are split over cores.
Sources: FlashAttention-2 (arXiv 2307.08691, section 3.3: work per block of query rows), Flash-Decoding (Dao et al.
2023: splitting the keys), GQA (arXiv 2305.13245: query heads share a KV head).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled

FloatArray = npt.NDArray[np.float64]

DECODE_LAUNCH_S = 0  # the kernels of one layer with nothing to read
DECODE_BYTE_S = 1  # seconds per token of context, from its KV bytes
DECODE_FLOP_S = 2  # seconds per token of context, from its arithmetic
DECODE_SEQUENCE_S = 3  # seconds per sequence: bytes of query, output and cache write
DECODE_WAVES = 4  # tiles of one sequence, in shares of the cores
DECODE_TILE_S = 5  # one tile on one core: queries loaded, results written
DECODE_WAVE_FRAC = 6  # a broken wave of tiles costs this share of a full one
DECODE_BLOCK_S = 7  # issue of one block of keys, where every core is busy
DECODE_WALK_S = 8  # latency of one block of keys on a core that walks alone
DECODE_SPLITS = 9  # 1: the keys of few tiles are split over idle cores
DECODE_COMBINE_S = 10  # combining the parts of split keys
DECODE_COMBINE_LOG_S = 11  # ... and per doubling of the blocks of the longest context
DECODE_REGROUP_S = 12  # more than one sequence: copies that bring the queries of one KV head together
DECODE_WINDOW_S = 13  # masking once the context is longer than the window
DECODE_SERIAL_FRAC = 14  # share of the shorter of stream and longest walk that is not hidden
DECODE_HIDDEN_BLOCKS = 15  # blocks per core after which half of a tile's fixed cost is hidden
DECODE_QUERY_S = 16  # seconds per query of a sequence beyond its first: query, output and cache write
PREFILL_LAUNCH_S = 17
PAIR_S = 18  # seconds per query-key pair, over the whole device
TOKEN_PAIRS = 19  # pairs added per new token: half-filled tiles on the diagonal
PREFILL_TILE_HEADS = 20  # heads that have tiles of their own
PREFILL_TILE_ROWS = 21  # tiles of one such head per new token
PREFILL_CORE_SHARE = 22  # one over the number of cores
PREFILL_TILE_S = 23  # one tile on one core, beside its pairs
PREFILL_WAVE_FRAC = 24
LONGEST_ROW_S = 25  # seconds per token of context for one tile on its one core
WINDOW_ROW_TOKENS = 26  # keys beyond the window that a tile of queries walks over: their windows start apart
PREFILL_SERIAL_FRAC = 27  # share of the shorter of sum and longest row that is not hidden
PREFILL_BYTE_S = 28  # seconds per token of context, from its KV bytes
PREFILL_TOKEN_S = 29  # seconds per new token: bytes of its query, output and cache write
PREFILL_TOKEN_WARM_S = 30  # the same, found in the last-level cache
PREFILL_CACHE_TOKENS = 31  # new tokens whose bytes fill that cache
PREFILL_TOKEN_ISSUE_S = 32  # seconds per new token whatever its bytes: its slot in the cache
PREFILL_MEMORY_SERIAL_FRAC = 33  # share of the shorter of bytes and arithmetic that is not hidden
HISTORY_S = 34  # seconds per cached token that is computed again (MLA expands its latent)
MIXED_ROW_TOKENS = 35  # rows that a decode fills in a kernel of prompts and decodes; 0: kernels of their own
WINDOW_TOKENS = 36  # 0: looks at everything
NUM_LAYERS = 37
REPEATED_TOKENS = 38  # KV tokens that a benchmark, which repeats one batch, half finds in the last-level cache
REPEATED_SHARE = 39  # ... where they take this share of their time
DECODE_RESIDUAL = 40  # where the residual table of decodes begins in the same array; 0: none
PREFILL_RESIDUAL = 41  # ... of prompts
DECODE_RAMP_S = 42  # bytes that take up to so long take twice as long; 0: memory is as fast for few as for many
MIXED_TILE_S = 43  # one tile of a decode in a kernel of prompts and decodes, beside its keys
MIXED_EMPTY_S = 44  # one tile that such a kernel launches for a decode, as many as for a prompt, and that has no rows
MIXED_GROUP = 45  # query heads that read the keys of one KV head there, each by itself
MIXED_CACHE_TOKENS = 46  # tokens of context of one KV head, of all decodes, that fill the last-level cache
NUM_LAYER_COEFFICIENTS = 47

BLOCK_TOKENS: Final = 128.0
"""Keys that a core takes at a time, and query rows of a tile."""
FILLED_POWER: Final = 2.0
"""What is hidden of the shorter of prompts and decodes in one kernel falls with the square of the waves of tiles."""
REREAD_POWER: Final = 4.0
"""How sharply a last-level cache stops holding what is read again: x^4 / (1 + x^4)."""
RAMP_POWER: Final = 4.0
"""How sharply the ramp ends: 1 / (1 + x^4)^(1/4)."""
SPLIT_BELOW_WAVES: Final = 0.8
"""Keys are split where tiles leave a fifth of the cores idle (the heuristic of FlashAttention's num_splits)."""


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
    fixed_s = coefficients[start + DECODE_LAUNCH_S] + coefficients[start + DECODE_TILE_S]
    window = coefficients[start + WINDOW_TOKENS]
    masked_blocks = 0.0
    if window > 0.0 and context_max > window:
        context_max = window
        context_sum = min(context_sum, window * num_decode)
        masked_blocks = 1.0  # a window starts inside a block
        fixed_s += coefficients[start + DECODE_WINDOW_S]
    waves = num_decode * coefficients[start + DECODE_WAVES]
    blocks = max(context_sum / (num_decode * BLOCK_TOKENS), 1.0)
    longest_blocks = max(context_max / BLOCK_TOKENS, 1.0) + masked_blocks
    walked_blocks = longest_blocks
    if waves < SPLIT_BELOW_WAVES and coefficients[start + DECODE_SPLITS] > 0.0:
        walked_blocks = min(longest_blocks, max(longest_blocks * waves, 1.0))
        if longest_blocks > 1.0:
            fixed_s += coefficients[start + DECODE_COMBINE_S]
            fixed_s += coefficients[start + DECODE_COMBINE_LOG_S] * math.log2(longest_blocks)
    if num_decode > 1:
        fixed_s += coefficients[start + DECODE_REGROUP_S]
    memory_s = context_sum * coefficients[start + DECODE_BYTE_S] + num_decode * coefficients[start + DECODE_SEQUENCE_S]
    ramp_s = coefficients[start + DECODE_RAMP_S]
    if ramp_s > 0.0:
        steep = (memory_s / ramp_s) ** RAMP_POWER
        memory_s += memory_s / (1.0 + steep) ** (1.0 / RAMP_POWER)
    compute_s = context_sum * coefficients[start + DECODE_FLOP_S]
    if num_decode_tokens > num_decode:
        compute_s *= num_decode_tokens / num_decode
        memory_s += (num_decode_tokens - num_decode) * coefficients[start + DECODE_QUERY_S]
    core_blocks = max(waves * blocks, 1.0)
    issue_s = (max(waves * (blocks + masked_blocks), 1.0) - 1.0) * coefficients[start + DECODE_BLOCK_S]
    walk_s = (walked_blocks - 1.0) * coefficients[start + DECODE_WALK_S]
    whole = max(waves, 1.0)
    whole += coefficients[start + DECODE_WAVE_FRAC] * (math.ceil(whole) - whole)
    tile_s = (whole - 1.0) * coefficients[start + DECODE_TILE_S]
    other_s = max(memory_s, issue_s)
    stream_s = max(other_s, compute_s)
    stream_s = max(stream_s, walk_s) + coefficients[start + DECODE_SERIAL_FRAC] * min(stream_s, walk_s)
    exposed_s = min(stream_s, tile_s) / (1.0 + core_blocks / coefficients[start + DECODE_HIDDEN_BLOCKS])
    is_compute = compute_s > max(other_s, walk_s, tile_s)
    return fixed_s + max(stream_s, tile_s) + exposed_s, is_compute


@compiled
def prefill_attention_seconds(
    num_prefill: int,
    num_new: float,
    token_pairs: float,
    context_sum: float,
    num_decode: int,
    decode_context_sum: float,
    decode_context_max: float,
    coefficients: FloatArray,
    start: int,
) -> tuple[float, bool]:
    """Seconds of one layer for `num_prefill` >= 1 prompt chunks, and whether compute limits it.

    num_new: new tokens of all chunks; token_pairs: causal query-key pairs, history included; context_sum: history and
    new tokens of all chunks. num_decode, decode_context_*: queries of decodes that the same kernel takes along, each of
    which fills a tile of its own (0 where they have a kernel of their own).
    """
    history = context_sum - num_new
    row = context_sum / num_prefill
    window = coefficients[start + WINDOW_TOKENS]
    if window > 0.0:
        token_pairs = min(token_pairs, window * num_new)
        context_sum = min(context_sum, num_new + window * num_prefill)
        row = min(row, window + coefficients[start + WINDOW_ROW_TOKENS])
        decode_context_sum = min(decode_context_sum, window * num_decode)
        decode_context_max = min(decode_context_max, window)
    prompt_tiles = math.ceil(num_new / num_prefill * coefficients[start + PREFILL_TILE_ROWS])
    tile_waves = coefficients[start + PREFILL_TILE_HEADS] * coefficients[start + PREFILL_CORE_SHARE]
    waves = num_prefill * prompt_tiles * tile_waves
    whole = max(waves, 1.0)
    whole += coefficients[start + PREFILL_WAVE_FRAC] * (math.ceil(whole) - whole)
    pairs = token_pairs + num_new * coefficients[start + TOKEN_PAIRS]
    all_s = pairs * coefficients[start + PAIR_S]
    row_s = row * coefficients[start + LONGEST_ROW_S]
    compute_s = max(all_s, row_s) + coefficients[start + PREFILL_SERIAL_FRAC] * min(all_s, row_s)
    compute_s += (whole - 1.0) * coefficients[start + PREFILL_TILE_S]
    filled = num_new / coefficients[start + PREFILL_CACHE_TOKENS]
    cubed = filled * filled * filled
    token_s = coefficients[start + PREFILL_TOKEN_WARM_S]
    token_s += (coefficients[start + PREFILL_TOKEN_S] - token_s) * (cubed * cubed / (1.0 + cubed * cubed))
    token_s += coefficients[start + PREFILL_TOKEN_ISSUE_S]
    memory_s = max(num_new * token_s, context_sum * coefficients[start + PREFILL_BYTE_S])
    both_s = max(compute_s, memory_s) + coefficients[start + PREFILL_MEMORY_SERIAL_FRAC] * min(compute_s, memory_s)
    fixed_s = coefficients[start + PREFILL_LAUNCH_S] + history * coefficients[start + HISTORY_S]
    if num_decode > 0:
        walked_s = mixed_decode_seconds(
            num_decode, decode_context_sum, decode_context_max, tile_waves, coefficients, start
        )
        filled = max(waves + num_decode * tile_waves, 1.0)
        both_s += walked_s - min(both_s, walked_s) / filled**FILLED_POWER
        both_s += num_decode * prompt_tiles * tile_waves * coefficients[start + MIXED_EMPTY_S]
    return fixed_s + both_s, compute_s >= memory_s


@compiled
def mixed_decode_seconds(
    num_decode: int,
    context_sum: float,
    context_max: float,
    tile_waves: float,
    coefficients: FloatArray,
    start: int,
) -> float:
    """Seconds of the decodes that a kernel of prompts takes along, each a tile per query head that no core shares.

    Tiles come to the cores in whole waves, one KV head of all decodes after the other; where those of the query heads
    that share it do not run at once, its keys are read again, as far as the last-level cache does not hold them.
    tile_waves: waves that one such tile of every head makes.
    """
    mean = context_sum / num_decode
    waves = num_decode * tile_waves
    key_s = coefficients[start + MIXED_ROW_TOKENS] * coefficients[start + PAIR_S] / tile_waves
    tile_s = mean * key_s + coefficients[start + MIXED_TILE_S]
    last_s = (context_max - mean) * key_s
    compute_s = max(math.ceil(waves) * tile_s, max(waves, 1.0) * tile_s + last_s)
    group = coefficients[start + MIXED_GROUP]
    readings = min(max(num_decode * group * coefficients[start + PREFILL_CORE_SHARE], 1.0), group)
    kept = (context_sum / coefficients[start + MIXED_CACHE_TOKENS]) ** REREAD_POWER
    readings = 1.0 + (readings - 1.0) * kept / (1.0 + kept)
    seconds: float = max(compute_s, context_sum * coefficients[start + DECODE_BYTE_S] * readings)
    return seconds
