"""Bytes that collectives of a forward pass send through one device's port, for the links they share with others."""

from __future__ import annotations

from hermes_sim.perf.lowered_operators import LoweredOperators
from hermes_sim.perf.operator_rows import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    COUNT,
    KIND,
    REDUCE_SCATTER,
    TOKEN_BYTES,
)


def tensor_bytes_per_token(operators: LoweredOperators, tp: int) -> float:
    """Out of each device of a tensor-parallel group, per token of a step: 2 (p - 1) / p of what is reduced, (p - 1) / p
    of what is gathered or scattered, as a ring moves them (Patarasuk and Yuan, JPDC 69, 2009). Logits are left out."""
    times = {ALL_REDUCE: 2.0, ALL_GATHER: 1.0, REDUCE_SCATTER: 1.0}
    return (tp - 1.0) / tp * _bytes_per_token(operators, times)


def expert_bytes_per_token(operators: LoweredOperators, num_devices: int) -> float:
    """Out of each device that holds experts, per token of its rank: (p - 1) / p of what it hands out."""
    return (num_devices - 1.0) / num_devices * _bytes_per_token(operators, {ALL_TO_ALL: 1.0})


def _bytes_per_token(operators: LoweredOperators, times: dict[int, float]) -> float:
    return float(sum(times.get(int(row[KIND]), 0.0) * row[COUNT] * row[TOKEN_BYTES] for row in operators.rows))
