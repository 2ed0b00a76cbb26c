"""Kinds of vector indexes. This table is the list."""

from __future__ import annotations

from hermes_sim.stages.graph_index import DiskAnn, Hnsw
from hermes_sim.stages.index import Flat, Index
from hermes_sim.stages.inverted_lists import IvfFlat, IvfPq

INDEX_KINDS: dict[str, type[Index]] = {
    "diskann": DiskAnn,
    "flat": Flat,
    "hnsw": Hnsw,
    "ivf_flat": IvfFlat,
    "ivf_pq": IvfPq,
}
