"""Vector indexes: what a search computes and reads, and the memory that the index fills.

The kinds, their parameters and their memory follow FAISS (arXiv 2401.08281; "Guidelines to choose an index" in its
wiki); bytes scanned per query follow RAGO's schema (arXiv 2503.14649, section 4).
"""

from __future__ import annotations

from abc import abstractmethod
from math import ceil, log
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import DTYPE_BYTES, Description, Dtype, PositiveInt
from hermes_sim.models.operator import Operator

ID_BYTES = 8
DISTANCE_BYTES = 4
LINK_BYTES = 4
CODEBOOK_SIZE = 256
"""Centroids of one sub-quantiser: codes of one byte."""


class Index(Description):
    """Vectors of one collection, as a search structure."""

    num_vectors: PositiveInt
    dim: PositiveInt

    @abstractmethod
    def index_bytes(self) -> float:
        """Memory of the whole index."""

    @abstractmethod
    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Work of searching `num_queries` queries in one batch."""

    def _top_k(self, num_queries: int, num_distances: float, top_k: int) -> Operator:
        """One comparison a distance, log2 k more for each result that enters the heap; results written with ids."""
        comparisons = num_queries * (num_distances + top_k * log(max(top_k, 2), 2))
        moved = float(num_queries * top_k * (ID_BYTES + DISTANCE_BYTES))
        return Operator("top_k", "elementwise", flops=comparisons, bytes=moved, dtype="fp32", num_groups=num_queries)


class Flat(Index):
    """Exhaustive search: every query against every vector, as one matrix product."""

    kind: Literal["flat"] = "flat"
    dtype: Dtype = "fp32"
    """Of the stored vectors."""

    def index_bytes(self) -> float:
        """N d b."""
        return self.num_vectors * self.dim * DTYPE_BYTES[self.dtype]

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """2 N d FLOPs a query; vectors are read once for the whole batch."""
        if num_queries == 0:
            return ()
        flops = 2.0 * num_queries * self.num_vectors * self.dim
        moved = self.index_bytes() + num_queries * self.dim * DTYPE_BYTES[self.dtype]
        shape = (num_queries, self.num_vectors, self.dim)
        product = Operator("distances", "gemm", 1, flops, moved, *shape, dtype=self.dtype)
        return product, self._top_k(num_queries, float(self.num_vectors), top_k)


class InvertedLists(Index):
    """Vectors in `nlist` lists by their nearest centroid; a query scans the `nprobe` nearest lists."""

    nlist: PositiveInt
    nprobe: PositiveInt

    @model_validator(mode="after")
    def _lists_fit(self) -> InvertedLists:
        if self.nprobe > self.nlist:
            raise ValueError(f"nprobe {self.nprobe} is more than nlist {self.nlist}")
        if self.nlist > self.num_vectors:
            raise ValueError(f"nlist {self.nlist} is more than num_vectors {self.num_vectors}")
        return self

    def vectors_per_query(self) -> float:
        """N nprobe / nlist: lists of equal length."""
        return self.num_vectors * self.nprobe / self.nlist

    def centroid_bytes(self) -> float:
        """nlist d fp32 numbers."""
        return self.nlist * self.dim * DTYPE_BYTES["fp32"]

    def _coarse(self, num_queries: int) -> Operator:
        """Distances from each query to all centroids, as one matrix product."""
        return Operator("coarse_quantizer", "gemm", m=num_queries, n=self.nlist, k=self.dim, dtype="fp32")


class IvfFlat(InvertedLists):
    """Inverted lists of whole vectors."""

    kind: Literal["ivf_flat"] = "ivf_flat"
    dtype: Dtype = "fp32"
    """Of the stored vectors."""

    def index_bytes(self) -> float:
        """N (d b + 8) and the centroids."""
        return self.num_vectors * (self.dim * DTYPE_BYTES[self.dtype] + ID_BYTES) + self.centroid_bytes()

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Coarse quantiser, then 2 d FLOPs and d b bytes for each scanned vector."""
        if num_queries == 0:
            return ()
        vectors = self.vectors_per_query()
        numbers = num_queries * vectors * self.dim
        scan = Operator(
            "scan",
            "scan",
            flops=2.0 * numbers,
            bytes=numbers * DTYPE_BYTES[self.dtype],
            dtype=self.dtype,
            num_groups=num_queries,
        )
        return self._coarse(num_queries), scan, self._top_k(num_queries, vectors, top_k)


