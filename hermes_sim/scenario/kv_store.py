"""Memory beside the engines that keeps the KV of prompts: host DRAM, CXL pools, SSDs, storage of a rack or of all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import (
    DTYPE_BYTES,
    Bytes,
    BytesPerSecond,
    Description,
    Dtype,
    Name,
    NonNegativeFloat,
    PositiveInt,
    Seconds,
    Source,
)

StoredDtype = Literal["bf16", "fp16", "fp8", "int8", "fp4", "int4", "int2"]
BITS_PER_BYTE = 8.0
STORED_BITS: dict[str, float] = {name: BITS_PER_BYTE * size for name, size in DTYPE_BYTES.items()}


class KvStore(Description):
    """One tier of storage for the KV of prompts; one instance for each engine replica, node or rack, or one for all."""

    name: Name
    medium: Literal["hbm", "host_dram", "cxl", "local_ssd", "rack", "remote"]
    """For the reader: what it is made of. The numbers below say what it does."""
    capacity_bytes: Bytes = Field(alias="capacity", gt=0.0)
    """Of each instance."""
    read_bandwidth_bytes_per_s: BytesPerSecond = Field(alias="read_bandwidth")
    """Of each instance, shared by all that read from it at the time."""
    write_bandwidth_bytes_per_s: BytesPerSecond = Field(alias="write_bandwidth")
    latency_s: Seconds = Field(default=0.0, alias="latency")
    """Of an access, beside that of the links on the way."""
    shared_by: Literal["engine", "node", "rack", "cluster"] = "node"
    """Who has one together: the requests of one engine replica, of all engines of a node, of a rack, of the cluster."""
    nodes_per_rack: PositiveInt | None = None
    """Where `shared_by: rack`: so many nodes, in the order of the file, are a rack; as many as the lowest level of the
    cluster's `fabric` joins if not given."""
    node: Name | None = None
    """Node group that it stands in, where a rack or the cluster shares it: rack k has that of node k, the cluster has
    one that is spread over all of these nodes. If not given, it stands in the node of the engine that asks."""
    attached_to: str | None = None
    """Device group of that node that it is reached through: transfers cross the links from there to the engine's
    devices. If not given: the engine's own devices, and only its own bandwidth limits it."""
    chunk_tokens: PositiveInt = 256
    """KV is looked up, kept and given up in chunks of so many tokens (LMCache: 256)."""
    eviction: Literal["lru", "lfu", "ttl"] = "lru"
    """What gives way where there is no room: the least recently used; the least often used (counted to 64); ttl: the
    least recently used, and whatever nobody has used for `ttl`."""
    ttl_s: Seconds | None = Field(default=None, alias="ttl")
    evict_to: Name | None = None
    """Store that gets what gives way here for want of room; it is lost if not given."""
    kv_dtype: StoredDtype | None = None
    """Precision of the stored KV, on the way too; the engine's if not given."""
    kv_scale_bits: NonNegativeFloat = 0.0
    """Bits for scales and zero points beside those of each stored number (a 16-bit scale for a group of 32: 0.5)."""
    sources: dict[str, Source] = Field(default={})
    """Key -> where its value comes from; what has none is an estimate."""

    @model_validator(mode="after")
    def _goes_together(self) -> KvStore:
        if (self.shared_by == "rack") != (self.nodes_per_rack is not None):
            raise ValueError("nodes_per_rack, or a fabric with racks, goes with shared_by: rack, and that with it")
        if (self.eviction == "ttl") != (self.ttl_s is not None):
            raise ValueError("ttl goes with eviction: ttl, and that with it")
        wide = self.shared_by in ("rack", "cluster")
        if wide and (self.node is None or self.attached_to is None):
            raise ValueError(f"what a {self.shared_by} shares stands somewhere: give `node` and `attached_to`")
        if not wide and self.node is not None:
            raise ValueError(f"what an {self.shared_by} shares stands in its own node: leave `node` out")
        if self.shared_by == "node" and self.attached_to is None:
            raise ValueError("engines share it over links: give `attached_to`")
        unknown = [key for key in self.sources if key not in _keys()]
        if unknown:
            raise ValueError(f"sources name '{unknown[0]}', which is no key of a store")
        return self

    def stored_frac(self, dtype: Dtype) -> float:
        """Stored bytes over those that an engine with KV of this precision keeps."""
        bits = STORED_BITS[dtype] if self.kv_dtype is None else STORED_BITS[self.kv_dtype]
        return (bits + self.kv_scale_bits) / STORED_BITS[dtype]


def _keys() -> set[str]:
    """As files write them."""
    return {field.alias or name for name, field in KvStore.model_fields.items()}
