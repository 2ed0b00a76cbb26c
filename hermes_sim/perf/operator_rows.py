"""Operators as rows of numbers: what their columns are, and one compiled function that prices them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hermes_sim.core.compiled import compiled
from hermes_sim.perf.expert_routing import busiest_rows, distinct_experts, skewed_experts
from hermes_sim.perf.operators.collective import (
    GROUP_INSIDE_BANDWIDTH,
    NUM_COLLECTIVE_COEFFICIENTS,
    NUM_GROUP_NUMBERS,
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    fitted_all_reduce_seconds,
    fitted_exchange_seconds,
    group_all_reduce_seconds,
    send_seconds,
)
from hermes_sim.perf.operators.elementwise import stream_seconds
from hermes_sim.perf.operators.experts import (
    NUM_EXPERT_COEFFICIENTS,
    expert_stream_seconds,
    grouped_product_seconds,
    passed_rows,
)
from hermes_sim.perf.operators.gemm import corrected_gemm_seconds
from hermes_sim.perf.residual import residual_log_ratio

FloatArray = npt.NDArray[np.float64]

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3
NUM_RESOURCES = 4
RESOURCES = ("compute", "memory", "network", "host")

GEMM, GROUPED_GEMM, STREAM, ALL_REDUCE, ALL_GATHER, SEND, ALL_TO_ALL, EXPERT_STREAM = 0, 1, 2, 3, 4, 5, 6, 7
REDUCE_SCATTER = 8
NETWORK_KINDS = (ALL_REDUCE, ALL_GATHER, SEND, ALL_TO_ALL, REDUCE_SCATTER)

# Columns of a row
KIND = 0
COUNT = 1  # calls per step
ROWS_PER_TOKEN = 2  # m of one call
N = 3  # of a pass over experts' rows: rows it writes per token beside
K = 4
WEIGHT_BYTES = 5  # per call, whatever the number of tokens; grouped: of one expert
TOKEN_BYTES = 6  # per call and token
TOKEN_FLOPS = 7  # per call and token
COEFFICIENTS = 8  # row of the table of GEMM coefficients, by dtype and kernel
NUM_EXPERTS = 9  # of the whole model
EXPERTS_PER_TOKEN = 10
EXPERT_DEVICES = 11  # shares the experts are spread over (ep)
PRICED_FRAC = 12  # 0 where the kernel's time is counted elsewhere
EXPERT_RANKS = 13  # ranks whose tokens meet in the experts (dp)
STREAM_BYTES_PER_S = 14  # what a small kernel reaches
STREAM_LAUNCH_S = 15
STREAM_CACHE_BYTES = 16
STREAM_CACHE_SPEEDUP = 17
NUM_COLUMNS = 18

# Settings beside the rows
TP = 0
TP_BANDWIDTH = 1
TP_LATENCY_S = 2
PP_BANDWIDTH = 3
PP_LATENCY_S = 4
EP_BANDWIDTH = 5
EP_LATENCY_S = 6
EP_DEVICES = 7  # devices that the experts' tokens come from and go to: tp x dp
EXPERTS = 8  # coefficients of a layer of experts (perf/operators/experts.py) from here on
TP_ALL_REDUCE = EXPERTS + NUM_EXPERT_COEFFICIENTS  # coefficients of collectives (perf/operators/collective.py)
TP_ALL_GATHER = TP_ALL_REDUCE + NUM_COLLECTIVE_COEFFICIENTS
EP_ALL_TO_ALL = TP_ALL_GATHER + NUM_COLLECTIVE_COEFFICIENTS
TP_REDUCE_SCATTER = EP_ALL_TO_ALL + NUM_COLLECTIVE_COEFFICIENTS
TP_GROUP = TP_REDUCE_SCATTER + NUM_COLLECTIVE_COEFFICIENTS  # what the group is, for algorithms that are not fitted
NUM_SETTINGS = TP_GROUP + NUM_GROUP_NUMBERS

NO_RATES = np.zeros((0, 0))
"""Every expert alike: formulas instead of a table."""


@compiled
def _all_reduce_seconds(num_bytes: float, settings: FloatArray) -> float:
    """As fitted to the engine's kernels on this link, else by the group's algorithm, else direct."""
    if settings[TP_ALL_REDUCE] > 0.0:
        return fitted_all_reduce_seconds(num_bytes, int(settings[TP]), settings[TP_ALL_REDUCE:])
    if settings[TP_GROUP + GROUP_INSIDE_BANDWIDTH] > 0.0:
        return group_all_reduce_seconds(num_bytes, int(settings[TP]), settings[TP_GROUP:])
    return all_reduce_seconds(num_bytes, int(settings[TP]), settings[TP_BANDWIDTH], settings[TP_LATENCY_S])


@compiled
def _all_to_all_seconds(num_bytes: float, settings: FloatArray) -> float:
    """The same between the devices that hold the experts."""
    if settings[EP_ALL_TO_ALL] > 0.0:
        return fitted_exchange_seconds(num_bytes, int(settings[EP_DEVICES]), settings[EP_ALL_TO_ALL:])
    return all_to_all_seconds(num_bytes, int(settings[EP_DEVICES]), settings[EP_BANDWIDTH], settings[EP_LATENCY_S])


@compiled
def _expert_ratio(row: FloatArray, num_tokens: float, expert_residual: FloatArray) -> float:
    """Measured over analytic time of the layer of experts that the row belongs to; 1 without measured ones."""
    if expert_residual[0] == 0.0:
        return 1.0
    return math.exp(residual_log_ratio(expert_residual, row[EXPERT_RANKS] * num_tokens, 1.0, 1.0, 1.0)[0])


@compiled
def row_seconds(
    rows: FloatArray,
    index: int,
    num_tokens: float,
    gemm_table: FloatArray,
    settings: FloatArray,
    expert_residual: FloatArray,
    skewed_rows: float,
    skewed_distinct: float,
) -> tuple[float, int]:
    """Seconds of all calls of one operator at `num_tokens`, and the resource that limits it.

    skewed_rows, skewed_distinct: rows and experts read of the busiest share of the experts; 0 where all are alike.
    """
    row = rows[index]
    kind = int(row[KIND])
    token_bytes = row[TOKEN_BYTES] * num_tokens
    resource = MEMORY
    if kind == GEMM:
        seconds, is_compute = corrected_gemm_seconds(
            row[ROWS_PER_TOKEN] * num_tokens, row[N], row[K], row[WEIGHT_BYTES], token_bytes,
            gemm_table[int(row[COEFFICIENTS])],
        )  # fmt: skip
        resource = COMPUTE if is_compute else MEMORY
    elif kind == GROUPED_GEMM:
        mean_rows = row[ROWS_PER_TOKEN] * num_tokens
        if skewed_rows > 0.0:
            num_rows, distinct = skewed_rows, skewed_distinct
        else:
            num_rows = busiest_rows(mean_rows, row[EXPERT_DEVICES])
            distinct = distinct_experts(row[EXPERT_RANKS] * num_tokens, row[NUM_EXPERTS], row[EXPERTS_PER_TOKEN])
            distinct /= row[EXPERT_DEVICES]
        seconds, is_compute = grouped_product_seconds(
            num_rows, distinct, row[N], row[K], distinct * row[WEIGHT_BYTES],
            token_bytes * num_rows / mean_rows, False, settings[EXPERTS:],
        )  # fmt: skip
        resource = COMPUTE if is_compute else MEMORY
    elif kind == EXPERT_STREAM:
        mean_rows = row[ROWS_PER_TOKEN] * num_tokens
        num_rows = skewed_rows if skewed_rows > 0.0 else busiest_rows(mean_rows, row[EXPERT_DEVICES])
        all_tokens = row[EXPERT_RANKS] * num_tokens
        passed = passed_rows(num_rows, all_tokens * row[EXPERTS_PER_TOKEN], settings[EXPERTS:]) + row[N] * num_tokens
        seconds = expert_stream_seconds(
            all_tokens, token_bytes * passed / (mean_rows + row[N] * num_tokens), settings[EXPERTS:]
        )
    elif kind == STREAM:
        seconds = stream_seconds(
            row[WEIGHT_BYTES] + token_bytes, row[STREAM_BYTES_PER_S], row[STREAM_LAUNCH_S],
            row[STREAM_CACHE_BYTES], row[STREAM_CACHE_SPEEDUP],
        ) * row[PRICED_FRAC]  # fmt: skip
    else:
        resource = NETWORK
        if kind == ALL_REDUCE:
            seconds = _all_reduce_seconds(token_bytes, settings)
        elif kind in (ALL_GATHER, REDUCE_SCATTER):
            start = TP_ALL_GATHER if kind == ALL_GATHER else TP_REDUCE_SCATTER
            if settings[start] > 0.0:
                seconds = fitted_exchange_seconds(token_bytes, int(settings[TP]), settings[start:])
            else:
                seconds = all_gather_seconds(
                    token_bytes, int(settings[TP]), settings[TP_BANDWIDTH], settings[TP_LATENCY_S]
                )
        elif kind == ALL_TO_ALL:  # as long as the busiest share takes to receive its rows
            mean_rows = row[ROWS_PER_TOKEN] * num_tokens
            num_rows = skewed_rows if skewed_rows > 0.0 else busiest_rows(mean_rows, row[EXPERT_DEVICES])
            seconds = _all_to_all_seconds(token_bytes * num_rows / mean_rows, settings)
        else:
            seconds = send_seconds(token_bytes, settings[PP_BANDWIDTH], settings[PP_LATENCY_S])
    if kind in (GROUPED_GEMM, EXPERT_STREAM):
        seconds *= _expert_ratio(row, num_tokens, expert_residual)
    return row[COUNT] * seconds, resource


@compiled
def fill_table(
    rows: FloatArray,
    gemm_table: FloatArray,
    settings: FloatArray,
    expert_rates: FloatArray,
    expert_residual: FloatArray,
    out: FloatArray,
) -> None:
    """out[count, resource] = seconds of all operators at that count; row 0 stays zero."""
    num_ranks = 1.0
    for index in range(rows.shape[0]):
        num_ranks = max(num_ranks, rows[index, EXPERT_RANKS])
    for num_tokens in range(1, out.shape[0]):
        skewed_rows, distinct = skewed_experts(expert_rates, num_ranks * num_tokens)
        for index in range(rows.shape[0]):
            seconds, resource = row_seconds(
                rows, index, float(num_tokens), gemm_table, settings, expert_residual, skewed_rows, distinct
            )
            out[num_tokens, resource] += seconds
