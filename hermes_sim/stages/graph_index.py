"""Indexes that walk a graph of neighbours towards the query: in memory, or on solid-state drives."""

from __future__ import annotations

from math import ceil, log
from typing import Final, Literal

from pydantic import Field

from hermes_sim.core.schema import (
    DTYPE_BYTES,
    BytesPerSecond,
    Description,
    Dtype,
    Fraction,
    PositiveInt,
    Seconds,
)
from hermes_sim.models.operator import Operator
from hermes_sim.models.search import Drive, SearchWork
from hermes_sim.stages.index import Index

LINK_BYTES = 4
HOPS_PER_LEVEL: Final = 3.0
"""Nodes expanded on each upper level of a hierarchical graph: 2.4 to 3.4 in traces/measured/epyc_zen4_vcpu."""
NEW_LINK_FRAC: Final = 0.36
"""Of the links of an expanded node, those to nodes not met before: 0.26 to 0.49 there."""


class Hnsw(Index):
    """Hierarchical navigable small world graph (arXiv 1603.09320)."""

    kind: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2, le=4096)
    """Links a node on the upper levels; twice as many on the lowest."""
    ef_search: PositiveInt = 64
    dtype: Dtype = "fp32"
    """Of the stored vectors."""
    new_link_frac: Fraction = NEW_LINK_FRAC
    """Share of an expanded node's links that lead to nodes not met before: only their vectors are compared."""

    def index_bytes(self) -> float:
        """N (d b + 2 M 4), and M links for each of the N / (M - 1) nodes of the upper levels."""
        links = 2.0 * self.m * self.num_vectors + self.m * self.num_vectors / (self.m - 1)
        return self.num_vectors * self.dim * DTYPE_BYTES[self.dtype] + LINK_BYTES * links

    def recall_setting(self) -> int | None:
        return self.ef_search

    def hops_per_query(self) -> float:
        """Nodes expanded: ef_search on the lowest of log N / log M levels, a few on each of the others."""
        return self.ef_search + HOPS_PER_LEVEL * log(max(self.num_vectors / self.num_shards, 2.0)) / log(self.m)

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Each hop reads a list of 2 M links and the vectors of the new ones: 2 d FLOPs and d b bytes each."""
        if num_queries == 0:
            return ()
        hops = self.hops_per_query()
        return (
            walk(self, num_queries, hops, hops * 2.0 * self.m * self.new_link_frac),
            *self.finish(num_queries, hops, top_k),
        )


def walk(index: Hnsw, num_queries: int, hops: float, vectors: float, name: str = "graph_walk") -> Operator:
    """The walk of every query over every shard's graph; `hops` and `vectors` are of one query and shard."""
    read_bytes = vectors * index.dim * DTYPE_BYTES[index.dtype] + hops * 2 * index.m * LINK_BYTES
    work = SearchWork(
        num_vectors=vectors,
        num_hops=hops,
        num_accesses=vectors,
        read_bytes=read_bytes,
        resident_bytes=index.index_bytes(),
        num_shards=index.num_shards,
    )
    number = num_queries * index.num_shards
    return Operator(
        name,
        "scan",
        flops=2.0 * number * vectors * index.dim,
        bytes=number * read_bytes,
        dtype=index.dtype,
        num_groups=num_queries,
        search=work,
    )


class Drives(Description):
    """Solid-state drives of one shard. Defaults: an NVMe drive behind PCI Express 4.0 x4."""

    count: PositiveInt = 1
    read_latency_s: Seconds = Field(default=90e-6, alias="read_latency")
    """Of one random read of 4 KiB. An estimate: flash 60 to 70 us, controller and software."""
    reads_per_s: float = Field(default=1.0e6, gt=0.0, alias="iops")
    """Random reads of 4 KiB that one drive serves. An estimate: data sheets of such drives state 0.8 to 1.5 million."""
    bandwidth_bytes_per_s: BytesPerSecond = Field(default=7e9, alias="bandwidth")
    sector_bytes: PositiveInt = 4096

    def together(self) -> Drive:
        """All of them."""
        number = self.count
        return Drive(self.read_latency_s, number * self.reads_per_s, number * self.bandwidth_bytes_per_s)


class DiskAnn(Index):
    """Graph and whole vectors on solid-state drives, codes of the vectors in memory (DiskANN, NeurIPS 2019)."""

    kind: Literal["diskann"] = "diskann"
    max_degree: PositiveInt = 64
    """Links of a node, R."""
    ef_search: PositiveInt = 100
    """Candidates kept, L: so many nodes are read, and a few more on the way."""
    beam_width: PositiveInt = 4
    """Nodes read at once, W."""
    code_bytes: PositiveInt = 32
    """Of one vector's product-quantised code, in memory."""
    dtype: Dtype = "fp32"
    """Of the stored vectors."""
    drives: Drives = Drives()
    new_link_frac: Fraction = NEW_LINK_FRAC
    """Share of a node's links that lead to nodes not met before: only their codes are compared."""

    def index_bytes(self) -> float:
        """Memory: the codes. What lies on the drives is `drive_bytes`."""
        return float(self.num_vectors) * self.code_bytes

    def node_bytes(self) -> int:
        """A node on the drive, whole sectors: its vector, its number of links, the links."""
        used = self.dim * DTYPE_BYTES[self.dtype] + LINK_BYTES + self.max_degree * LINK_BYTES
        return ceil(used / self.drives.sector_bytes) * self.drives.sector_bytes

    def drive_bytes(self) -> float:
        """Of all drives; small nodes share a sector."""
        used = self.dim * DTYPE_BYTES[self.dtype] + LINK_BYTES + self.max_degree * LINK_BYTES
        sectors = self.num_vectors / max(self.drives.sector_bytes // used, 1)
        return sectors * self.node_bytes()

    def recall_setting(self) -> int | None:
        return self.ef_search

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Rounds of `beam_width` reads, one round after the other; the codes of new links are compared in memory."""
        if num_queries == 0:
            return ()
        reads = float(self.ef_search)
        codes = reads * self.max_degree * self.new_link_frac
        codebook_bytes = 256 * self.dim * DTYPE_BYTES["fp32"]
        whole = reads  # every node that is read is compared by its whole vector too
        number = num_queries * self.num_shards
        work = SearchWork(
            num_vectors=codes + whole,
            num_lookups=codes * self.code_bytes,
            num_accesses=codes,
            read_bytes=codes * self.code_bytes,
            resident_bytes=self.index_bytes(),
            num_shards=self.num_shards,
            drive=self.drives.together(),
            read_rounds=ceil(reads / self.beam_width),
            num_reads=reads * (self.node_bytes() / self.drives.sector_bytes),
            drive_bytes=reads * self.node_bytes(),
        )
        walked = Operator(
            "graph_walk",
            "scan",
            flops=2.0 * number * whole * self.dim,
            bytes=number * codes * self.code_bytes,
            dtype=self.dtype,
            num_groups=num_queries,
            search=work,
        )
        tables = Operator(
            "lookup_tables",
            "scan",
            flops=2.0 * number * 256 * self.dim,
            bytes=number * codebook_bytes,
            dtype="fp32",
            num_groups=num_queries,
            search=SearchWork(
                read_bytes=codebook_bytes,
                resident_bytes=codebook_bytes * self.num_shards,
                builds_tables=True,
                num_shards=self.num_shards,
            ),
        )
        return tables, walked, *self.finish(num_queries, codes, top_k)
