"""Vector indexes: what a search computes and reads, the memory that the index fills, what it finds.

The kinds, their parameters and their memory follow FAISS (arXiv 2401.08281; "Guidelines to choose an index" in its
wiki); bytes scanned per query follow RAGO's schema (arXiv 2503.14649, section 4).
"""

from __future__ import annotations

from abc import abstractmethod
from math import log, log2
from typing import Final, Literal

import numpy as np
from pydantic import Field, field_validator

from hermes_sim.core.schema import DTYPE_BYTES, Description, Dtype, Fraction, PositiveInt, Source
from hermes_sim.models.operator import Operator
from hermes_sim.models.search import SearchWork

ID_BYTES = 8
DISTANCE_BYTES = 4
PRODUCT_NUMBERS: Final = 128_000
"""Numbers of a batch (queries x dimensions) from which on FAISS 1.15 compares by a matrix product
(`distance_compute_blas_threshold`); seen at 384 and 768 dimensions."""


class Recall(Description):
    """Measured share of the true nearest that a search finds, over the setting that trades it against time."""

    at: dict[PositiveInt, Fraction] = Field(min_length=1)
    """nprobe, or ef_search -> recall."""
    source: Source

    @field_validator("at")
    @classmethod
    def _grows(cls, at: dict[int, float]) -> dict[int, float]:
        values = [at[setting] for setting in sorted(at)]
        if values != sorted(values):
            raise ValueError("recall falls where more is searched")
        return at

    def of(self, setting: int) -> float:
        """Between two measured settings by the logarithm of the setting; the nearest beyond them."""
        known = sorted(self.at)
        return float(np.interp(log(setting), [log(one) for one in known], [self.at[one] for one in known]))


class Index(Description):
    """Vectors of one collection, as a search structure."""

    num_vectors: PositiveInt
    dim: PositiveInt
    num_shards: PositiveInt = Field(default=1, alias="shards")
    """Equal parts that are searched at the same time, each by its part of the replica's devices and cores; their
    results are merged."""
    recall: Recall | None = None
    """Only reported."""

    @abstractmethod
    def index_bytes(self) -> float:
        """Memory of the whole index, all shards."""

    @abstractmethod
    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """Work of searching `num_queries` queries in one batch, on all shards."""

    def recall_setting(self) -> int | None:
        """What `recall` is measured over; None where the search is exhaustive."""
        return None

    def expected_recall(self) -> float | None:
        """Share of the true nearest that is found: 1 where all are compared, None where nobody has measured it."""
        setting = self.recall_setting()
        if setting is None:
            return 1.0
        return None if self.recall is None else self.recall.of(setting)

    def is_product(self, num_queries: int, product_queries: int | None) -> bool:
        """Whether a batch is large enough for a matrix product."""
        if product_queries is None:
            return num_queries * self.dim >= PRODUCT_NUMBERS
        return num_queries >= product_queries

    def compare(
        self, name: str, num_queries: int, num_vectors: float, dtype: Dtype, *, is_product: bool, num_shards: int
    ) -> Operator:
        """Every query against the same `num_vectors` vectors: 2 d FLOPs each.

        As one product the vectors are read once for the batch, else once for each query.
        """
        vector_bytes = self.dim * DTYPE_BYTES[dtype]
        reads = num_vectors + num_queries if is_product else num_vectors * num_queries
        work = SearchWork(
            num_vectors=num_vectors / num_shards,
            read_bytes=num_vectors / num_shards * vector_bytes,
            resident_bytes=num_vectors * vector_bytes,
            is_product=is_product,
            num_shards=num_shards,
        )
        rows = round(num_vectors)
        return Operator(
            name,
            "gemm",
            flops=2.0 * num_queries * num_vectors * self.dim,
            bytes=reads * vector_bytes,
            m=num_queries,
            n=rows,
            k=self.dim,
            dtype=dtype,
            num_groups=num_queries,
            search=work,
        )

    def finish(self, num_queries: int, num_compared: float, top_k: int) -> tuple[Operator, ...]:
        """Results of every query, and their merge where the index has shards.

        Of n distances in random order k (1 + ln(n / k)) are among the k best when they are met, and enter a heap of k
        by log2 k comparisons each.
        """
        compared = max(num_compared / self.num_shards, top_k)
        insertions = top_k * (1.0 + log(compared / top_k)) * log2(max(top_k, 2))
        result_bytes = float(top_k * (ID_BYTES + DISTANCE_BYTES))
        work = SearchWork(num_insertions=insertions, read_bytes=result_bytes, num_shards=self.num_shards)
        total = num_queries * insertions * self.num_shards
        results = Operator(
            "top_k",
            "scan",
            flops=total,
            bytes=num_queries * result_bytes * self.num_shards,
            dtype="fp32",
            num_groups=num_queries,
            search=work,
        )
        if self.num_shards == 1:
            return (results,)
        candidates = top_k * self.num_shards
        handed_bytes = self.num_shards * result_bytes
        merge = SearchWork(
            num_insertions=candidates * log2(max(self.num_shards, 2)),
            read_bytes=handed_bytes,
            merged_bytes=handed_bytes + self.dim * DTYPE_BYTES["fp32"] * self.num_shards,
        )
        flops = num_queries * merge.num_insertions
        read = num_queries * handed_bytes
        merging = Operator("merge", "scan", flops=flops, bytes=read, dtype="fp32", num_groups=num_queries, search=merge)
        return results, merging


class Flat(Index):
    """Exhaustive search: every query against every vector."""

    kind: Literal["flat"] = "flat"
    dtype: Dtype = "fp32"
    """Of the stored vectors."""
    product_queries: PositiveInt | None = None
    """Smallest batch compared as one matrix product; if not given, of 128,000 numbers, as FAISS has it. Accelerators
    always do so."""

    def index_bytes(self) -> float:
        """N d b."""
        return self.num_vectors * self.dim * DTYPE_BYTES[self.dtype]

    def search_operators(self, num_queries: int, top_k: int) -> tuple[Operator, ...]:
        """2 N d FLOPs a query; a product reads the vectors once for the whole batch."""
        if num_queries == 0:
            return ()
        is_product = self.is_product(num_queries, self.product_queries)
        distances = self.compare(
            "distances", num_queries, self.num_vectors, self.dtype, is_product=is_product, num_shards=self.num_shards
        )
        return distances, *self.finish(num_queries, self.num_vectors, top_k)
