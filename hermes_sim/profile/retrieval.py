"""`profile retrieval`: vector searches of this machine's processor, by FAISS, into a table."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Final

from hermes_sim.profile.cpu_facts import num_cpus
from hermes_sim.profile.faiss_library import FaissLibrary
from hermes_sim.profile.kernels import Outcome
from hermes_sim.profile.numpy_backend import Clock
from hermes_sim.profile.provenance import write_provenance
from hermes_sim.profile.retrieval_cases import (
    COLLECTIONS,
    GRAPH_COLLECTIONS,
    TOP_K,
    IndexShape,
    SearchSetting,
    graph_shapes,
    index_shapes,
    settings,
)
from hermes_sim.profile.session import Progress, Session, Statistic, open_folder, progress_bar
from hermes_sim.profile.vectors import Topics

OPERATOR: Final = "retrieval"
NUM_QUERIES: Final = 1024
NUM_REPEATS: Final = 25
REPEATS_BUDGET_S: Final = 0.1
COPIES: Final = 3.0
"""Vectors, an index with vectors of its own, and what building needs: as a multiple of the vectors."""
METHOD: Final = (
    "Each row: one batch of queries against a synthetic collection (topics of lognormal popularity, 24 directions and "
    "noise inside each; the same for stored vectors and queries). A sample searches the same 32 or 64 queries (flat: "
    "at least 8), batch after batch, with the last-level cache cleared before; warm-up, up to 25 samples. "
    "num_distances and num_hops are FAISS's counters per query, recall the share of the 10 nearest that an exhaustive "
    "search finds, over 1,024 queries. Squared distances; coarse quantisers are exhaustive; k-means of three rounds. "
    "kernel `product`: distances as one matrix product, though the library would not (distance_compute_blas_threshold)."
)

Case = tuple[IndexShape, SearchSetting]


def profile_retrieval(
    out: Path,
    *,
    budget_s: float,
    name: str | None = None,
    statistic: Statistic = "median",
    clock: Clock = "wall",
    shown: bool = False,
    collections: tuple[tuple[int, int], ...] = COLLECTIONS,
    graphs: tuple[tuple[int, int], ...] = GRAPH_COLLECTIONS,
) -> Outcome:
    """Searches of flat, inverted-list and graph indexes by size, probes, batch and threads; resumes a former run."""
    end_s = perf_counter() + budget_s
    library = FaissLibrary(clock)
    session = Session(library, open_folder(out), name or library.device_name, end_s, statistic)
    threads = tuple(sorted({1, num_cpus()}))
    try:
        with progress_bar(shown) as progress:
            measure_collections(session, library, collections, graphs, threads, progress)
    finally:
        session.save()
        write_provenance(session.folder, "retrieval", session, budget_s, METHOD)
    num_left_out = sum(left.num_shapes for left in session.not_measured)
    return Outcome(session.num_measured, session.num_found, num_left_out, session.num_unreached)


def measure_collections(
    session: Session,
    library: FaissLibrary,
    collections: tuple[tuple[int, int], ...],
    graphs: tuple[tuple[int, int], ...],
    threads: tuple[int, ...],
    progress: Progress | None = None,
) -> None:
    """Every search that is not in the table yet; an index is built only for such searches."""
    shapes = [shape for collection in collections for shape in index_shapes(*collection)]
    shapes += [shape for collection in graphs for shape in graph_shapes(*collection)]
    cases = [(shape, setting) for shape in shapes for setting in settings(shape, threads)]
    missing = [case for case in cases if not session.holds(OPERATOR, kernel(case[1]), "fp32", _columns(*case))]
    session.num_found += len(cases) - len(missing)
    done = len(cases) - len(missing)
    for collection, of_collection in groupby(missing, lambda case: (case[0].num_vectors, case[0].dim)):
        chosen = list(of_collection)
        if not session.in_time:
            session.num_unreached += len(chosen)
            continue
        num_vectors, dim = collection
        if 4.0 * num_vectors * dim * COPIES > library.free_bytes():
            why = "does not fit into the free memory"
            session.leave_out(OPERATOR, "", "fp32", _columns(*chosen[0]), why, len(chosen))
            continue
        _measure_collection(session, library, chosen, progress, (done, len(cases)))
        done += len(chosen)


def _measure_collection(
    session: Session, library: FaissLibrary, cases: list[Case], progress: Progress | None, counts: tuple[int, int]
) -> None:
    topics = Topics(cases[0][0].dim)
    vectors, queries = topics.draw(cases[0][0].num_vectors, seed=1), topics.draw(NUM_QUERIES, seed=2)
    nearest = library.exact(vectors, queries)
    measured = 0
    for shape, of_shape in groupby(cases, lambda case: case[0]):
        settings_left = [setting for _, setting in of_shape]
        if not session.in_time:
            session.num_unreached += len(settings_left)
            continue
        if progress is not None:
            progress(counts[0] + measured, counts[1], f"{shape.factory} of {shape.num_vectors:,} x {shape.dim}")
        built = library.build(shape, vectors)
        touched = {
            key: built.touched(SearchSetting(1, 1, *key), queries, nearest)
            for key in dict.fromkeys((setting.nprobe, setting.ef_search) for setting in settings_left)
        }
        for place, setting in enumerate(settings_left):
            if not session.in_time:
                session.num_unreached += len(settings_left) - place
                break
            timing = built.seconds(setting, queries, NUM_REPEATS, REPEATS_BUDGET_S)
            seen = touched[setting.nprobe, setting.ef_search]
            session.add(OPERATOR, kernel(setting), "fp32", {**_columns(shape, setting), **asdict(seen)}, timing)
            measured += 1
        session.save()
        del built


def _columns(shape: IndexShape, setting: SearchSetting) -> dict[str, object]:
    """What tells one search from another, beside its kernel."""
    of_shape, of_search = asdict(shape), asdict(setting)
    of_search.pop("is_product")
    return {"index": of_shape.pop("kind"), **of_shape, **of_search, "top_k": TOP_K, "metric": "l2"}


def kernel(setting: SearchSetting) -> str:
    """product, where a matrix product compares; else empty, for the index is the kernel."""
    return "product" if setting.is_product else ""
