"""Columns of the tables of kernels: the public format that every reader turns its files into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

Kind = Literal["text", "count", "number"]
"""text; count: whole number; number: finite, in base units."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind
    meaning: str
    default: str | float | None = None
    """Where a file leaves the column or the cell out; None: it must be there."""
    least: float = 0.0
    """Smallest number that makes sense; minus infinity: 0, and single cells may be empty."""


def _text(name: str, meaning: str, default: str | None = "") -> Column:
    return Column(name, "text", meaning, default)


def _count(name: str, meaning: str, default: float | None = None, least: float = 1.0) -> Column:
    return Column(name, "count", meaning, default, least)


OPERATOR: Final = _text("operator", "Which table the row belongs to.", None)
DEVICE: Final = _text("device", "Name or alias of a device file; another text is kept as it is.", None)
MEASURED_S: Final = Column("measured_s", "number", "Seconds; above zero.", None, 0.0)
SOURCE_FILE: Final = "source_file"
SOURCE_ROW: Final = "source_row"

COMMON: Final[tuple[Column, ...]] = (
    OPERATOR,
    DEVICE,
    MEASURED_S,
    _text("engine", "vllm, trtllm, sglang, ...; empty where no engine was involved."),
    _text("engine_version", "Of that engine."),
    _text(
        "timing",
        "graph: in a captured graph; device: launched one by one, time on the device; eager: host time included.",
    ),
    _text("kernel", "Name of the kernel, as its origin gives it; of a `stream`: what it does."),
    _text(
        "dtype", "What is multiplied: bf16, fp16, fp8, fp8_block, int8, fp4, mxfp4, int4, w8a16, w4a16, w4a8.", "bf16"
    ),
    _text("model", "Name of the model the shape comes from; empty where it comes from none."),
    _text("part", "Part of that model's layer: qkv, out, gate_up, down, norm, lm_head, ..."),
    _count("tp", "Devices over which the part is split; the shape is one device's share.", 1.0),
)
"""Of every operator."""

_HEADS: Final = (
    _count("num_heads", "Query heads of one device."),
    _count("num_kv_heads", "Key-value heads of one device."),
    _count("head_dim", "Width of one head."),
    _count("window_tokens", "Sliding window; 0: none.", 0.0, 0.0),
    _text("kv_dtype", "Dtype of the KV cache.", "bf16"),
)
_MLA: Final = (
    _count("num_heads", "Query heads of one device."),
    _text("kv_dtype", "Dtype of the KV cache.", "bf16"),
    _count("kv_lora_rank", "Width of the latent.", 512.0),
    _count("qk_nope_head_dim", "Width of a head without position.", 128.0),
    _count("qk_rope_head_dim", "Width of the rotated part.", 64.0),
    _count("v_head_dim", "Width of a value head.", 128.0),
)
_SEQS: Final = _count("num_seqs", "Sequences in the batch.")
_NEW: Final = _count("new_tokens", "New tokens of each sequence.")
_HISTORY: Final = _count("history_tokens", "Tokens of each sequence that are cached already.", 0.0, 0.0)
_CONTEXT: Final = Column(
    "context_tokens", "number", "Tokens attended to by each decode, its own included; mean.", None, 1.0
)
_LONGEST: Final = Column("max_context_tokens", "number", "The longest of them; the mean where left out.", np.nan, 1.0)
_NUM_TOKENS: Final = _count("num_tokens", "Tokens in the batch.", 0.0, 0.0)
_COLLECTIVE: Final = (
    _count("num_devices", "Devices that take part."),
    Column("num_bytes", "number", "Bytes of the message: see below for each operator.", None, 1.0),
    _count("devices_per_node", "Of those devices; fewer than num_devices: across nodes. All where left out.", 0.0, 0.0),
    _text("topology", "nvlink_pairs, dgx, ...; empty: unknown."),
    _text("library", "nccl, vllm, trtllm, sglang, ..."),
)

