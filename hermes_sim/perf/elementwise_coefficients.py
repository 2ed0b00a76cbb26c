"""What the small kernels of a step reach on a device, by the name of the operator."""

from __future__ import annotations

from typing import Final, NamedTuple

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.elementwise_efficiency import ElementwiseEfficiency, ElementwiseKind
from hermes_sim.perf.coefficients import CACHE_SHARE_FRAC

KINDS: Final[dict[str, ElementwiseKind]] = {
    "qk_norm": "norm", "latent_norm": "norm", "gated_norm": "norm", "rope": "rope", "act": "activation",
    "shared_act": "activation", "embedding": "embedding", "position_embedding": "embedding",
    "sampler": "sampler",
}  # fmt: skip
"""Operator of a forward pass -> kind of kernel. Others are streams of no special kind."""

FUSED_NORM: Final = "norm"
"""Norm and residual addition in one kernel, as engines run it."""


class Stream(NamedTuple):
    """Arguments of `stream_seconds` beside the bytes."""

    reached_bytes_per_s: float
    launch_s: float
    cache_bytes: float
    cache_speedup: float


def stream_coefficients(device: Device, operator: str) -> Stream:
    """Of one operator; `encoder_` in front of a name makes no difference.

    Where norm and addition were measured apart only, half of the bytes of both in one are the norm's, half the other's.
    """
    name = operator.removeprefix("encoder_")
    table = device.cost_model.elementwise
    if name == FUSED_NORM and "add_norm" not in table and {"norm", "residual_add"} <= set(table):
        norm, addition = table["norm"], table["residual_add"]
        memory_frac = 2.0 / (1.0 / norm.memory_frac + 1.0 / addition.memory_frac)
        return _stream(device, norm.launch_s, memory_frac, norm.cache_speedup)
    kind = KINDS.get(name)
    if name == FUSED_NORM:
        kind = "add_norm" if "add_norm" in table else "norm"
    if kind is not None and kind in table:
        efficiency = table[kind]
        return _stream(device, efficiency.launch_s, efficiency.memory_frac, efficiency.cache_speedup)
    cost = device.cost_model
    return _stream(device, cost.elementwise_launch_s, cost.elementwise_memory_frac, 1.0)


def kind_coefficients(device: Device, efficiency: ElementwiseEfficiency) -> Stream:
    """Of one kind, as measured alone."""
    return _stream(device, efficiency.launch_s, efficiency.memory_frac, efficiency.cache_speedup)


def _stream(device: Device, launch_s: float, memory_frac: float, cache_speedup: float) -> Stream:
    return Stream(
        reached_bytes_per_s=device.memory.bandwidth_bytes_per_s * memory_frac,
        launch_s=launch_s,
        cache_bytes=CACHE_SHARE_FRAC * device.cache.capacity_bytes if device.cache else 0.0,
        cache_speedup=cache_speedup,
    )
