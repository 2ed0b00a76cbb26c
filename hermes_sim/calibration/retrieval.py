"""Coefficients of vector search on one core, from tables of `hermes-sim profile retrieval`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.calibration.fit import Coefficient, ErrorSummary, fit_coefficients, fit_error, summarize
from hermes_sim.calibration.split import held_out
from hermes_sim.hardware.device import Device
from hermes_sim.hardware.search_efficiency import CORE, SearchEfficiency
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_cost import batch_seconds
from hermes_sim.perf.worker import Worker
from hermes_sim.stages.graph_index import HOPS_PER_LEVEL, NEW_LINK_FRAC, Hnsw
from hermes_sim.stages.index import Flat, Index
from hermes_sim.stages.inverted_lists import IvfFlat, IvfPq

FloatArray = npt.NDArray[np.float64]

KINDS: Final = ("flat", "ivf_flat", "ivf_pq", "hnsw")
"""Of indexes that tables may hold."""
SHAPE: Final = ("index", "num_vectors", "dim", "nlist", "code_bytes", "code_bits", "links")
"""An index is on one side of the split with all its searches."""
PRODUCT: Final = "product"
"""Kernel of rows whose distances are matrix products, whatever the batch; others follow FAISS's own rule."""

LISTS: Final = (
    Coefficient("call_s", 8e-6, 0.0, 1e-4, 1e-5),
    Coefficient("list_s", 3e-7, 0.0, 5e-6, 1e-6),
    Coefficient("vector_cycles", 5.0, 0.0, 100.0, 10.0),
    Coefficient("block_flops_frac", 0.2, 0.01, 1.0, 0.1),
    Coefficient("list_flops_frac", 0.2, 0.01, 1.0, 0.1),
    Coefficient("stream_bytes_per_s", 1.8e10, 1e9, 2e11, 1e10),
    Coefficient("block_stream_bytes_per_s", 2.5e10, 1e9, 2e11, 1e10),
)
CODES: Final = (
    Coefficient("lookup_cycles", 3.0, 0.05, 20.0),
    Coefficient("fast_lookup_cycles", 0.3, 0.01, 5.0, 0.1),
    Coefficient("table_flops_frac", 0.1, 0.005, 1.0, 0.1),
    Coefficient("code_list_s", 5e-7, 0.0, 5e-6, 1e-6),
    Coefficient("table_s", 2e-6, 0.0, 5e-5, 1e-6),
)
GRAPHS: Final = (
    Coefficient("hop_s", 5e-7, 0.0, 1e-5, 1e-6),
    Coefficient("access_s", 5e-8, 0.0, 1e-6, 1e-7),
)


@dataclass(frozen=True, slots=True)
class Search:
    """One measured batch."""

    operators: tuple[Operator, ...]
    num_threads: int


def fit_search(device: Device, table: pd.DataFrame) -> tuple[SearchEfficiency, dict[str, tuple[ErrorSummary, ...]]]:
    """Coefficients of the device's searches, and errors by kind of index: fitted, kept out.

    One kind after the other: lists of whole vectors first, whose coefficients the others share.
    """
    held = held_out(*(table[name] for name in SHAPE))
    measured_s = table["measured_s"].to_numpy(np.float64)
    found = CORE
    for coefficients, kinds in _STEPS:
        rows = kinds_of(table).isin(kinds).to_numpy() & ~held
        if rows.any():
            found = _fitted(device, found, coefficients, pd.DataFrame(table[rows]), measured_s[rows])
    predicted_s = predict_search(device, found, table)
    errors = {"all": _sides(predicted_s, measured_s, held, np.ones(len(table), bool))}
    for kind in dict.fromkeys(kinds_of(table)):
        errors[kind] = _sides(predicted_s, measured_s, held, (kinds_of(table) == kind).to_numpy())
    in_sample, kept_out = errors["all"]
    return found.model_copy(update={"in_sample": fit_error(in_sample), "held_out": fit_error(kept_out)}), errors


