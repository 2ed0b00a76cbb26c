"""What each device group of an engine that spans several does in a step: seconds at work and joules above idle.

Seconds of a step by limiting resource are step_cost's; this is read beside them, for engines of which operators lie on
several kinds of devices or in arrays that count energy by operation. A group is a *unit*.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.perf.operators.attention import DECODE_LAUNCH_S, NUM_LAYER_COEFFICIENTS, NUM_LAYERS, PREFILL_LAUNCH_S
from hermes_sim.perf.operators.corrected_attention import corrected_prefill_seconds
from hermes_sim.perf.step_kernel import (
    DECODE_COMPUTE_W,
    DECODE_MEMORY_W,
    DECODE_UNIT,
    FIRST_KIND,
    NUM_KINDS,
    PROMPT_COMPUTE_W,
    PROMPT_MEMORY_W,
    PROMPT_UNIT,
    RECURRENCE_S,
    RECURRENCE_SEQUENCE_S,
    RECURRENCE_TOKEN_S,
    decode_attention_seconds,
    takes_turns,
)
from hermes_sim.state.arrays import MAX_UNITS, NUM_UNIT_COLUMNS, UNIT_J

FloatArray = npt.NDArray[np.float64]


@compiled
def unit_cost(
    linear: FloatArray,
    decode_linear: FloatArray,
    sampled: FloatArray,
    attention: FloatArray,
    num_tokens: int,
    num_sampled: int,
    num_decode: int,
    num_decode_tokens: int,
    decode_context_sum: int,
    decode_context_max: int,
    num_prefill: int,
    prefill_token_pairs: int,
    prefill_context_sum: int,
    out: FloatArray,
) -> float:
    """Joules above idle of one step, all units; `out` [NUM_UNIT_COLUMNS] is overwritten.

    The tables are [..., NUM_UNIT_COLUMNS], arguments as of step_cost. Units at work side by side (interleaved parts of
    a batch) count their seconds each.
    """
    tokens = decode_linear[num_decode_tokens] if num_prefill == 0 else linear[num_tokens]
    for column in range(NUM_UNIT_COLUMNS):
        out[column] = tokens[column] + sampled[num_sampled, column]
    decoding = int(attention[DECODE_UNIT])
    prompting = int(attention[PROMPT_UNIT])
    in_halves = num_prefill == 0 and takes_turns(attention, num_decode)
    for kind in range(int(attention[NUM_KINDS])):
        start = FIRST_KIND + kind * NUM_LAYER_COEFFICIENTS
        num_layers = attention[start + NUM_LAYERS]
        if num_decode > 0:
            seconds, is_compute = decode_attention_seconds(
                num_decode, num_decode_tokens, float(decode_context_sum), float(decode_context_max), attention, start,
                in_halves,
            )  # fmt: skip
            if num_prefill > 0:  # launched behind the prompts
                seconds -= min(attention[start + DECODE_LAUNCH_S], attention[start + PREFILL_LAUNCH_S])
            out[decoding] += num_layers * seconds
            power_w = attention[DECODE_COMPUTE_W if is_compute else DECODE_MEMORY_W]
            out[UNIT_J + decoding] += num_layers * seconds * power_w
        if num_prefill > 0:
            seconds, is_compute = corrected_prefill_seconds(
                num_prefill, float(num_tokens - num_decode_tokens), float(prefill_token_pairs),
                float(prefill_context_sum), 0, 0.0, 0.0, attention, start,
            )  # fmt: skip
            out[prompting] += num_layers * seconds
            power_w = attention[PROMPT_COMPUTE_W if is_compute else PROMPT_MEMORY_W]
            out[UNIT_J + prompting] += num_layers * seconds * power_w
    if attention[RECURRENCE_S] > 0.0 and num_tokens > 0:
        seconds = (
            attention[RECURRENCE_S]
            + (num_decode + num_prefill) * attention[RECURRENCE_SEQUENCE_S]
            + num_tokens * attention[RECURRENCE_TOKEN_S]
        )
        out[decoding] += seconds
        out[UNIT_J + decoding] += seconds * attention[DECODE_MEMORY_W]
    total_j = 0.0
    for unit in range(MAX_UNITS):
        total_j += out[UNIT_J + unit]
    return total_j
