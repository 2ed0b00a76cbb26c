"""Vector indexes by hand: bytes in memory, bytes and FLOPs of a search."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
from pydantic import ValidationError

from hermes_sim.models.operator import Operator
from hermes_sim.stages.index import Index
from hermes_sim.stages.index_kinds import INDEX_KINDS


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
    assert distances.bytes == 5 * 1000 * 64 * 4  # every query reads all
    product = search(FLAT, 2000, 10)["distances"]  # 128,000 numbers
    assert product.bytes == (1000 + 2000) * 64 * 4  # as one product they are read once
    assert search(index("flat", num_vectors=1000, dim=64, product_queries=20), 20, 10)["distances"].bytes == 1020 * 256
    assert product.search is not None
    assert product.search.is_product


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
    scan = operators["scan"]
    assert scan.search is not None
    assert scan.bytes == scan.search.num_lookups == scanned_vectors * 64
    assert scan.search.num_code_lists == 32
    assert operators["top_k"].flops == pytest.approx(8 * (1 + log(scanned_vectors / 8)) * 3)
    assert operators["top_k"].bytes == 8 * 12


def test_a_graph_over_the_centroids() -> None:
    """Its walk is that of an HNSW index of nlist vectors; all else stays, and so does the memory but for the links."""
    sizes = {"num_vectors": 1e8, "dim": 768, "nlist": 65536, "nprobe": 32, "code_bytes": 64}
    with_graph = index("ivf_pq", **sizes, quantizer={"kind": "hnsw", "m": 32, "ef_search": 16})
    walked = search(index("hnsw", num_vectors=65536, dim=768, m=32, ef_search=32), 3, 8)["graph_walk"]
    operators = search(with_graph, 3, 8)
    assert operators["coarse_quantizer"].flops == walked.flops < 0.1 * search(IVF_PQ, 3, 8)["coarse_quantizer"].flops
    assert operators["scan"].bytes == search(IVF_PQ, 3, 8)["scan"].bytes
    assert with_graph.index_bytes() - IVF_PQ.index_bytes() == pytest.approx(4 * (2 * 32 + 32 / 31) * 65536)


def test_look_up_tables() -> None:
    """Terms of 65,536 lists would fill 4.3 GB, more than FAISS keeps: each list's table is computed again."""
    assert search(IVF_PQ, 1, 8)["lookup_tables"].flops == 2 * 32 * 256 * 768
    inner = index("ivf_pq", num_vectors=1e8, dim=768, nlist=65536, nprobe=32, code_bytes=64, metric="inner_product")
    assert search(inner, 1, 8)["lookup_tables"].flops == 2 * 256 * 768  # one for all lists
    kept = index("ivf_pq", num_vectors=1e6, dim=768, nlist=1024, nprobe=32, code_bytes=64)
    assert search(kept, 1, 8)["lookup_tables"].flops == 2 * 256 * 768
    assert search(kept, 1, 8)["list_tables"].bytes == 32 * 64 * 256 * 4
    assert kept.index_bytes() == 1e6 * (64 + 8) + 1024 * 768 * 4 + 256 * 768 * 4 + 1024 * 64 * 256 * 4


def test_codes_of_four_bits_have_small_tables() -> None:
    fast = index("ivf_pq", num_vectors=1e6, dim=768, nlist=1024, nprobe=32, code_bytes=64, code_bits=4)
    operators = search(fast, 1, 8)
    assert operators["lookup_tables"].flops == 2 * 32 * 16 * 768
    work = operators["scan"].search
    assert work is not None
    assert work.num_lookups == 0
    assert work.num_fast_lookups == 1e6 * 32 / 1024 * 64


def test_uneven_lists_are_met_more_often() -> None:
    uneven = index("ivf_flat", num_vectors=1000, dim=64, nlist=20, nprobe=3, imbalance=1.5)
    even = index("ivf_flat", num_vectors=1000, dim=64, nlist=20, nprobe=3)
    assert search(uneven, 1, 10)["scan"].bytes == 1.5 * search(even, 1, 10)["scan"].bytes
    assert index("ivf_flat", num_vectors=1000, dim=64, nlist=20, nprobe=20, imbalance=1.5).vectors_per_query() == 1000


