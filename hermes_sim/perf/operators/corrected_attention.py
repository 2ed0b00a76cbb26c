"""Time of attention with the device's residual tables: the analytic time x measured / analytic of its neighbourhood.

An engine fixes the heads, so what is left of a table is a plane over the number of sequences and the mean tokens of
one, at whole octaves of both. It lies behind the coefficients, in the same array.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.perf.operators.attention import (
    DECODE_RESIDUAL,
    PREFILL_RESIDUAL,
    decode_attention_seconds,
    prefill_attention_seconds,
)

FloatArray = npt.NDArray[np.float64]

FIRST_SEQS_OCTAVE = 0  # log2 of the first number of sequences
NUM_SEQS_OCTAVES = 1
FIRST_TOKENS_OCTAVE = 2  # log2 of the first number of tokens
NUM_TOKENS_OCTAVES = 3
FIRST_RATIO = 4  # measured / analytic, tokens running fastest; the outermost are one


@compiled
def corrected_decode_seconds(
    num_decode: int,
    num_decode_tokens: int,
    context_sum: float,
    context_max: float,
    coefficients: FloatArray,
    start: int,
) -> tuple[float, bool]:
    """`decode_attention_seconds` with the residual table of decodes. Drafts were not measured: without it."""
    seconds, is_compute = decode_attention_seconds(
        num_decode, num_decode_tokens, context_sum, context_max, coefficients, start
    )
    if coefficients[start + DECODE_RESIDUAL] > 0.0 and num_decode_tokens == num_decode:
        table = int(coefficients[start + DECODE_RESIDUAL])
        seconds *= plane_ratio(coefficients, table, float(num_decode), context_sum / num_decode)
    return seconds, is_compute


@compiled
def corrected_prefill_seconds(
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
    """`prefill_attention_seconds` with the residual table of prompts.

    The table is of whole prompts: its correction counts by the share of new tokens in what chunks attend to, and not
    where the kernel takes decodes along.
    """
    seconds, is_compute = prefill_attention_seconds(
        num_prefill, num_new, token_pairs, context_sum,
        num_decode, decode_context_sum, decode_context_max, coefficients, start,
    )  # fmt: skip
    if coefficients[start + PREFILL_RESIDUAL] > 0.0 and num_decode == 0:
        table = int(coefficients[start + PREFILL_RESIDUAL])
        ratio = plane_ratio(coefficients, table, float(num_prefill), num_new / num_prefill)
        seconds *= 1.0 + (ratio - 1.0) * num_new / context_sum
    return seconds, is_compute


@compiled
def plane_ratio(coefficients: FloatArray, table: int, num_seqs: float, num_tokens: float) -> float:
    """Measured / analytic of `coefficients[table:]`, linear between octaves, one outside."""
    num_columns = int(coefficients[table + NUM_TOKENS_OCTAVES])
    part, octave = math.frexp(num_seqs)
    row, above = octave - 1 - int(coefficients[table + FIRST_SEQS_OCTAVE]), 2.0 * part - 1.0
    part, octave = math.frexp(max(num_tokens, 1.0))
    column, right = octave - 1 - int(coefficients[table + FIRST_TOKENS_OCTAVE]), 2.0 * part - 1.0
    if row < 0 or column < 0 or row >= int(coefficients[table + NUM_SEQS_OCTAVES]) - 1 or column >= num_columns - 1:
        return 1.0
    at = table + FIRST_RATIO + row * num_columns + column
    low = coefficients[at] + right * (coefficients[at + 1] - coefficients[at])
    at += num_columns
    high = coefficients[at] + right * (coefficients[at + 1] - coefficients[at])
    ratio: float = low + above * (high - low)
    return ratio


@compiled
def fill_ratios(plane: FloatArray, num_seqs: FloatArray, num_tokens: FloatArray, out: FloatArray) -> None:
    """`plane_ratio` of every row."""
    for row in range(len(out)):
        out[row] = plane_ratio(plane, 0, num_seqs[row], num_tokens[row])
