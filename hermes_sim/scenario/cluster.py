"""The cluster file: nodes and links, the engines placed on them, how requests are routed to engines."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from hermes_sim.batching import JOB_POLICIES, TOKEN_POLICIES, DynamicBatching, TokenBatching
from hermes_sim.core.schema import (
    Bytes,
    Description,
    Dtype,
    Fraction,
    GramsPerKwh,
    Name,
    NonNegativeInt,
    PositiveInt,
    Seconds,
    not_required,
    one_of,
)
from hermes_sim.hardware.node import NodeGroup
from hermes_sim.routing import RoutingConfig

TOKEN_STAGES = frozenset({"prefill", "decode"})
"""Stage kinds of a token engine; all others are jobs."""


def _or_number_of_devices(schema: dict[str, Any]) -> None:
    """Amends the JSON Schema of a placement: `4` is short for `{devices: 4}`."""
    mapping = dict(schema)
    schema.clear()
    schema |= {"anyOf": [mapping, {"type": "integer", "minimum": 1}]}


class Placement(Description):
    """How much of one device group one replica gets."""

    model_config = ConfigDict(json_schema_extra=_or_number_of_devices)

    devices: PositiveInt = 1
    cores: PositiveInt | None = None
    """CPU groups: cores of those devices together; all of them if not given."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        """`gpu: 4` is short for `gpu: {devices: 4}`."""
        return {"devices": data} if isinstance(data, int) else data


class Parallel(Description):
    """Degrees of parallelism of one replica; tp x pp is its number of devices."""

    tp: PositiveInt = 1
    pp: PositiveInt = 1
    ep: PositiveInt = 1
    """Experts over the tensor-parallel devices; divides tp."""

    @property
    def num_devices(self) -> int:
        return self.tp * self.pp


class KvCache(Description):
    """KV memory of one replica and how it is cut into blocks."""

    memory_fraction: Fraction = 0.9
    """Share of device memory the engine may use: weights, activations and KV together."""
    block_tokens: PositiveInt = 16
    prefix_caching: bool = True
    dtype: Dtype | None = None
    """As the model says if not given."""
    num_gpu_blocks: PositiveInt | None = None
    """Stated number of blocks instead of the memory model."""
    activation_reserve_bytes: Bytes | None = Field(default=None, alias="activation_reserve")
    """Peak activations and runtime per device; modelled if not given."""


class Host(Description):
    """Time the host adds to steps and sequences."""

    per_step_s: Seconds = Field(default=2.0e-4, alias="per_step")
    per_sequence_s: Seconds = Field(default=2.0e-6, alias="per_sequence")
    graph_capture: bool = True
    """Decode steps replay captured graphs: no launch gaps, batch padded to the next captured size."""
    max_captured_seqs: NonNegativeInt = 512


class Engine(Description):
    """An executor of stages on a device group; `replicas` equal ones."""

    model_config = ConfigDict(json_schema_extra=not_required("batching"))

    name: Name
    serves: tuple[str, ...] = Field(min_length=1)
    """Stage kinds."""
    model: str | None = None
    """Language model, for prefill and decode."""
    replicas: PositiveInt = 1
    node: str | None = None
    """Node group; may be left out when only one has the device groups of `placement`."""
    placement: dict[str, Placement] = Field(min_length=1)
    """Device group -> share of one replica. `gpu: 4` is short for `gpu: {devices: 4}`."""
    parallel: Parallel = Parallel()
    batching: Annotated[TokenBatching | DynamicBatching, one_of(TOKEN_POLICIES | JOB_POLICIES, "batching policy")]
    """If left out: chunked_prefill where prefill or decode is served, else dynamic."""
    kv_cache: KvCache = KvCache()
    host: Host = Host()

    @model_validator(mode="before")
    @classmethod
    def _default_batching(cls, data: Any) -> Any:
        """Names the batching policy that the file leaves out."""
        if not isinstance(data, dict):
            return data
        given = data.get("batching", {})
        serves = data.get("serves")
        if not isinstance(given, dict) or "kind" in given or not isinstance(serves, list | tuple):
            return data
        takes_tokens = any(isinstance(kind, str) and kind in TOKEN_STAGES for kind in serves)
        return {**data, "batching": {"kind": "chunked_prefill" if takes_tokens else "dynamic", **given}}


class ClusterFile(Description):
    """Nodes and their links, engines placed on them, and how requests are routed to engines."""

    name: str = Field(min_length=1)
    title: str | None = None
    nodes: tuple[NodeGroup, ...] = Field(min_length=1)
    network: str | None = None
    """Link profile between nodes where a node names no uplink."""
    engines: tuple[Engine, ...] = Field(min_length=1)
    routing: RoutingConfig = RoutingConfig()
    routing_per_stage: dict[str, RoutingConfig] = Field(default_factory=dict)
    """Stage name or kind -> routing of its visits, where it differs."""
    carbon_g_per_kwh: GramsPerKwh = Field(default=400.0, alias="carbon")
    pue: float = Field(default=1.2, ge=1.0)
    """Power usage effectiveness: facility energy over device energy."""
