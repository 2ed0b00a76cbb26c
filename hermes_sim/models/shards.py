"""Operators of one shard: sizes split over a tensor-parallel group, bytes from the model's dtypes."""

from __future__ import annotations

from math import ceil

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.models.architecture import ModelArchitecture, Part
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import bytes_per_weight, compute_dtype


def share(size: int, tp: int) -> int:
    return ceil(size / tp)


def gemm(model: ModelArchitecture, name: str, part: Part, m: int, n: int, k: int, count: int) -> Operator:
    weights = float(n) * k * bytes_per_weight(model, part)
    activations = float(m) * (n + k) * DTYPE_BYTES[model.activation_dtype]
    return Operator(
        name,
        "gemm",
        count=count,
        flops=2.0 * m * n * k,
        bytes=weights + activations,
        m=m,
        n=n,
        k=k,
        dtype=compute_dtype(model, part),
    )


def elementwise(model: ModelArchitecture, name: str, num_elements: float, count: int) -> Operator:
    moved = num_elements * DTYPE_BYTES[model.activation_dtype]
    return Operator(name, "elementwise", count=count, bytes=moved, dtype=model.activation_dtype)
