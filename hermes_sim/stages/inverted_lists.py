"""Indexes that scan a few lists of vectors or of their codes (Jegou et al., TPAMI 2011)."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from hermes_sim.core.schema import DTYPE_BYTES, Description, Dtype, PositiveInt
from hermes_sim.models.operator import Operator
from hermes_sim.models.search import SearchWork
from hermes_sim.stages.graph_index import Hnsw, walk
from hermes_sim.stages.index import ID_BYTES, Index

TABLE_NUMBER_BYTES = 4
MOST_PRECOMPUTED_BYTES: Final = 2.0**31
"""FAISS keeps the terms of its look-up tables that no query changes, if they fill no more than this
(`precomputed_table_max_bytes`)."""


class GraphOfCentroids(Description):
    """A graph over the centroids in place of their exhaustive comparison (FAISS: `IVF65536_HNSW32`)."""

    kind: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2, le=4096)
    ef_search: PositiveInt = 16
    """FAISS's default; at least nprobe, for so many centroids are wanted."""


class InvertedLists(Index):
    """Vectors in `nlist` lists by their nearest centroid; a query scans the `nprobe` nearest lists."""

    nlist: PositiveInt
    nprobe: PositiveInt
    imbalance: float = Field(default=1.0, ge=1.0)
    """nlist x sum of squared lengths over N squared (FAISS: imbalance_factor): queries that fall where the vectors are
    meet long lists more often. 1: lists of equal length; k-means over embeddings gives 1.2 to 2."""
    quantizer: GraphOfCentroids | None = None
    """How the nearest centroids are found; every query is compared with all of them if not given."""
    product_queries: PositiveInt | None = None
    """Smallest batch compared with the centroids as one matrix product; if not given, of 128,000 numbers, as FAISS has
    it. Accelerators always do so."""
    parallel_over: Literal["queries", "lists"] = "queries"
    """What threads share: whole queries, or the lists of one query too (FAISS: parallel_mode 0 and 1)."""

    @model_validator(mode="after")
    def _lists_fit(self) -> InvertedLists:
        if self.nprobe > self.nlist:
            raise ValueError(f"nprobe {self.nprobe} is more than nlist {self.nlist}")
        if self.nlist > self.num_vectors:
            raise ValueError(f"nlist {self.nlist} is more than num_vectors {self.num_vectors}")
        return self

    def recall_setting(self) -> int | None:
        return self.nprobe if self.nprobe < self.nlist else None

    def vectors_per_query(self) -> float:
        """N nprobe / nlist x imbalance, at most all."""
        return min(self.num_vectors * self.nprobe / self.nlist * self.imbalance, float(self.num_vectors))

    def centroid_bytes(self) -> float:
        """nlist d fp32 numbers in every shard, and their links where they have any."""
        if (graph := self.graph()) is not None:
            return graph.index_bytes()
        return self.num_shards * self.nlist * self.dim * DTYPE_BYTES["fp32"]

    def graph(self) -> Hnsw | None:
        """Over the centroids of every shard."""
        if self.quantizer is None:
            return None
        return Hnsw(
            num_vectors=self.num_shards * self.nlist,
            dim=self.dim,
            shards=self.num_shards,
            m=self.quantizer.m,
            ef_search=max(self.quantizer.ef_search, self.nprobe),
        )

    def coarse(self, num_queries: int) -> Operator:
        """Distances from each query to all centroids, in every shard, or a walk over their graph."""
        if (graph := self.graph()) is not None:
            hops = graph.hops_per_query()
            return walk(graph, num_queries, hops, hops * 2.0 * graph.m * graph.new_link_frac, "coarse_quantizer")
        is_product = self.is_product(num_queries, self.product_queries)
        number = float(self.nlist * self.num_shards)
        return self.compare(
            "coarse_quantizer", num_queries, number, "fp32", is_product=is_product, num_shards=self.num_shards
        )

    @property
    def splits(self) -> float:
        """Parts of one query that threads share."""
        return float(self.nprobe) if self.parallel_over == "lists" else 1.0


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
        numbers = vectors * self.dim
        read_bytes = numbers * DTYPE_BYTES[self.dtype]
        work = SearchWork(
            num_vectors=vectors / self.num_shards,
            num_lists=float(self.nprobe),
            read_bytes=read_bytes / self.num_shards,
            resident_bytes=self.index_bytes(),
            splits=self.splits,
            num_shards=self.num_shards,
        )
        scan = Operator(
            "scan",
            "scan",
            flops=2.0 * num_queries * numbers,
            bytes=num_queries * read_bytes,
            dtype=self.dtype,
            num_groups=num_queries,
            search=work,
        )
        return self.coarse(num_queries), scan, *self.finish(num_queries, vectors, top_k)