class IvfPq(InvertedLists):
    """Inverted lists of product-quantised residuals, `code_bytes` a vector (Jegou et al., TPAMI 2011)."""

    kind: Literal["ivf_pq"] = "ivf_pq"
    code_bytes: PositiveInt
    """Sub-quantisers of 256 centroids, one byte each; divides dim."""

    @model_validator(mode="after")
    def _codes_divide(self) -> IvfPq:
        if self.dim % self.code_bytes:
            raise ValueError(f"code_bytes {self.code_bytes} does not divide dim {self.dim}")
        return self

    def index_bytes(self) -> float:
        """N (code + 8), the centroids and the codebooks."""
        codebooks = CODEBOOK_SIZE * self.dim * DTYPE_BYTES["fp32"]
        return self.num_vectors * float(self.code_bytes + ID_BYTES) + self.centroid_bytes() + codebooks

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Coarse quantiser; a look-up table for each probed list (256 d distances of residuals); one look-up and one
        addition for each code byte scanned (asymmetric distance, TPAMI 2011, equation 13).
        """
        if num_queries == 0:
            return ()
        vectors = self.vectors_per_query()
        tables = Operator(
            "lookup_tables",
            "elementwise",
            flops=2.0 * num_queries * self.nprobe * CODEBOOK_SIZE * self.dim,
            bytes=num_queries * CODEBOOK_SIZE * self.dim * DTYPE_BYTES["fp32"],
            dtype="fp32",
            num_groups=num_queries,
        )
        scanned = num_queries * vectors * self.code_bytes
        scan = Operator("scan", "scan", flops=scanned, bytes=scanned, dtype="fp32", num_groups=num_queries)
        return self._coarse(num_queries), tables, scan, self._top_k(num_queries, vectors, top_k)


class Hnsw(Index):
    """Hierarchical navigable small world graph (arXiv 1603.09320)."""

    kind: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2, le=4096)
    """Links a node on the upper levels; twice as many on the lowest."""
    ef_search: PositiveInt = 64
    dtype: Dtype = "fp32"
    """Of the stored vectors."""

    accesses_per_hop: ClassVar[int] = 2
    """Dependent reads: the list of links, then the vectors it names (read together)."""

    def index_bytes(self) -> float:
        """N (d b + 2 M 4), and M links for each of the N / (M - 1) nodes of the upper levels."""
        links = 2.0 * self.m * self.num_vectors + self.m * self.num_vectors / (self.m - 1)
        return self.num_vectors * self.dim * DTYPE_BYTES[self.dtype] + LINK_BYTES * links

    def hops_per_query(self) -> int:
        """Nodes expanded: one a level on the way down, log N / log M levels, and ef_search on the lowest."""
        return self.ef_search + ceil(log(max(self.num_vectors, 2)) / log(self.m))

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Each hop reads a list of 2 M links and their vectors: 2 d FLOPs and d b bytes a link."""
        if num_queries == 0:
            return ()
        hops = self.hops_per_query()
        links = float(hops * 2 * self.m)
        walk = Operator(
            "graph_walk",
            "scan",
            flops=2.0 * num_queries * links * self.dim,
            bytes=num_queries * links * (self.dim * DTYPE_BYTES[self.dtype] + LINK_BYTES),
            dtype=self.dtype,
            num_groups=num_queries,
            random_accesses=float(hops * self.accesses_per_hop),
        )
        return walk, self._top_k(num_queries, links, top_k)


INDEX_KINDS: dict[str, type[Index]] = {"flat": Flat, "hnsw": Hnsw, "ivf_flat": IvfFlat, "ivf_pq": IvfPq}
