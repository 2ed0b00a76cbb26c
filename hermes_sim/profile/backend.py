"""What measurements need of an array library, so that they run on NumPy, and on PyTorch with a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import HermesError

Array = Any
IntArray = npt.NDArray[np.int64]
Call = Callable[[], object]
TimingKind = Literal["graph", "eager"]
DeviceKind = Literal["cuda", "cpu"]

ITEM_BYTES: dict[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call, one figure a repeat."""

    samples_s: list[float]
    kind: TimingKind


@dataclass(frozen=True, slots=True)
class PagedCache:
    """Keys and values of one layer: [num_blocks, block_tokens, num_kv_heads, head_dim] each."""

    keys: Array
    values: Array


class Backend(Protocol):
    """Arrays, operators and a clock. Weights are opaque: each library keeps them as its products want them."""

    name: str
    """numpy or torch."""
    device_name: str
    """As the driver or the operating system calls it."""
    cache_bytes: int
    """Last-level cache: rotating operands exceed it, so that it is cold."""
    gemm_dtypes: tuple[str, ...]
    dtype: str
    """The widest-used dtype of activations: bf16 on a GPU, fp32 with NumPy."""
    captures: bool
    """Whether launches can be captured as a graph."""

    def versions(self) -> dict[str, str]: ...

    def machine(self) -> dict[str, object]:
        """Facts about the device for the provenance: memory, cores, driver; no names of hosts."""

    def free_bytes(self) -> int: ...

    def release(self) -> None:
        """Give memory of dropped arrays back."""

    def synchronize(self) -> None: ...

    def random(self, shape: Sequence[int], dtype: str) -> Array:
        """Standard normal values: power and clocks depend on the data."""

    def integers(self, values: npt.ArrayLike) -> Array: ...

    def assign(self, target: Array, values: npt.ArrayLike) -> None:
        """Write host values into an existing array, in place."""

    def to_host(self, array: Array) -> npt.NDArray[Any]: ...

    def capture(self, call: Call) -> Call:
        """The call as a graph to replay; the call itself where there are no graphs."""

    def measure(self, calls: Sequence[Call], *, num_repeats: int, budget_s: float, graph: bool) -> Timing:
        """Time the calls one after another, warmed up, by the device's own clock; captured if wished and possible."""

    def linear(self, num_outputs: int, num_inputs: int, dtype: str) -> Array:
        """A random weight for `product`, in the order the library multiplies fastest."""

    def activations(self, num_rows: int, num_columns: int, dtype: str) -> Array:
        """A random operand for `product`, in the dtype that the product reads."""

    def product(self, activations: Array, weight: Array, dtype: str) -> Array:
        """activations [m, k] times weight [n, k] transposed, in a dtype of `gemm_dtypes`."""

    def attend(self, queries: Array, keys: Array, values: Array) -> Array:
        """Causal attention, the last query aligned with the last key.

        queries [num_seqs, num_heads, new_tokens, head_dim]; keys, values [num_seqs, num_kv_heads, context, head_dim].
        """

    def attend_paged(self, queries: Array, cache: PagedCache, block_tables: Array, context_tokens: Array) -> Array:
        """One query a sequence: queries [num_seqs, num_heads, head_dim], block_tables [num_seqs, max_blocks]."""

    def read_paged(self, cache: PagedCache, blocks: Array, num_tokens: int) -> tuple[Array, Array]:
        """Keys and values of one sequence, [1, num_kv_heads, num_tokens, head_dim] each."""

    def write_paged(self, cache: PagedCache, slots: Array, keys: Array, values: Array) -> None:
        """keys, values [num_tokens, num_kv_heads, head_dim] into the slots (block x block_tokens + offset)."""

    def experts(self, tokens: Array, gate_up: Array, down: Array, routing: Array) -> Array:
        """Grouped products of routed tokens; `gate_up`, `down` and `routing` come from `expert_weights`, `route`."""

    def expert_weights(self, num_experts: int, hidden: int, width: int, dtype: str) -> tuple[Array, Array]: ...

    def route(self, assignment: IntArray, num_experts: int) -> Array:
        """What `experts` needs of an assignment [num_tokens, num_experts_per_token] of tokens to experts."""

    def stream_kernels(self, num_tokens: int, width: int, dtype: str) -> dict[str, tuple[Call, float]]:
        """Kernels that only move bytes, by name: a call, and the bytes it reads and writes."""

    def copies(self, num_bytes: int) -> dict[str, Call]:
        """Copies of a block of memory by kind: device_to_device, host_to_device, device_to_host, peer_to_peer."""

    def collectives(self, num_bytes: int) -> dict[int, Call]:
        """All-reduces in bf16 by number of devices; empty on one device."""

    def small_kernel(self) -> Call:
        """A kernel with next to nothing to do: its time is the launch."""

    def rms_norm(self, x: Array, weight: Array) -> Array: ...

    def silu_and_multiply(self, x: Array) -> Array:
        """silu(left half) x right half, along the last axis."""

    def rotate(self, x: Array, positions: Array) -> Array:
        """Rotary position embedding of [num_tokens, num_heads, head_dim]."""

    def embed(self, table: Array, tokens: Array) -> Array: ...

    def largest(self, logits: Array) -> Array:
        """Index of the largest value of every row: greedy sampling."""


def choose_backend(device: DeviceKind) -> Backend:
    """PyTorch where it is installed; NumPy only for the CPU. Raises HermesError if the device cannot be had."""
    if find_spec("torch") is None:
        if device == "cuda":
            raise HermesError(
                "measuring a GPU needs PyTorch, which is not installed: "
                "pip install 'hermes-sim[profile]', or choose --device cpu"
            )
        from hermes_sim.profile.numpy_backend import NumpyBackend

        return NumpyBackend()
    from hermes_sim.profile.torch_backend import TorchBackend

    return TorchBackend(device)
