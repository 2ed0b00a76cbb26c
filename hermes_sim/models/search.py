"""What one query of a vector search does, without any notion of time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drive:
    """Solid-state storage that an index lies on, all drives of one shard together."""

    latency_s: float
    """Of one random read."""
    reads_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class SearchWork:
    """Of one query in one operator and one shard, beside its FLOPs; the operator's own numbers are those of all."""

    num_vectors: float = 0.0
    """Stored vectors or codes compared with the query."""
    num_lists: float = 0.0
    """Inverted lists of vectors opened ..."""
    num_code_lists: float = 0.0
    """... and of codes."""
    num_tables: float = 0.0
    """Queries that look-up tables are made for."""
    num_lookups: float = 0.0
    """Bytes of codes, each looked up in a table of 256 numbers."""
    num_fast_lookups: float = 0.0
    """Bytes of codes of 4 bits, looked up in registers (FAISS fast scan, ScaNN)."""
    num_insertions: float = 0.0
    """Comparisons of results that enter the heap."""
    num_hops: float = 0.0
    """Nodes of a graph whose links are followed, one after the other."""
    num_accesses: float = 0.0
    """Vectors read at random places, where links lead."""
    read_bytes: float = 0.0
    """Read from memory, whatever the order."""
    resident_bytes: float = 0.0
    """What those bytes are a part of: caches hold it or not."""
    is_product: bool = False
    """Distances of the whole batch as one matrix product, which reads the vectors once."""
    builds_tables: bool = False
    """Its FLOPs make look-up tables: short dot products with centroids of sub-quantisers, sums of two tables."""
    splits: float = 1.0
    """Parts of one query that other cores can take; 1: a query stays on its core, as in FAISS."""
    num_shards: int = 1
    """Equal parts of the index, searched at the same time."""
    drive: Drive | None = None
    read_rounds: float = 0.0
    """Waits for the drive, one after the other."""
    num_reads: float = 0.0
    """Random reads of the drive ..."""
    drive_bytes: float = 0.0
    """... and their bytes."""
    merged_bytes: float = 0.0
    """Results that shards hand over for the merge."""
