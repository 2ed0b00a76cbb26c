"""Products with weights on compute-in-memory arrays: cycles of the inputs' bits, writes of what does not stay, energy.

A matrix [k, n] lies in ceil(k / rows) x ceil(n x cells per weight / columns) macros that all work on the same input
vector; one vector follows the other. Equations and sources: docs/compute-in-memory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
import numpy.typing as npt

from hermes_sim.core.schema import Dtype
from hermes_sim.core.sparsity_pattern import kept_frac
from hermes_sim.hardware.cim_array import AnalogArray, DigitalArray
from hermes_sim.models.operator import Operator
from hermes_sim.perf.expert_routing import busiest_rows, distinct_experts
from hermes_sim.perf.operator_rows import COMPUTE, MEMORY, NUM_RESOURCES

FloatArray = npt.NDArray[np.float64]
Array = DigitalArray | AnalogArray

_BYTE_BITS = 8.0


@dataclass(frozen=True, slots=True)
class ArrayProduct:
    """Equal products of a step on the macros of one device of a group."""

    name: str
    count: float
    """Layers with this pattern of zeros; a mix of patterns makes several products of one operator."""
    n: int
    k: int
    """Rows that take cells: without the zeros that the macros skip."""
    dtype: Dtype
    pattern: str | None
    """That the macros run."""
    rows_per_token: float
    flops_per_token: float
    """Of the operator, by its own zeros, in these layers."""
    num_experts: float = 0.0
    """Of the model; 0: no layer of experts."""
    experts_per_token: float = 0.0
    num_local_experts: int = 1
    """Matrices of this shape in a layer on one device."""

    def num_tiles(self, array: Array) -> tuple[int, int]:
        """Macros that split k, and those that split n, of one matrix."""
        columns = self.n * array.columns_of_weight(self.dtype)
        return ceil(self.k / array.rows), ceil(columns / array.columns)

    def total_tiles(self, array: Array) -> float:
        """Macros (tiers of tiles) that all matrices of the product take."""
        down, across = self.num_tiles(array)
        return self.count * self.num_local_experts * down * across

    def spread(self, num_tokens: FloatArray, array: Array) -> tuple[FloatArray, FloatArray]:
        """Input vectors of the busiest macro, and matrices at work.

        Experts work side by side. Stacked on the tiers of the same tiles they take turns: as many groups as there are
        tiers' worth of experts.
        """
        rows = self.rows_per_token * num_tokens
        if self.num_experts == 0.0:
            return rows, np.ones(np.shape(rows))
        shares = self.num_experts / self.num_local_experts
        reached = np.array([
            distinct_experts(float(tokens), self.num_experts, self.experts_per_token) / shares for tokens in num_tokens
        ])  # fmt: skip
        side_by_side = np.maximum(np.minimum(self.num_local_experts / array.num_tiers, reached), 1.0)
        return np.array([busiest_rows(float(one), shares) for one in rows]) / side_by_side, reached


@dataclass(frozen=True, slots=True)
class ArrayOperators:
    """Products on the arrays of a group of equal devices, each with its share of the columns or rows."""

    array: Array
    num_devices: int
    products: tuple[ArrayProduct, ...]
    names: tuple[str, ...]
    """Operators, in order; a product has the name of its operator."""
    activation_bytes: float
    """Of one number."""
    stays_frac: float
    """Of the weights that stay in the cells from step to step."""
    read_bytes_per_s: float = inf
    """From the device's memory, where the others are written from."""

    @property
    def num_kernels(self) -> float:
        """The array runs a program of its own: nothing is launched by the host."""
        return 0.0

    def seconds(self, index: int, count: int) -> tuple[float, int]:
        """Seconds of all calls of one operator, and what limits: compute, or (memory) writing weights."""
        total_s, writing = self._seconds(self.names[index], np.array([float(count)]))
        return float(total_s[0]), MEMORY if writing[0] else COMPUTE

    def _seconds(self, name: str, num_tokens: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Seconds of all calls, and whether writing weights takes most of them."""
        compute_s, write_s = np.zeros(len(num_tokens)), np.zeros(len(num_tokens))
        for product in self.products:
            if product.name == name:
                compute_s += self._compute_s(product, num_tokens)
                write_s += self._written_bits(product, num_tokens) / _BYTE_BITS / self._write_bytes_per_s()
        overlaps = isinstance(self.array, DigitalArray) and self.array.write_overlaps
        return np.maximum(compute_s, write_s) if overlaps else compute_s + write_s, write_s > compute_s

    def _write_bytes_per_s(self) -> float:
        """Through the write ports, no faster than the memory gives."""
        ports = self.array.write_bytes_per_s if isinstance(self.array, DigitalArray) else inf
        return min(ports, self.read_bytes_per_s)

    def _compute_s(self, product: ArrayProduct, num_tokens: FloatArray) -> FloatArray:
        """Vectors one after the other, in as many passes as the macros need, and no faster than the power allows."""
        down, across = product.num_tiles(self.array)
        vectors, at_work = product.spread(num_tokens, self.array)
        passes = np.ceil(down * across * np.minimum(at_work, product.num_local_experts) / self.array.num_macros)
        taken_s = passes * vectors * self.array.vector_s(product.dtype) + self.array.latency_s(down)
        if self.array.power_limit_w is not None:
            taken_s = np.maximum(taken_s, self._call_j(product, num_tokens) / self.array.power_limit_w)
        return np.asarray(np.where(num_tokens > 0.0, product.count * taken_s, 0.0), np.float64)

    def _call_j(self, product: ArrayProduct, num_tokens: FloatArray) -> FloatArray:
        """Joules of the products of one layer on one device."""
        rows = product.rows_per_token * num_tokens
        if isinstance(self.array, AnalogArray):
            down, across = product.num_tiles(self.array)
            return rows * down * across * self.array.energy_per_mvm_j
        return rows * self.array.product_j(float(product.n) * product.k, product.dtype)

    def _written_bits(self, product: ArrayProduct, num_tokens: FloatArray) -> FloatArray:
        """Of a step on one device: weights that do not stay, of the experts that are reached."""
        if isinstance(self.array, AnalogArray) or self.stays_frac >= 1.0:
            return np.zeros(len(num_tokens))
        _, at_work = product.spread(num_tokens, self.array)
        dense_k = product.k / kept_frac(product.pattern)
        bits = at_work * product.n * dense_k * self.array.weight_bits(product.dtype, product.pattern)
        return np.asarray(np.where(num_tokens > 0.0, product.count * (1.0 - self.stays_frac) * bits, 0.0), np.float64)

    def table(self, max_count: int) -> FloatArray:
        """[max_count + 1, NUM_RESOURCES] seconds by limiting resource; row 0 is zero."""
        out = np.zeros((max_count + 1, NUM_RESOURCES))
        counts = np.arange(max_count + 1, dtype=np.float64)
        for name in self.names:
            seconds, writing = self._seconds(name, counts)
            out[:, COMPUTE] += np.where(writing, 0.0, seconds)
            out[:, MEMORY] += np.where(writing, seconds, 0.0)
        return out

    def joules(self, max_count: int) -> FloatArray:
        """[max_count + 1] of all devices: products by their bits, writes by theirs."""
        return self.joules_of(np.arange(max_count + 1, dtype=np.float64))

    def joules_of(self, num_tokens: FloatArray) -> FloatArray:
        """Of all devices, at each of these numbers of tokens."""
        out = np.zeros(len(num_tokens))
        per_bit_j = self.array.energy_per_bit_written_j if isinstance(self.array, DigitalArray) else 0.0
        for product in self.products:
            call_j, bits = self._call_j(product, num_tokens), self._written_bits(product, num_tokens)
            out += product.count * call_j + bits * per_bit_j
        return out * self.num_devices

    def support_frac(self, index: int, count: int) -> float:
        """Nothing is measured."""
        return 0.0

    def flops(self, num_counts: FloatArray) -> FloatArray:
        """FLOPs of one device."""
        return num_counts * sum(product.flops_per_token for product in self.products)

    def bytes(self, num_steps: FloatArray, num_counts: FloatArray) -> FloatArray:
        """Bytes between the array and the device's memory: activations, and weights that are written again."""
        activations = sum(product.count * product.rows_per_token * (product.n + product.k) for product in self.products)
        mean = np.divide(num_counts, num_steps, out=np.zeros(np.shape(num_steps)), where=num_steps > 0.0)
        written = np.zeros(mean.size)
        for product in self.products:
            written += self._written_bits(product, np.ravel(mean)) / _BYTE_BITS
        return num_counts * activations * self.activation_bytes + num_steps * written.reshape(np.shape(num_steps))

    def total_tiles(self) -> float:
        """Macros (tiers of tiles) that all weights take on one device."""
        return total_tiles(self.products, self.array)


def total_tiles(products: Sequence[ArrayProduct], array: Array) -> float:
    """Macros (tiers of tiles) of one device that these matrices take."""
    return sum(product.total_tiles(array) for product in products)


def array_products(
    operators: Sequence[Operator],
    array: Array,
    num_tokens: int,
    *,
    num_experts: float = 0.0,
    experts_per_token: float = 0.0,
) -> tuple[ArrayProduct, ...]:
    """Products of one device from its operators at `num_tokens`, cut by patterns of zeros. KeyError: unknown dtype."""
    found = []
    for operator in operators:
        array.columns_of_weight(operator.dtype)
        grouped = operator.name in ("experts_up", "experts_down")
        patterns = operator.sparsity.parts() if operator.sparsity is not None else iter([(None, 1.0)])
        for pattern, layers_frac in patterns:
            held = array.held_pattern(pattern)
            own_k = kept_frac(pattern) * operator.k
            found.append(
                ArrayProduct(
                    name=operator.name,
                    count=operator.count * layers_frac,
                    n=operator.n,
                    k=max(round(operator.k * kept_frac(held)), 1),
                    dtype=operator.dtype,
                    pattern=held,
                    rows_per_token=operator.m / num_tokens,
                    flops_per_token=operator.count * layers_frac * 2.0 * operator.m * operator.n * own_k / num_tokens,
                    num_experts=num_experts if grouped else 0.0,
                    experts_per_token=experts_per_token if grouped else 0.0,
                    num_local_experts=operator.num_groups if grouped else 1,
                )
            )
    return tuple(found)
