"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the matrices of a model: memory, loads, and time in a batch.

Each matrix W of k inputs and n outputs gets x A B beside x W, with A of k x r and B of r x n. A batch with several
adapters runs two kernels a matrix (shrink, then expand; Punica, arXiv 2310.18547, section 4; S-LoRA, arXiv 2311.03285,
section 5), which read the weights of each adapter in it once. Split over tensor-parallel devices as in vLLM:
by column B is split and A is not, by row A is split and B is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hermes_sim.core.schema import DTYPE_BYTES
from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.shards import share
from hermes_sim.perf.coefficients import gemm_coefficients, supported_dtype
from hermes_sim.perf.operators import gemm

Target = Literal["qkv", "out", "up", "down"]

BUFFER_BYTES = DTYPE_BYTES["fp32"]
"""Of a number between shrink and expand, as in vLLM's kernels."""


@dataclass(frozen=True, slots=True)
class AdaptedMatrix:
    """One matrix of a layer on one device; several that are computed together (query, key, value) are slices of it."""

    num_layers: int
    num_slices: int
    inputs: int
    outputs: int
    """Of all slices together."""

    def num_weights(self, rank: int) -> int:
        """Of one adapter in one layer."""
        return rank * (self.num_slices * self.inputs + self.outputs)


@dataclass(frozen=True, slots=True)
class AdapterCost:
    """On one device of a tensor-parallel group."""

    weight_bytes: float
    """Of one adapter."""
    step_s: float
    """Kernels of a step that has adapters at all."""
    weight_s: float
    """Reading one adapter's weights."""
    token_s: float
    """One token through all its adapted matrices."""


def adapted_matrices(model: ModelArchitecture, targets: Sequence[Target], tp: int) -> Iterator[AdaptedMatrix]:
    """The matrices that adapters stand beside."""
    query, key_value = model.num_heads * model.head_dim, 2 * share(model.num_kv_heads, tp) * model.head_dim
    gates = 2 if model.gated_mlp else 1
    hidden, attention, mlp = model.hidden_size, model.num_attention_layers, model.num_dense_layers
    width = share(model.intermediate_size, tp)
    matrices = {
        "qkv": AdaptedMatrix(attention, 3, hidden, share(query, tp) + key_value),
        "out": AdaptedMatrix(attention, 1, share(query, tp), hidden),
        "up": AdaptedMatrix(mlp, gates, hidden, gates * width),
        "down": AdaptedMatrix(mlp, 1, width, hidden),
    }
    return (matrices[target] for target in targets)


def adapter_weight_bytes(model: ModelArchitecture, targets: Sequence[Target], rank: int, tp: int) -> float:
    """Of one adapter on one device, in the model's activation dtype."""
    weights = sum(matrix.num_layers * matrix.num_weights(rank) for matrix in adapted_matrices(model, targets, tp))
    return weights * DTYPE_BYTES[model.activation_dtype]


def adapter_cost(
    model: ModelArchitecture, device: Device, targets: Sequence[Target], rank: int, tp: int
) -> AdapterCost:
    """Shrink and expand are bound by memory or by compute, whichever is longer for a token; weights are always read."""
    dtype = supported_dtype(device, model.activation_dtype) or model.activation_dtype
    coefficients = gemm_coefficients(device, dtype)
    bytes_per_s = device.memory.bandwidth_bytes_per_s * device.cost_model.elementwise_memory_frac
    flops_per_s = coefficients[gemm.PEAK] * coefficients[gemm.COMPUTE_FRAC]
    weight_bytes = adapter_weight_bytes(model, targets, rank, tp)
    token_s, num_kernels = 0.0, 0
    for matrix in adapted_matrices(model, targets, tp):
        buffer_bytes = 2.0 * rank * matrix.num_slices * BUFFER_BYTES
        # x is read; y is read and written
        moved = (matrix.inputs + 2.0 * matrix.outputs) * DTYPE_BYTES[model.activation_dtype] + buffer_bytes
        flops = 2.0 * matrix.num_weights(rank)
        token_s += matrix.num_layers * max(moved / bytes_per_s, flops / flops_per_s)
        num_kernels += 2 * matrix.num_layers
    return AdapterCost(
        weight_bytes=weight_bytes,
        step_s=num_kernels * device.cost_model.elementwise_launch_s,
        weight_s=weight_bytes / bytes_per_s,
        token_s=float(token_s),
    )
