"""Which indexes are measured, and with which settings each is searched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

IndexKind = Literal["flat", "ivf_flat", "ivf_pq", "hnsw"]

TOP_K: Final = 10
BATCHES: Final = (1, 8, 64)
THREADED_BATCHES: Final = (1, 64)
"""Measured with several threads too."""
PRODUCT_QUERIES: Final = 20
"""Smallest batch that is measured as a matrix product too, asked for or not."""
LARGEST_BATCH: Final = 256
"""Of exhaustive searches, which are matrix products for large batches."""
PROBES: Final = (1, 4, 16, 64)
THREADED_PROBES: Final = 16
SEARCH_WIDTHS: Final = (16, 64, 256)
THREADED_WIDTH: Final = 64
"""ef_search of graph indexes."""
COLLECTIONS: Final = (
    (100_000, 96),
    (100_000, 384),
    (100_000, 768),
    (300_000, 128),
    (1_000_000, 96),
    (300_000, 768),
    (1_000_000, 384),
)
"""(vectors, dimensions), small ones first."""
LISTS: Final = {100_000: (256, 1024), 300_000: (1024, 2048), 1_000_000: (1024, 4096)}
"""Vectors -> inverted lists: FAISS recommends 4 to 16 square roots of the number of vectors."""
DIMENSIONS_PER_CODE_BYTE: Final = (4, 8)
CODE_BITS: Final = (8, 4)
LINKS: Final = (16, 32)
GRAPH_COLLECTIONS: Final = ((100_000, 96), (50_000, 128), (100_000, 192), (200_000, 64), (100_000, 384), (100_000, 768))
"""Of graphs: larger ones take many minutes to build."""
MOST_FLOPS: Final = 4e10
"""Of one exhaustive search; longer ones say no more."""


@dataclass(frozen=True, slots=True)
class IndexShape:
    """One index to build; 0 where the kind has no such parameter."""

    kind: IndexKind
    num_vectors: int
    dim: int
    nlist: int = 0
    code_bytes: int = 0
    code_bits: int = 0
    """Bits of one sub-quantiser's number: 8, or 4 for tables that fit into registers (fast scan)."""
    links: int = 0

    @property
    def factory(self) -> str:
        """FAISS's own name of it (`index_factory`); np: without reordering the codes, which takes long."""
        if self.kind == "flat":
            return "Flat"
        if self.kind == "hnsw":
            return f"HNSW{self.links},Flat"
        if self.kind == "ivf_flat":
            return f"IVF{self.nlist},Flat"
        codes = f"PQ{2 * self.code_bytes}x4fs" if self.code_bits == 4 else f"PQ{self.code_bytes}np"
        return f"IVF{self.nlist},{codes}"


@dataclass(frozen=True, slots=True)
class SearchSetting:
    """How an index is searched; 0 where its kind has no such parameter."""

    num_queries: int
    num_threads: int
    nprobe: int = 0
    ef_search: int = 0
    is_product: bool = False
    """Distances of the batch as one matrix product."""


def index_shapes(num_vectors: int, dim: int) -> Iterator[IndexShape]:
    """Indexes over one collection, graphs left out."""
    yield IndexShape("flat", num_vectors, dim)
    for nlist in LISTS[num_vectors]:
        yield IndexShape("ivf_flat", num_vectors, dim, nlist)
    for code_bits in CODE_BITS:
        for nlist, per_byte in zip(LISTS[num_vectors], DIMENSIONS_PER_CODE_BYTE, strict=True):
            yield IndexShape("ivf_pq", num_vectors, dim, nlist, dim // per_byte, code_bits)


def graph_shapes(num_vectors: int, dim: int) -> Iterator[IndexShape]:
    """Graphs over one collection."""
    for links in LINKS:
        yield IndexShape("hnsw", num_vectors, dim, links=links)


def settings(shape: IndexShape, thread_counts: tuple[int, ...]) -> Iterator[SearchSetting]:
    """Searches of one index: one thread with every setting, several with a few."""
    batches = (*BATCHES, LARGEST_BATCH) if shape.kind == "flat" else BATCHES
    for num_queries, num_threads in product(batches, thread_counts):
        if num_threads > 1 and num_queries not in THREADED_BATCHES:
            continue
        if shape.kind == "flat":
            if 2.0 * num_queries * shape.num_vectors * shape.dim <= MOST_FLOPS:
                yield SearchSetting(num_queries, num_threads)
                if num_queries >= PRODUCT_QUERIES:
                    yield SearchSetting(num_queries, num_threads, is_product=True)
        elif shape.kind == "hnsw":
            for ef_search in SEARCH_WIDTHS if num_threads == 1 else (THREADED_WIDTH,):
                yield SearchSetting(num_queries, num_threads, ef_search=ef_search)
        else:
            for nprobe in PROBES if num_threads == 1 else (THREADED_PROBES,):
                yield SearchSetting(num_queries, num_threads, nprobe=nprobe)
