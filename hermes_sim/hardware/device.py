"""What one device can do: peaks per dtype, memory, power, price, and the coefficients of its cost model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hermes_sim.core.schema import (
    Bytes,
    BytesPerSecond,
    Description,
    Dtype,
    FlopsPerSecond,
    Fraction,
    Hertz,
    NonNegativeInt,
    PositiveInt,
    Seconds,
    Source,
    UsdPerHour,
    Watts,
)

DeviceKind = Literal["gpu", "cpu", "tpu", "cim"]
DeviceClass = Literal[
    "datacenter_ampere", "datacenter_hopper", "datacenter_blackwell", "datacenter_ada",
    "consumer_ampere", "consumer_ada", "consumer_blackwell", "amd_cdna", "tpu", "cpu", "cim",
]  # fmt: skip


class Memory(Description):
    """The memory a device computes from: capacity as the driver reports it, bandwidth decimal."""

    kind: str
    """hbm2e, hbm3, gddr6, ddr5, lpddr5x, sram ..."""
    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")


class Cache(Description):
    """A last-level cache shared by the whole device."""

    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="bandwidth")


class Power(Description):
    """Board power: idle, and while a step is limited by each resource (TDP where nothing better is known)."""

    idle_w: Watts = Field(alias="idle")
    tdp_w: Watts = Field(alias="tdp")
    compute_bound_frac: Fraction = 1.0
    """Share of TDP drawn while compute limits."""
    memory_bound_frac: Fraction = 0.7
    network_bound_frac: Fraction = 0.45
    host_bound_frac: Fraction = 0.35


class FitError(Description):
    """How far a fitted model is from measurements, as absolute percentage errors."""

    median_frac: float
    mean_frac: float
    bias_frac: float
    """Mean of the signed errors: below zero the model is too fast."""
    num_points: NonNegativeInt


class GemmEfficiency(Description):
    """Coefficients of the matrix-multiply model for one dtype (perf/operators/gemm.py).

    The defaults add nothing to a roofline with two efficiencies and a launch.
    """

    compute_frac: Fraction
    """Share of the dense peak reached inside a tile."""
    memory_frac: Fraction
    """Share of the memory bandwidth a large stream reaches."""
    launch_s: Seconds = Field(alias="launch")
    """Time of an empty kernel inside a captured graph."""
    prologue_elements: float = Field(default=0.0, ge=0.0)
    """Elements of k that filling the pipeline of a tile is worth."""
    wave_frac: Fraction = 0.0
    """0: waves of tiles count continuously; 1: only whole waves."""
    serial_frac: Fraction = 0.0
    """Share of the shorter of compute and memory time that is not hidden."""
    split_s: Seconds = Field(default=0.0, alias="split")
    """Synchronising the parts of a split sum."""
    core_streams: float = Field(default=2.0, ge=1.0)
    """One core can draw this multiple of its share of the memory bandwidth."""
    depth_s: Seconds = Field(default=0.0, alias="depth")
    """Latency of one element of k in a tile's main loop."""
    cache_speedup: float = Field(default=1.0, ge=1.0)
    """Bandwidth of the last-level cache over the memory's, for activations that fit it."""
    quantize_row_s: Seconds = Field(default=0.0, alias="quantize_row")
    """Narrow dtypes: the kernel that scales the activations, per row."""
    quantize_element_s: Seconds = Field(default=0.0, alias="quantize_element")
    """... and per element."""
    held_out: FitError | None = None
    """Error on shapes that were not fitted; None for estimates."""


class AttentionEfficiency(Description):
    """Coefficients of the attention model beside its two efficiencies (perf/operators/attention.py).

    The defaults add nothing to a roofline but a short launch.
    """

    decode_launch_s: Seconds = Field(default=2e-6, alias="decode_launch")
    """The kernels of one layer (cache write, attention, combination) with nothing to read."""
    decode_compute_frac: Fraction = 0.25
    decode_core_streams: float = Field(default=8.0, gt=0.0)
    """What one KV head of one sequence can draw, in shares of the bandwidth per core: its keys are split over cores."""
    decode_serial_frac: Fraction = 0.0
    decode_head_s: Seconds = Field(default=0.0, alias="decode_head")
    """Per sequence and KV head: scheduling its block and filling its last tile."""
    prefill_launch_s: Seconds = Field(default=2e-6, alias="prefill_launch")
    prefill_memory_frac: Fraction = 0.5
    prefill_serial_frac: Fraction = 0.0
    softmax_s: Seconds = Field(default=0.0, alias="softmax")
    """Per query-key pair and head, whole device: exponentials that the matrix units wait for."""
    diagonal_pairs: float = Field(default=0.0, ge=0.0)
    """Pairs per new token in the half-filled tiles on the diagonal."""
    sequence_pairs: float = Field(default=0.0, ge=0.0)
    """Pairs per prompt and head in its last tile of queries."""
    row_tokens: float = Field(default=128.0, ge=0.0)
    """Queries in the block that one core walks over the whole context."""
    decode_held_out: FitError | None = None
    prefill_held_out: FitError | None = None


class CostModel(Description):
    """Efficiencies of this device's kernels (see docs/modelling.md for the equations)."""

    gemm: dict[Dtype, GemmEfficiency] = Field(min_length=1)
    attention_prefill_compute_frac: Fraction
    attention_decode_memory_frac: Fraction
    elementwise_memory_frac: Fraction
    elementwise_launch_s: Seconds = Field(default=2e-6, alias="elementwise_launch")
    """One small kernel inside a captured graph."""
    kernel_launch_s: Seconds = Field(alias="kernel_launch")
    """Host-side time per kernel when steps are not captured as graphs."""
    expert_slowdown: float = Field(default=1.0, ge=1.0)
    """Time of a grouped product of experts over that of equal dense products."""
    expert_launch_s: Seconds = Field(default=0.0, alias="expert_launch")
    """Per layer of experts: choosing, sorting and gathering."""
    expert_held_out: FitError | None = None
    attention: AttentionEfficiency = AttentionEfficiency()
    source: Source


class Device(Description):
    """One device, its numbers and where they come from."""

    name: str
    title: str
    """As the vendor writes it."""
    aliases: tuple[str, ...] = ()
    kind: DeviceKind
    device_class: DeviceClass = Field(alias="class")
    peak_flops_per_s: dict[Dtype, FlopsPerSecond] = Field(alias="peak")
    """Dense peak per dtype."""
    memory: Memory
    cache: Cache | None = None
    num_cores: PositiveInt
    """Streaming multiprocessors, compute units or CPU cores: what waves and shares are counted in."""
    clock_hz: Hertz | None = Field(default=None, alias="clock")
    scan_rate_bytes_per_s_per_core: BytesPerSecond | None = Field(default=None, alias="scan_rate_per_core")
    """CPU: product-quantised codes one core scans per second."""
    power: Power
    price_usd_per_h: UsdPerHour = Field(alias="price")
    """Rent of one device."""
    cost_model: CostModel
    sources: dict[str, Source]
    """Key path (or its prefix) -> source; every number of the file is covered."""