class IvfPq(InvertedLists):
    """Inverted lists of product-quantised residuals, `code_bytes` a vector (Jegou et al., TPAMI 2011)."""

    kind: Literal["ivf_pq"] = "ivf_pq"
    code_bytes: PositiveInt
    """Of one vector; sub-quantisers = 8 code_bytes / code_bits, which divide dim."""
    code_bits: Literal[4, 8] = 8
    """Of one sub-quantiser. 8: 256 centroids, tables in the cache; 4: 16, tables in registers (fast scan, ScaNN)."""
    metric: Literal["l2", "inner_product"] = "l2"
    """With inner products one look-up table serves all lists of a query."""

    @model_validator(mode="after")
    def _codes_divide(self) -> IvfPq:
        if self.dim % self.num_quantizers:
            raise ValueError(f"{self.num_quantizers} sub-quantisers do not divide dim {self.dim}")
        return self

    @property
    def num_quantizers(self) -> int:
        """Parts that a vector is cut into."""
        return self.code_bytes * 8 // self.code_bits

    @property
    def codebook_size(self) -> int:
        """Centroids of one sub-quantiser."""
        return 256 if self.code_bits == 8 else 16

    @property
    def table_numbers(self) -> int:
        """Of one look-up table: every sub-quantiser's centroids."""
        return self.num_quantizers * self.codebook_size

    def precomputed_bytes(self) -> float:
        """What the lists' own terms of the tables fill, where they are kept: 8-bit codes of squared distances."""
        kept = float(TABLE_NUMBER_BYTES * self.table_numbers) * self.nlist
        if self.metric == "inner_product" or self.code_bits == 4 or kept > MOST_PRECOMPUTED_BYTES:
            return 0.0
        return kept * self.num_shards

    def index_bytes(self) -> float:
        """N (code + 8), the centroids, the codebooks, and what is precomputed."""
        codebooks = self.num_shards * self.codebook_size * self.dim * DTYPE_BYTES["fp32"]
        codes = self.num_vectors * float(self.code_bytes + ID_BYTES)
        return codes + self.centroid_bytes() + codebooks + self.precomputed_bytes()

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Coarse quantiser; look-up tables; one look-up and one addition for each part of a code (asymmetric distance,
        TPAMI 2011, equation 13).
        """
        if num_queries == 0:
            return ()
        vectors = self.vectors_per_query()
        scanned = vectors * self.code_bytes
        per_shard = scanned / self.num_shards
        work = SearchWork(
            num_vectors=vectors / self.num_shards if self.code_bits == 8 else 0.0,  # registers compare many at once
            num_code_lists=float(self.nprobe),
            num_lookups=per_shard if self.code_bits == 8 else 0.0,
            num_fast_lookups=per_shard if self.code_bits == 4 else 0.0,
            read_bytes=per_shard,
            resident_bytes=self.index_bytes(),
            splits=self.splits,
            num_shards=self.num_shards,
        )
        bytes_scanned = num_queries * scanned
        scan = Operator("scan", "scan", bytes=bytes_scanned, dtype="fp32", num_groups=num_queries, search=work)
        return (self.coarse(num_queries), *self._tables(num_queries), scan, *self.finish(num_queries, vectors, top_k))

    def _tables(self, num_queries: int) -> tuple[Operator, ...]:
        """2^bits d distances for each query, where lists add precomputed terms or inner products need none.

        Of other squared distances, as many for the query's residual in each probed list.
        """
        whole = 2.0 * self.codebook_size * self.dim
        number = num_queries * self.num_shards
        codebook_bytes = self.codebook_size * self.dim * DTYPE_BYTES["fp32"]
        work = SearchWork(
            read_bytes=codebook_bytes,
            resident_bytes=codebook_bytes * self.num_shards,
            builds_tables=True,
            num_tables=1.0,
            splits=self.splits,
            num_shards=self.num_shards,
        )
        adds = self.precomputed_bytes() > 0.0
        tables = 1 if adds or self.metric == "inner_product" else self.nprobe
        products = Operator(
            "lookup_tables",
            "scan",
            flops=number * tables * whole,
            bytes=number * codebook_bytes,
            dtype="fp32",
            num_groups=num_queries,
            search=work,
        )
        if not adds:
            return (products,)
        read_bytes = float(TABLE_NUMBER_BYTES * self.table_numbers * self.nprobe)
        adding = SearchWork(
            read_bytes=read_bytes,
            resident_bytes=self.precomputed_bytes(),
            builds_tables=True,
            splits=self.splits,
            num_shards=self.num_shards,
        )
        additions = Operator(
            "list_tables",
            "scan",
            flops=2.0 * number * self.table_numbers * self.nprobe,
            bytes=number * read_bytes,
            dtype="fp32",
            num_groups=num_queries,
            search=adding,
        )
        return products, additions