OPERATORS: Final[dict[str, tuple[Column, ...]]] = {
    "gemm": (_count("m", "Rows: tokens."), _count("n", "Columns: outputs."), _count("k", "Inner size."), _NUM_TOKENS),
    "attention_prefill": (_SEQS, _NEW, _HISTORY, *_HEADS),
    "attention_decode": (_SEQS, _CONTEXT, _LONGEST, *_HEADS),
    "attention_mixed": (
        _count("num_prefill", "Sequences with new prompt tokens."),
        _count("new_tokens", "New tokens of each of those."),
        _count("history_tokens", "Tokens of each of those that are cached already.", 0.0, 0.0),
        _count("num_decode", "Sequences that decode one token."),
        _CONTEXT,
        _LONGEST,
        *_HEADS,
    ),
    "mla_prefill": (_SEQS, _NEW, _HISTORY, *_MLA),
    "mla_decode": (_SEQS, _CONTEXT, _LONGEST, *_MLA),
    "moe": (
        _count("num_tokens", "Tokens on the device, before routing."),
        _count("hidden", "Width of the model."),
        _count("width", "Intermediate size of one whole expert."),
        _count("num_experts", "Experts of the layer, on all devices."),
        _count("num_experts_per_token", "Experts that each token is routed to."),
        _count("moe_tp", "Devices over which each expert is split.", 1.0),
        _count("moe_ep", "Devices over which the experts are spread.", 1.0),
        _text("distribution", "Of tokens over experts: balanced, uniform, power_law_1.2, ...; empty: unknown."),
        Column("num_active_experts", "number", "Experts that got a token, where counted.", np.nan, 1.0),
    ),
    "all_reduce": _COLLECTIVE,
    "all_gather": _COLLECTIVE,
    "reduce_scatter": _COLLECTIVE,
    "all_to_all": _COLLECTIVE,
    "send": _COLLECTIVE,
    "stream": (_NUM_TOKENS, Column("num_bytes", "number", "Bytes read and written.", None, 1.0)),
    "retrieval": (
        _text("index", "flat, ivf_flat, ivf_pq or hnsw.", None),
        _count("num_vectors", "Vectors in the index."),
        _count("dim", "Numbers of a vector."),
        _count("nlist", "Inverted lists; 0 of other kinds, as with the next five.", 0.0, 0.0),
        _count("code_bytes", "Of a product-quantised vector.", 0.0, 0.0),
        _count("code_bits", "Of one sub-quantiser: 8, or 4 (fast scan).", 0.0, 0.0),
        _count("links", "Links of a graph's node on the upper levels, M.", 0.0, 0.0),
        _count("nprobe", "Lists that a query scans.", 0.0, 0.0),
        _count("ef_search", "Candidates that a graph search keeps.", 0.0, 0.0),
        _count("num_queries", "Searched in one call."),
        _count("top_k", "Results of a query.", 10.0),
        _count("num_threads", "Threads of the call.", 1.0),
        _text("metric", "l2: squared distance; inner_product.", "l2"),
        Column(
            "num_distances", "number", "Vectors or codes compared with one query, mean, where counted.", np.nan, -np.inf
        ),
        Column("num_hops", "number", "Nodes of a graph that one query expands, mean, where counted.", np.nan, -np.inf),
        Column("recall", "number", "Share of the true top_k that is found.", np.nan, -np.inf),
    ),
}
"""Operator -> its own columns, beside COMMON."""

FORMS: Final[dict[str, str]] = {
    "gemm": "One dense product [m, k] x [k, n].",
    "attention_prefill": "Causal attention of new prompt tokens over themselves and what is cached.",
    "attention_decode": "Attention of one new token a sequence over its cache.",
    "attention_mixed": "Prompt chunks and decodes in one call.",
    "mla_prefill": "Multi-head latent attention (DeepSeek) of prompts.",
    "mla_decode": "Multi-head latent attention of one new token a sequence, over latents.",
    "moe": "A layer of routed experts on one device: both grouped products, activation, combination.",
    "all_reduce": "num_bytes: the message that every device holds.",
    "all_gather": "num_bytes: the whole result.",
    "reduce_scatter": "num_bytes: the whole input of one device.",
    "all_to_all": "num_bytes: all that one device sends, its own share included.",
    "send": "num_bytes: the message from one device to another.",
    "stream": "A kernel that moves bytes and computes little: norm, activation, rope, add, embedding, softmax.",
    "retrieval": "One call that searches a batch of queries in an index of vectors; dtype: of the stored vectors.",
}
"""Operator -> what one row of it times."""


def columns_of(operator: str) -> tuple[Column, ...]:
    """All columns of an operator's table, in their order."""
    return (*COMMON, *OPERATORS[operator])


def finished(operator: str, table: pd.DataFrame, source_file: str) -> pd.DataFrame:
    """The table with every column of its operator, defaults filled in; its index is the row of the source."""
    found: dict[str, pd.Series] = {}
    for column in columns_of(operator):
        found[column.name] = _column(table, column, operator)
    if "max_context_tokens" in found:
        found["max_context_tokens"] = found["max_context_tokens"].fillna(found["context_tokens"])
    if "devices_per_node" in found:
        per_node = found["devices_per_node"]
        found["devices_per_node"] = per_node.where(per_node > 0, found["num_devices"])
    result = pd.DataFrame(found)
    result[SOURCE_FILE] = source_file
    result[SOURCE_ROW] = np.asarray(table.index, np.int64)
    return medians(result).reset_index(drop=True)


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """One row a shape and setting: the median of its repeats, with the row of the first."""
    keys = [name for name in table.columns if name not in (MEASURED_S.name, SOURCE_ROW)]
    varying = [name for name in keys if _varies(table[name])]
    if not varying:
        return table.iloc[:1].assign(**{MEASURED_S.name: table[MEASURED_S.name].median()})
    if not table.duplicated(varying).any():
        return table
    grouped = table.groupby(varying, sort=False, dropna=False)
    seconds = grouped[MEASURED_S.name].transform("median")
    return table.assign(**{MEASURED_S.name: seconds})[~table.duplicated(varying)]


def _varies(values: pd.Series) -> bool:
    return len(values) > 0 and bool((values != values.iloc[0]).any())


def _column(table: pd.DataFrame, column: Column, operator: str) -> pd.Series:
    if column is OPERATOR:
        return pd.Series(operator, index=table.index, dtype="str")
    if column.name not in table:
        assert column.default is not None, f"{operator} needs {column.name}"
        values = pd.Series(column.default, index=table.index)
    else:
        values = table[column.name]
    if column.kind == "text":
        return values.astype("str").fillna(str(column.default or ""))
    if column.default is not None and not (isinstance(column.default, float) and np.isnan(column.default)):
        values = values.fillna(column.default)
    return values.astype(np.int64 if column.kind == "count" else np.float64)
