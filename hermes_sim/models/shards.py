"""Operators of one shard: sizes split over a tensor-parallel group, bytes from the model's dtypes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil, log2
from typing import Final

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.models.architecture import ModelArchitecture, Part
from hermes_sim.models.operator import Operator
from hermes_sim.models.parameters import bytes_per_weight, compute_dtype, outlier_column_bytes, part_quantization

ROTATED_INPUTS: Final = ("out", "down", "shared_down", "experts_down")
"""Products whose inputs are rotated while running; all other rotations are folded into the weights (QuaRot)."""


def share(size: int, tp: int) -> int:
    return ceil(size / tp)


def gemm(model: ModelArchitecture, name: str, part: Part, m: int, n: int, k: int, count: int) -> Operator:
    """Product of the activations with one matrix of a part."""
    quantization = part_quantization(model, part)
    weights = float(n) * k * (bytes_per_weight(model, part) - outlier_column_bytes(model, part))
    activations = float(m) * (n + k) * DTYPE_BYTES[model.activation_dtype]
    sparsity = quantization.sparsity if quantization is not None else None
    return Operator(
        name,
        "gemm",
        count=count,
        flops=2.0 * m * n * k * (sparsity.kept_frac if sparsity is not None else 1.0),
        bytes=weights + activations,
        m=m,
        n=n,
        k=k,
        dtype=compute_dtype(model, part),
        weight_dtype=quantization.weight_dtype if quantization is not None else None,
        sparsity=sparsity,
        part=part,
    )


def elementwise(model: ModelArchitecture, name: str, num_elements: float, count: int) -> Operator:
    moved = num_elements * DTYPE_BYTES[model.activation_dtype]
    return Operator(name, "elementwise", count=count, bytes=moved, dtype=model.activation_dtype)


def with_side_paths(model: ModelArchitecture, operators: Iterable[Operator]) -> Iterator[Operator]:
    """The operators, each with what its quantisation does beside: a rotation of the inputs before the product, and a
    product of the outlier columns in the activations' dtype after it. Of experts, outliers are bytes alone.

    A Hadamard transform of a row of k takes k log2(k) additions (QuaRot, arXiv 2404.00456, section 4).
    """
    wide = DTYPE_BYTES[model.activation_dtype]
    for operator in operators:
        quantization = part_quantization(model, operator.part) if operator.part is not None else None
        if quantization is None:
            yield operator
            continue
        if quantization.online_rotation and operator.name.removeprefix("encoder_") in ROTATED_INPUTS:
            rotation = elementwise(model, f"{operator.name}_rotation", 2.0 * operator.m * operator.k, operator.count)
            yield replace(rotation, flops=float(operator.m) * operator.k * log2(operator.k))
        yield operator
        num_columns = ceil(quantization.outlier_columns_frac * operator.k)
        if num_columns > 0 and operator.part != "experts":
            moved = wide * (float(num_columns) * (operator.m + operator.n) + float(operator.m) * operator.n)
            yield Operator(
                f"{operator.name}_outliers",
                "gemm",
                count=operator.count,
                bytes=moved,
                m=operator.m,
                n=operator.n,
                k=num_columns,
                dtype=model.activation_dtype,
            )
