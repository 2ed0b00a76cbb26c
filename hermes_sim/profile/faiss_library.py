"""FAISS on this machine's processor (arXiv 2401.08281): builds an index, searches it, says what the search touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hermes_sim.core.errors import HermesError
from hermes_sim.profile.backend import Timing
from hermes_sim.profile.numpy_backend import Clock, NumpyBackend
from hermes_sim.profile.retrieval_cases import TOP_K, IndexShape, SearchSetting
from hermes_sim.profile.thread_clock import ThreadClock, WallClock

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

BUSIEST_THREAD: Final = (
    "CPU seconds of the busiest thread: what other processes took is left out, and with it what threads wait for each "
    "other's memory traffic when they do not run at the same time"
)
TRAINING_VECTORS: Final = 32
"""Of each centroid: enough for lists of the usual unevenness, and quick."""
TRAINING_ROUNDS: Final = 3
LINE_BYTES: Final = 64
SAMPLE_QUERIES: Final = 32
COUNTED_QUERIES: Final = 64
"""The first ones, which are those that are timed."""
FLAT_QUERIES: Final = 8
"""Of an exhaustive search, whose queries all take the same."""
BUILD_BATCH: Final = 40
"""efConstruction of graphs, FAISS's own default."""


class FaissLibrary(NumpyBackend):
    """Vectors from NumPy, searches by FAISS."""

    def __init__(self, clock: Clock = "wall") -> None:
        super().__init__(clock)
        self.name = "faiss"
        self._faiss = _faiss()
        self._product_threshold = int(self._faiss.cvar.distance_compute_blas_threshold)
        self._elsewhere = np.zeros(2 * self.cache_bytes, np.uint8)
        self._building_threads = 1 if clock == "cpu" else self.num_threads

    def versions(self) -> dict[str, str]:
        found = {"faiss": str(self._faiss.__version__), "instructions": str(self._faiss.get_compile_options()).strip()}
        return {**found, "numpy": np.__version__}

    def machine(self) -> dict[str, object]:
        facts = {key: value for key, value in super().machine().items() if key != "num_threads"}
        facts["openblas_core"] = os.environ.get("OPENBLAS_CORETYPE", "")
        return {**facts, "clock": BUSIEST_THREAD if self.clock == "cpu" else "wall"}

    def build(self, shape: IndexShape, vectors: FloatArray) -> BuiltIndex:
        """Trained and filled; by one thread where others want the cores, for many short turns wait for the slowest."""
        self.use_threads(self._building_threads)
        index = self._faiss.index_factory(shape.dim, shape.factory)
        if shape.kind == "hnsw":
            index.hnsw.efConstruction = BUILD_BATCH
        for clustering in _clusterings(index, shape):
            clustering.niter = TRAINING_ROUNDS
            clustering.min_points_per_centroid = clustering.max_points_per_centroid = TRAINING_VECTORS
        random = np.random.default_rng(0)
        if not index.is_trained:
            wanted = min(len(vectors), TRAINING_VECTORS * max(shape.nlist, 256))
            index.train(vectors[random.choice(len(vectors), wanted, replace=False)])
        index.add(vectors)
        return BuiltIndex(self, shape, index)

    def exact(self, vectors: FloatArray, queries: FloatArray) -> IntArray:
        """[num_queries, TOP_K] nearest by exhaustive search."""
        self.use_threads(self._building_threads)
        found: IntArray = self._faiss.knn(queries, vectors, TOP_K)[1]
        return found

    def clear_cache(self) -> None:
        """Reads twice the last-level cache of something else."""
        self._elsewhere[::LINE_BYTES].sum()

    def use_threads(self, number: int) -> None:
        """Of searches from now on."""
        self._faiss.omp_set_num_threads(number)

    def use_products(self, wanted: bool) -> None:
        """Every batch as one matrix product; else as this version does unasked."""
        self._faiss.cvar.distance_compute_blas_threshold = 1 if wanted else self._product_threshold

    def counters(self) -> tuple[Any, Any]:
        """FAISS's own: of inverted lists, of graphs."""
        return self._faiss.cvar.indexIVF_stats, self._faiss.cvar.hnsw_stats


@dataclass(frozen=True, slots=True)
class Touched:
    """What one query does on average, and what it finds."""

    num_distances: float
    """Vectors or codes compared with the query."""
    num_hops: float
    """Nodes of a graph whose links were followed; 0 of other kinds."""
    recall: float
    """Share of the TOP_K nearest that were found."""


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An index in memory."""

    library: FaissLibrary
    shape: IndexShape
    index: Any

    def touched(self, setting: SearchSetting, queries: FloatArray, nearest: IntArray) -> Touched:
        """Recall over all queries, FAISS's counters over those that are timed."""
        self._set(setting)
        found = self.index.search(queries, TOP_K)[1]
        hits = sum(len(np.intersect1d(row, exact)) for row, exact in zip(found, nearest, strict=True))
        lists, graph = self.library.counters()
        lists.reset()
        graph.reset()
        number = COUNTED_QUERIES
        self.index.search(queries[:number], TOP_K)
        distances = {"flat": self.shape.num_vectors * number, "hnsw": graph.ndis}.get(self.shape.kind, lists.ndis)
        hops = graph.nhops if self.shape.kind == "hnsw" else 0
        return Touched(distances / number, hops / number, hits / (TOP_K * len(queries)))

    def seconds(self, setting: SearchSetting, queries: FloatArray, num_repeats: int, budget_s: float) -> Timing:
        """Seconds per batch. Every sample is of the same queries, for some visit longer lists than others; the cache is
        cleared before each, so that nothing is there for their sake.
        """
        self._set(setting)
        clock = ThreadClock() if self.library.clock == "cpu" else WallClock()
        size = setting.num_queries
        wanted = FLAT_QUERIES if self.shape.kind == "flat" else SAMPLE_QUERIES
        starts = range(0, max(wanted, size), size)

        def search() -> None:
            for first in starts:
                self.index.search(queries[first : first + size], TOP_K)

        search()
        samples: list[float] = []
        end_s = perf_counter() + budget_s
        while len(samples) < num_repeats and (len(samples) < 3 or perf_counter() < end_s):
            self.library.clear_cache()
            clock.start()
            search()
            samples.append(clock.elapsed_s() / len(starts))
        return Timing(samples, "eager")

    def _set(self, setting: SearchSetting) -> None:
        self.library.use_threads(setting.num_threads)
        self.library.use_products(setting.is_product)
        if setting.nprobe:
            self.index.nprobe = setting.nprobe
        if setting.ef_search:
            self.index.hnsw.efSearch = setting.ef_search


def _faiss() -> Any:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that waits must not look busy
    try:
        return import_module("faiss")
    except ImportError as error:
        raise HermesError(
            "measuring retrieval needs FAISS, which is not installed: pip install 'hermes-sim[profile]' (faiss-cpu)"
        ) from error


def _clusterings(index: Any, shape: IndexShape) -> list[Any]:
    """Parameters of every k-means that building the index runs."""
    if shape.kind in ("flat", "hnsw"):
        return []
    return [index.cp, index.pq.cp] if shape.kind == "ivf_pq" else [index.cp]
