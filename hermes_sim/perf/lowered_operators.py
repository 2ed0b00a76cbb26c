"""The operators of a model that depend on one count: seconds, bytes, FLOPs for any number of tokens or sequences."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from hermes_sim.perf.expert_routing import distinct_experts, mean_distinct_experts, skewed_experts
from hermes_sim.perf.operator_rows import (
    COEFFICIENTS,
    COMPUTE,
    COUNT,
    EXPERT_DEVICES,
    EXPERT_RANKS,
    EXPERT_STREAM,
    EXPERTS_PER_TOKEN,
    GEMM,
    GROUPED_GEMM,
    KIND,
    MEMORY,
    NETWORK,
    NETWORK_KINDS,
    NUM_EXPERTS,
    NUM_RESOURCES,
    PRICED_FRAC,
    ROWS_PER_TOKEN,
    STREAM,
    TOKEN_BYTES,
    TOKEN_FLOPS,
    WEIGHT_BYTES,
    K,
    N,
    fill_table,
    row_seconds,
)
from hermes_sim.perf.operators.gemm import NUM_GEMM_COEFFICIENTS
from hermes_sim.perf.residual import residual_log_ratio

FloatArray = npt.NDArray[np.float64]


NUM_KEPT_TABLES: Final = 16

_filled: Final[OrderedDict[bytes, FloatArray]] = OrderedDict()
"""Tables of the last models and devices, by all that decides them: runs that differ in traffic alone share theirs."""


@dataclass(frozen=True, slots=True)
class LoweredOperators:
    """Operators that depend on one count only (new tokens, or sampled sequences)."""

    names: tuple[str, ...]
    rows: FloatArray
    """[num_operators, NUM_COLUMNS]"""
    gemm_table: FloatArray
    """[num_products, NUM_GEMM_COEFFICIENTS + residual table] by dtype and kernel"""
    settings: FloatArray
    """[NUM_SETTINGS]"""
    expert_rates: FloatArray
    """[ep, experts of a share] chance that a token chooses the expert; NO_RATES where all are alike."""
    expert_residual: FloatArray
    """ln(measured / analytic) of a layer of experts over tokens, packed (perf/residual.py)."""
    comm_overlap_frac: float = 0.0
    """Share of the network's time that other work of the same step can hide."""

    def table(self, max_count: int) -> FloatArray:
        """[max_count + 1, NUM_RESOURCES] seconds by limiting resource; row 0 is zero."""
        out = self._filled_table(max_count)
        out[:, NETWORK] -= self._hidden_s(out)
        return out

    def _filled_table(self, max_count: int) -> FloatArray:
        """What operator_rows.fill_table makes of the operators; the caller's own."""
        inputs = (self.rows, self.gemm_table, self.settings, self.expert_rates, self.expert_residual)
        digest = hashlib.blake2b(repr([max_count, *(part.shape for part in inputs)]).encode(), digest_size=16)
        for part in inputs:
            digest.update(part.tobytes())
        key = digest.digest()
        if key in _filled:
            _filled.move_to_end(key)
            return _filled[key].copy()
        out = np.zeros((max_count + 1, NUM_RESOURCES))
        fill_table(self.rows, self.gemm_table, self.settings, self.expert_rates, self.expert_residual, out)
        _filled[key] = out.copy()
        if len(_filled) > NUM_KEPT_TABLES:
            _filled.popitem(last=False)
        return out

    def _hidden_s(self, seconds: FloatArray) -> FloatArray:
        """[...] of the network's seconds, behind the device's own work and no longer than it. [..., NUM_RESOURCES]"""
        device_s = seconds[..., COMPUTE] + seconds[..., MEMORY]
        return np.minimum(self.comm_overlap_frac * seconds[..., NETWORK], device_s)

    def seconds(self, index: int, count: int) -> tuple[float, int]:
        """Seconds of all calls of one operator, and the resource that limits it."""
        seconds, resource = self._seconds_alone(index, count)
        if self.comm_overlap_frac == 0.0 or resource != NETWORK:
            return seconds, resource
        parts = np.zeros(NUM_RESOURCES)
        for other in range(len(self.names)):
            others_s, part = self._seconds_alone(other, count)
            parts[part] += others_s
        return seconds * (1.0 - float(self._hidden_s(parts)) / parts[NETWORK]) if seconds > 0.0 else 0.0, resource

    def _seconds_alone(self, index: int, count: int) -> tuple[float, int]:
        """With nothing beside it."""
        num_rows, distinct = skewed_experts(self.expert_rates, count * self.rows[index, EXPERT_RANKS])
        return row_seconds(
            self.rows, index, float(count), self.gemm_table, self.settings, self.expert_residual, num_rows, distinct
        )

    def support_frac(self, index: int, count: int) -> float:
        """How much of an operator's time at `count` rests on measurements nearby (0 to 1)."""
        row = self.rows[index]
        if row[KIND] == GEMM:
            residual = self.gemm_table[int(row[COEFFICIENTS]), NUM_GEMM_COEFFICIENTS:]
            return residual_log_ratio(residual, row[ROWS_PER_TOKEN] * count, row[N], row[K], 1.0)[1]
        if row[KIND] not in (GROUPED_GEMM, EXPERT_STREAM):
            return 0.0
        return residual_log_ratio(self.expert_residual, row[EXPERT_RANKS] * count, 1.0, 1.0, 1.0)[1]

    def with_small_kernels(self, time_frac: float) -> LoweredOperators:
        """Norms, rotary embeddings, activations: this much of their time."""
        rows = self.rows.copy()
        rows[rows[:, KIND] == STREAM, PRICED_FRAC] *= time_frac
        return replace(self, rows=rows)

    @property
    def num_kernels(self) -> float:
        """Kernels launched per step."""
        return float(self.rows[:, COUNT].sum())

    def flops(self, num_counts: FloatArray) -> FloatArray:
        """FLOPs of one device for so many tokens (or sequences), over any number of steps."""
        return num_counts * float((self.rows[:, COUNT] * self.rows[:, TOKEN_FLOPS]).sum())

    def bytes(self, num_steps: FloatArray, num_counts: FloatArray) -> FloatArray:
        """Bytes moved by one device; grouped products at the mean number of tokens per step. Arrays of one shape."""
        moving = self.rows[~np.isin(self.rows[:, KIND], NETWORK_KINDS)]
        is_grouped = moving[:, KIND] == GROUPED_GEMM
        weight_bytes = moving[:, COUNT] * moving[:, WEIGHT_BYTES]
        token_bytes = (moving[:, COUNT] * moving[:, TOKEN_BYTES]).sum()
        step_bytes = weight_bytes[~is_grouped].sum()
        if is_grouped.any():  # a model has one kind of experts
            row = moving[is_grouped][0]
            per_step = np.divide(num_counts, num_steps, out=np.zeros(np.shape(num_steps)), where=num_steps > 0.0)
            distinct = self._distinct_experts(row, row[EXPERT_RANKS] * per_step)
            step_bytes = step_bytes + weight_bytes[is_grouped].sum() * distinct
        return np.where(num_steps > 0.0, num_steps * step_bytes + num_counts * token_bytes, 0.0)

    def _distinct_experts(self, row: FloatArray, num_tokens: FloatArray) -> FloatArray:
        """Experts read on a device, on average over the devices."""
        each = num_tokens.ravel().tolist()
        if self.expert_rates.size > 0:
            distinct = [mean_distinct_experts(self.expert_rates, tokens) for tokens in each]
        else:
            num_experts, chosen = float(row[NUM_EXPERTS]), float(row[EXPERTS_PER_TOKEN])
            distinct = [distinct_experts(tokens, num_experts, chosen) / row[EXPERT_DEVICES] for tokens in each]
        return np.array(distinct).reshape(num_tokens.shape)
