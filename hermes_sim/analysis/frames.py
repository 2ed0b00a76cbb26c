"""Result tables as DataFrames: arrays of a run -> columns of fixed order and type, texts as categoricals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from hermes_sim.core.tables import RECORDED_SCHEMAS, SCHEMAS, RunTables, Table

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def data_frame(table: Table, schema: Mapping[str, str]) -> pd.DataFrame:
    """One table with the columns, order and types of its schema.

    Categories keep the order in which they first appear (`llm[2]` before `llm[10]`).
    Raises ValueError if columns are missing or unknown: a defect of the program, not of its input.
    """
    if set(table) != set(schema):
        raise ValueError(f"columns {sorted(set(table) ^ set(schema))} are in the table or in its schema, not in both")
    return pd.DataFrame({name: _column(table[name], dtype) for name, dtype in schema.items()})


def _column(values: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.generic] | pd.Categorical:
    if dtype != "category":
        return np.asarray(values, dtype=dtype)
    codes, categories = pd.factorize(np.asarray(values, dtype=object))
    return pd.Categorical.from_codes(codes, categories=pd.Index(categories, dtype="str"))


def run_frames(tables: RunTables) -> dict[str, pd.DataFrame]:
    """All tables of a run by name, recorded ones where there are any; `requests` with its latencies."""
    frames = {name: data_frame(getattr(tables, name), schema) for name, schema in SCHEMAS.items()}
    for name, schema in RECORDED_SCHEMAS.items():
        if getattr(tables, name) is not None:
            frames[name] = data_frame(getattr(tables, name), schema)
    frames["requests"] = with_latencies(frames["requests"])
    frames["itl"] = pd.DataFrame(
        {
            "from_s": tables.itl_edges_s[:-1],
            "to_s": tables.itl_edges_s[1:],
            "num_gaps": tables.itl_counts.astype(np.int64),
        }
    )
    return frames


def with_latencies(requests: pd.DataFrame) -> pd.DataFrame:
    """Adds ttft_s, ttfat_s, engine_ttft_s, tpot_s and e2e_s.

    TTFT = first_token_s - arrival_s as the client sees it: from sending the request to receiving the first message,
    so that queueing, retrieval, tokenising and detokenising are included; NaN without output tokens. The engine's TTFT
    ends with the engine's step. TTFAT = first_answer_token_s - arrival_s: thoughts do not count. E2E = finish_s -
    arrival_s of finished requests, at the client too. TPOT = (finish_s - first_token_s) / (tokens - 1) of finished
    requests, tokens being those of the longest sample; NaN for fewer than two tokens. Where a request takes several
    passes of a language model, with tools or retrieval between them: decode_s / (tokens - passes).
    """
    arrival_s = floats(requests, "arrival_s")
    first_token_s = floats(requests, "first_token_s")
    finish_s = np.where(is_finished(requests), floats(requests, "finish_s"), np.nan)
    num_passes = floats(requests, "num_passes")
    decode_s = np.where(num_passes > 1, floats(requests, "decode_s"), finish_s - first_token_s)
    num_gaps = floats(requests, "num_longest_sample_tokens") - np.maximum(num_passes, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where((num_gaps >= 1) & ~np.isnan(finish_s), decode_s / num_gaps, np.nan)
    return requests.assign(
        ttft_s=first_token_s - arrival_s,
        ttfat_s=floats(requests, "first_answer_token_s") - arrival_s,
        engine_ttft_s=floats(requests, "engine_first_token_s") - arrival_s,
        tpot_s=tpot_s,
        e2e_s=finish_s - arrival_s,
    )


def floats(frame: pd.DataFrame, column: str) -> FloatArray:
    """One column as float64, without a copy where it is one already."""
    return frame[column].to_numpy(dtype=np.float64)


def is_finished(requests: pd.DataFrame) -> BoolArray:
    """Requests that got everything they asked for; the others were rejected or still inside at the end."""
    return (requests["status"] == "finished").to_numpy(dtype=np.bool_)