def test_hnsw_search() -> None:
    walk = search(HNSW, 4, 10)["graph_walk"]
    hops = 100 + 3 * log(1e6) / log(32)
    vectors = hops * 64 * 0.36
    assert walk.num_groups == 4
    assert walk.search is not None
    assert walk.search.num_hops == pytest.approx(hops)
    assert walk.search.num_accesses == pytest.approx(vectors)
    assert walk.flops == pytest.approx(4 * vectors * 2 * 128)
    assert walk.bytes == pytest.approx(4 * (vectors * 128 * 4 + hops * 64 * 4))


def test_graph_on_drives() -> None:
    """DiskANN: a node of 768 numbers and 64 links fills a sector of 4 KiB; 100 candidates in rounds of 4 reads."""
    built = index("diskann", num_vectors=1e9, dim=768, max_degree=64, code_bytes=32)
    walk = search(built, 2, 10)["graph_walk"]
    assert walk.search is not None
    assert walk.search.num_reads == 100
    assert walk.search.read_rounds == 25
    assert walk.search.drive_bytes == 100 * 4096
    assert built.index_bytes() == 32e9
    assert walk.search.num_lookups == pytest.approx(100 * 64 * 0.36 * 32)


@pytest.mark.parametrize("kind", sorted(INDEX_KINDS))
def test_shards_divide_the_scan_and_add_a_merge(kind: str) -> None:
    given = {"num_vectors": 1e6, "dim": 64}
    given |= {"nlist": 1024, "nprobe": 16} if kind.startswith("ivf") else {}
    given |= {"code_bytes": 16} if kind == "ivf_pq" else {}
    whole, halves = index(kind, **given), index(kind, **given, shards=2)
    one, two = search(whole, 3, 10), search(halves, 3, 10)
    assert "merge" not in one
    merge = two["merge"].search
    assert merge is not None
    assert merge.merged_bytes == 2 * 10 * 12 + 2 * 64 * 4
    if kind not in ("hnsw", "diskann"):  # a graph of half the nodes takes nearly as many hops
        scan = "distances" if kind == "flat" else "scan"
        work, half = one[scan].search, two[scan].search
        assert work is not None
        assert half is not None
        assert half.read_bytes == work.read_bytes / 2
        assert two[scan].bytes == one[scan].bytes


def test_recall_is_what_was_measured() -> None:
    source = {"title": "made up", "where": "this test", "kind": "measured"}
    built = index(
        "ivf_flat", num_vectors=1e6, dim=64, nlist=1024, nprobe=8, recall={"at": {4: 0.7, 16: 0.9}, "source": source}
    )
    assert built.expected_recall() == pytest.approx(0.8)  # half-way by the logarithm of nprobe
    assert index("ivf_flat", num_vectors=1e6, dim=64, nlist=1024, nprobe=8).expected_recall() is None
    assert FLAT.expected_recall() == 1.0
    with pytest.raises(ValidationError, match="recall falls"):
        index("hnsw", num_vectors=1e6, dim=64, recall={"at": {4: 0.9, 16: 0.7}, "source": source})


@pytest.mark.parametrize("built", [FLAT, IVF_FLAT, IVF_PQ, HNSW])
def test_work_of_a_batch(built: Index) -> None:
    assert built.search_operators(0, 10) == ()
    one, ten = (sum(op.total_flops for op in built.search_operators(count, 10)) for count in (1, 10))
    assert ten == pytest.approx(10 * one)
    # What all queries share (vectors, centroids) is read once by a product.
    few, many = (sum(op.total_bytes for op in built.search_operators(count, 10)) for count in (2, 20))
    assert many <= 10 * few * (1 + 1e-12)


def test_probing_every_list_is_an_exhaustive_scan() -> None:
    built = index("ivf_flat", num_vectors=1000, dim=64, nlist=20, nprobe=20)
    assert search(built, 1, 1)["scan"].flops == search(FLAT, 1, 1)["distances"].flops
