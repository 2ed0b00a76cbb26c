"""Vector indexes by hand: bytes in memory, bytes and FLOPs of a search."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.models.operator import Operator
from hermes_sim.stages.index import INDEX_KINDS, Index


def index(kind: str, **fields: Any) -> Index:
    return INDEX_KINDS[kind].model_validate({"kind": kind, **fields})


def search(built: Index, num_queries: int, top_k: int) -> dict[str, Operator]:
    return {operator.name: operator for operator in built.search_operators(num_queries, top_k)}


FLAT = index("flat", num_vectors=1000, dim=64)
IVF_FLAT = index("ivf_flat", num_vectors=1000, dim=64, nlist=20, nprobe=3, dtype="fp16")
IVF_PQ = index("ivf_pq", num_vectors=1e8, dim=768, nlist=65536, nprobe=32, code_bytes=64)
HNSW = index("hnsw", num_vectors=1e6, dim=128, m=32, ef_search=100)


def test_memory() -> None:
    assert FLAT.index_bytes() == 1000 * 64 * 4
    assert IVF_FLAT.index_bytes() == 1000 * (64 * 2 + 8) + 20 * 64 * 4
    assert IVF_PQ.index_bytes() == 1e8 * (64 + 8) + 65536 * 768 * 4 + 256 * 768 * 4
    # FAISS: d x 4 + M x 2 x 4 bytes a vector, and the few links of the upper levels.
    assert HNSW.index_bytes() == pytest.approx(1e6 * (128 * 4 + 32 * 2 * 4), rel=0.01)


def test_flat_search() -> None:
    distances = search(FLAT, 5, 10)["distances"]
    assert (distances.m, distances.n, distances.k) == (5, 1000, 64)
    assert distances.flops == 2 * 5 * 1000 * 64
    assert distances.bytes == (1000 + 5) * 64 * 4


def test_ivf_flat_search() -> None:
    operators = search(IVF_FLAT, 2, 10)
    coarse, scan = operators["coarse_quantizer"], operators["scan"]
    assert (coarse.m, coarse.n, coarse.k) == (2, 20, 64)
    assert scan.bytes == 2 * (1000 * 3 / 20) * 64 * 2
    assert scan.flops == 2 * 2 * (1000 * 3 / 20) * 64


def test_ivf_pq_search() -> None:
    operators = search(IVF_PQ, 1, 8)
    scanned_vectors = 1e8 * 32 / 65536  # 48,828 of the 1e8
    assert operators["coarse_quantizer"].flops_per_call == 2 * 65536 * 768
    assert operators["lookup_tables"].flops == 2 * 32 * 256 * 768
    assert operators["scan"].bytes == operators["scan"].flops == scanned_vectors * 64
    assert operators["top_k"].flops == scanned_vectors + 8 * 3
    assert operators["top_k"].bytes == 8 * 12


def test_hnsw_search() -> None:
    walk = search(HNSW, 4, 10)["graph_walk"]
    hops = 100 + 4  # log(1e6) / log(32) = 3.99
    assert walk.num_groups == 4
    assert walk.random_accesses == 2 * hops
    assert walk.flops == 4 * hops * 64 * 2 * 128
    assert walk.bytes == 4 * hops * 64 * (128 * 4 + 4)


@pytest.mark.parametrize("built", [FLAT, IVF_FLAT, IVF_PQ, HNSW])
def test_work_of_a_batch(built: Index) -> None:
    assert built.search_operators(0, 10) == ()
    one, ten = (sum(op.total_flops for op in built.search_operators(count, 10)) for count in (1, 10))
    assert ten == pytest.approx(10 * one)
    # What all queries share (vectors, centroids) is read once.
    one, ten = (sum(op.total_bytes for op in built.search_operators(count, 10)) for count in (1, 10))
    assert one < ten <= 10 * one * (1 + 1e-12)


def test_probing_every_list_is_an_exhaustive_scan() -> None:
    built = index("ivf_flat", num_vectors=1000, dim=64, nlist=20, nprobe=20)
    assert search(built, 1, 1)["scan"].flops == search(FLAT, 1, 1)["distances"].flops