def kinds_of(table: pd.DataFrame) -> pd.Series:
    """flat, ivf_flat, ivf_pq, ivf_pq_4bit, hnsw."""
    fast = (table["index"] == "ivf_pq") & (table["code_bits"] == 4)
    return table["index"].where(~fast, "ivf_pq_4bit")


def predict_search(device: Device, efficiency: SearchEfficiency, table: pd.DataFrame) -> FloatArray:
    """Seconds of every row: one batch on as many cores as it has threads, over as many devices as they need."""
    return price(device, efficiency, searches(table))


def searches(table: pd.DataFrame) -> list[Search]:
    """What every row computes and reads, whatever the coefficients."""
    return [
        Search(index_of(row).search_operators(int(row["num_queries"]), int(row["top_k"])), int(row["num_threads"]))
        for row in table.to_dict("records")
    ]


def price(device: Device, efficiency: SearchEfficiency, rows: Sequence[Search]) -> FloatArray:
    """Seconds of every search with these coefficients."""
    cost_model = device.cost_model.model_copy(update={"search": efficiency})
    priced = device.model_copy(update={"cost_model": cost_model})
    workers = {
        threads: Worker(priced, threads, -(-threads // device.num_cores))
        for threads in {row.num_threads for row in rows}
    }
    return np.array([batch_seconds(row.operators, workers[row.num_threads]).sum() for row in rows])


def index_of(row: Mapping[Any, Any]) -> Index:
    """The index of a row; what its searches were seen to touch stands in for what they would be expected to."""
    number, kind = int(row["num_vectors"]), str(row["index"])
    products = 1 if row["kernel"] == PRODUCT else None
    shared: dict[str, Any] = {"num_vectors": number, "dim": int(row["dim"]), "num_shards": 1, "recall": None}
    if kind == "flat":
        return Flat.model_construct(**shared, dtype=row["dtype"], product_queries=products)
    seen = float(row["num_distances"])
    if kind == "hnsw":
        links, hops, ef_search = int(row["links"]), float(row["num_hops"]), int(row["ef_search"])
        if np.isfinite(hops) and hops > 0.0:
            ef_search = hops - HOPS_PER_LEVEL * log(number) / log(links)  # type: ignore[assignment]
        counted = np.isfinite(seen) and np.isfinite(hops) and hops > 0.0
        frac = seen / (hops * 2 * links) if counted else NEW_LINK_FRAC
        return Hnsw.model_construct(**shared, m=links, ef_search=ef_search, dtype=row["dtype"], new_link_frac=frac)
    nlist, nprobe = int(row["nlist"]), int(row["nprobe"])
    imbalance = seen * nlist / (number * nprobe) if np.isfinite(seen) and seen > 0.0 else 1.0
    lists: dict[str, Any] = {
        "nlist": nlist,
        "nprobe": nprobe,
        "imbalance": imbalance,
        "product_queries": products,
        "parallel_over": "queries",
    }
    if kind == "ivf_flat":
        return IvfFlat.model_construct(**shared, **lists, dtype=row["dtype"])
    codes: dict[str, Any] = {"code_bytes": int(row["code_bytes"]), "code_bits": int(row["code_bits"]) or 8}
    return IvfPq.model_construct(**shared, **lists, **codes, metric=row["metric"])


def _fitted(
    device: Device,
    start: SearchEfficiency,
    coefficients: tuple[Coefficient, ...],
    rows: pd.DataFrame,
    measured_s: FloatArray,
) -> SearchEfficiency:
    known = searches(rows)

    def predict(values: dict[str, float]) -> FloatArray:
        return price(device, start.model_copy(update=values), known)

    return start.model_copy(update=fit_coefficients(coefficients, predict, measured_s, num_starts=1))


def _sides(
    predicted_s: FloatArray, measured_s: FloatArray, held: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]
) -> tuple[ErrorSummary, ...]:
    return tuple(
        summarize(predicted_s[side & rows], measured_s[side & rows]) for side in (~held, held) if (side & rows).any()
    )


_STEPS: Final = (
    (LISTS, ("flat", "ivf_flat")),
    (CODES, ("ivf_pq", "ivf_pq_4bit")),
    (GRAPHS, ("hnsw",)),
)
