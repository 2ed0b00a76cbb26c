"""What the small kernels of a step reach on a device, by the name of the operator."""

from __future__ import annotations

from typing import Final, NamedTuple

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind

KINDS: Final[dict[str, ElementwiseKind]] = {
    "qk_norm": "qk_norm", "latent_norm": "norm", "gated_norm": "norm", "rope": "rope", "act": "activation",
    "shared_act": "activation", "embedding": "embedding", "position_embedding": "embedding",
    "sampler": "sampler",
}  # fmt: skip
"""Operator of a forward pass -> kind of kernel. Others are streams of no special kind."""

NEAREST: Final[dict[ElementwiseKind, ElementwiseKind]] = {"qk_norm": "norm", "add_norm": "norm"}
"""Kind that stands for one that was not measured."""

CHAINS: Final[dict[ElementwiseKind, int]] = {"unfused_norm": 8, "unfused_rope": 10, "unfused_activation": 2}
"""Kernels of an operation that is not fused, where it was not measured. Source: the modules of Transformers' Llama:
widen, square, mean, add, root, multiply, narrow, scale; twice multiply, negate, join, multiply, add; SiLU, multiply."""

FUSED_NORM: Final = "norm"
"""Norm and residual addition in one kernel, as engines run it."""


class Stream(NamedTuple):
    """Arguments of `stream_seconds` beside the bytes."""

    reached_bytes_per_s: float
    launch_s: float
    cache_bytes: float
    cache_speedup: float


def stream_coefficients(device: Device, operator: str, row_bytes: float = 0.0) -> Stream:
    """Of one operator whose rows (tokens) have so many bytes; `encoder_` in front of a name makes no difference.

    Where norm and addition were measured apart only, half of the bytes of both in one are the norm's, half the other's.
    """
    name = operator.removeprefix("encoder_")
    table = device.cost_model.elementwise
    if name == FUSED_NORM and "add_norm" not in table and {"norm", "residual_add"} <= set(table):
        norm, addition = table["norm"], table["residual_add"]
        memory_frac = 2.0 / (1.0 / norm.memory_frac + 1.0 / addition.memory_frac)
        return kind_coefficients(device, norm.model_copy(update={"memory_frac": memory_frac}), row_bytes)
    kind = "add_norm" if name == FUSED_NORM else KINDS.get(name)
    return _of_kind(device, kind, row_bytes)


def measured_coefficients(device: Device, kind: ElementwiseKind | None) -> Stream:
    """Of a measured stream of a kind, or of none, without its rows' latency."""
    return _of_kind(device, kind, 0.0)


def _of_kind(device: Device, kind: ElementwiseKind | None, row_bytes: float) -> Stream:
    """The kind's own coefficients, else those of the nearest one, else the device's for any stream."""
    cost = device.cost_model
    nearest = None if kind is None else NEAREST.get(kind)
    for own in (kind, nearest):
        if own is not None and own in cost.elementwise:
            return kind_coefficients(device, cost.elementwise[own], row_bytes)
    num_kernels = 1 if kind is None else CHAINS.get(kind, 1)
    return Stream(
        reached_bytes_per_s=device.memory.bandwidth_bytes_per_s * cost.elementwise_memory_frac,
        launch_s=num_kernels * cost.elementwise_launch_s,
        cache_bytes=0.0,
        cache_speedup=1.0,
    )


def kind_coefficients(device: Device, efficiency: ElementwiseEfficiency, row_bytes: float = 0.0) -> Stream:
    """Of one kind, as measured alone."""
    return Stream(
        reached_bytes_per_s=device.memory.bandwidth_bytes_per_s * efficiency.memory_frac,
        launch_s=efficiency.launch_s + efficiency.row_s_per_byte * row_bytes,
        cache_bytes=efficiency.cache_share * device.cache.capacity_bytes if device.cache else 0.0,
        cache_speedup=efficiency.cache_speedup,
    )
