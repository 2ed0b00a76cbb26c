"""Tables of microsoft/vidur's profiler: parts of layers, attention, collectives; times in ms, 16-bit weights.

`mlp` tables hold one column per part and one row per (num_tokens, tp): dimensions are those of the whole model, times
those of one device's share. An empty cell was not measured. Times have a resolution of one microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from hermes_sim.measured.layout import Layout, Part, Source, whole_numbers
from hermes_sim.measured.parts import one_share, product, stream

ANY: Final = float("-inf")
_TIMES: Final = (
    "emb_ms", "input_layernorm_ms", "attn_pre_proj_ms", "attn_rope_ms", "attn_post_proj_ms",
    "post_attention_layernorm_ms", "mlp_up_proj_ms", "mlp_act_ms", "mlp_down_proj_ms", "add_ms",
)  # fmt: skip
_COLLECTIVES: Final = {
    "all_reduce": "all_reduce", "send_recv": "send", "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter", "all_to_all": "all_to_all",
}  # fmt: skip
_TOPOLOGIES: Final = {"pairwise_nvlink": "nvlink_pairs", "pairwise": "nvlink_pairs", "dgx": "dgx"}


def _layers(source: Source) -> Iterator[Part]:
    table = source.table
    tokens, tp, hidden = table["num_tokens"], table["tp"], table["n_embd"]
    gated = table["use_gated_mlp"]
    head_dim = hidden // table["n_head"]
    heads, kv_heads = one_share(table["n_head"], tp), one_share(table["n_kv_head"], tp)
    width = table["n_expanded_embd"] // tp
    twice = gated.map({True: 2, False: 1})
    parts = {
        "attn_pre_proj_ms": product("qkv", tokens, (heads + 2 * kv_heads) * head_dim, hidden, tp),
        "attn_post_proj_ms": product("out", tokens, hidden, heads * head_dim, tp),
        "mlp_up_proj_ms": product("gate_up", tokens, twice * width, hidden, tp),
        "mlp_down_proj_ms": product("down", tokens, hidden, width, tp),
        "emb_ms": stream("embedding", tokens, 2 * hidden),
        "input_layernorm_ms": stream("norm", tokens, 2 * hidden),
        "post_attention_layernorm_ms": stream("norm", tokens, 2 * hidden),
        "attn_rope_ms": stream("rope", tokens, 2 * (heads + kv_heads) * head_dim, tp),
        "mlp_act_ms": stream("activation", tokens, (twice + 1) * width, tp),
        "add_ms": stream("add", tokens, 3 * hidden),
    }
    for column, rows in parts.items():
        if column in table:
            yield from _timed(source, column, "gemm" if "m" in rows else "stream", rows)


def _attention(source: Source) -> Iterator[Part]:
    table = source.table
    tp = table["tp"]
    kv_heads = one_share(table["n_kv_head"], tp)
    head_dim = table["n_embd"] // table["n_q_head"]
    history = table["kv_cache_size"]
    rows = pd.DataFrame(
        {
            "num_seqs": table["batch_size"],
            "num_heads": one_share(table["n_q_head"], tp),
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "tp": tp,
            "part": "attention",
        }
    )
    is_prefill = table["is_prefill"]
    prompts = rows.assign(new_tokens=table["prefill_chunk_size"], history_tokens=history)[is_prefill]
    yield from _timed(source, "attn_prefill_ms", "attention_prefill", prompts)
    decodes = rows.assign(context_tokens=history + 1.0)[~is_prefill]
    yield from _timed(source, "attn_decode_ms", "attention_decode", decodes)
    if "attn_kv_cache_save_ms" in table:
        tokens = table["batch_size"] * table["prefill_chunk_size"].where(is_prefill, 1)
        yield from _timed(
            source, "attn_kv_cache_save_ms", "stream", stream("kv_write", tokens, 4 * kv_heads * head_dim, tp)
        )


def _timed(source: Source, column: str, operator: str, rows: pd.DataFrame) -> Iterator[Part]:
    """The rows that have a time, with what all tables of this origin share."""
    time_ms = source.table.loc[rows.index, column]
    empty, zero = time_ms.isna(), time_ms == 0.0
    source.skip(column, "the cell is empty", int(empty.sum()))
    source.skip(column, "the time is 0 at the table's resolution", int(zero.sum()))
    chosen = ~(empty | zero)
    if not chosen.any():
        return
    table = source.table.loc[rows.index][chosen]
    yield (
        operator,
        rows[chosen].assign(
            measured_s=time_ms[chosen] * 1e-3,
            device=_devices(source, table),
            model=table["model"].astype("str").map(source.names.model) if "model" in table else source.file.model,
            engine="vllm",
            dtype="fp16",
            kv_dtype="fp16",
            **({} if operator == "stream" else {"kernel": _kernel(table)}),
        ),
    )


def _kernel(table: pd.DataFrame) -> pd.Series | str:
    return table["attention_backend"].astype("str") if "attention_backend" in table else ""


def _devices(source: Source, table: pd.DataFrame) -> pd.Series | str:
    return table["device"].astype("str").map(source.names.device) if "device" in table else source.file.device


def _collective(source: Source) -> Iterator[Part]:
    """The topology column names the device first: a100_dgx, a100_pairwise_nvlink."""
    table = source.table
    topology = table["topology"].astype("str").str.casefold()
    operators = table["collective"].astype("str").str.casefold().map(_COLLECTIVES)
    source.skip("collective", "no such collective here", int(operators.isna().sum()))
    rows = pd.DataFrame(
        {
            "device": topology.str.split("_").str[0].map(source.names.device),
            "topology": topology.str.split("_", n=1).str[1].fillna("").map(lambda text: _TOPOLOGIES.get(text, text)),
            "measured_s": table["median_ms"] * 1e-3,
            "library": "nccl",
            "timing": "eager",  # torch.distributed from Python: short ones last as long as the host takes
            "dtype": "fp16",
            "num_devices": table["num_workers"],
            "devices_per_node": table["devices_per_node"],
            "num_bytes": table["bytes"],
        }
    )
    for operator in dict.fromkeys(operators.dropna()):
        yield operator, rows[operators == operator]


_DIMENSIONS: Final = whole_numbers("num_tokens", "tp", "n_embd", "n_head", "n_kv_head", "n_expanded_embd")
_HEADS: Final = {
    **whole_numbers("batch_size", "tp", "n_embd", "n_q_head", "n_kv_head"),
    **whole_numbers("prefill_chunk_size", "kv_cache_size", least=0.0),
}
_PHASES: Final = ("attn_prefill_ms", "attn_decode_ms", "attn_kv_cache_save_ms")
_WORKERS: Final = whole_numbers("num_workers", "devices_per_node", "bytes")
LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout(
        "vidur layers",
        frozenset({"gemm", "stream"}),
        _layers,
        {**_DIMENSIONS, **dict.fromkeys(_TIMES, ANY)},
        whole=frozenset(_DIMENSIONS),
        flags=frozenset({"use_gated_mlp"}),
        may_lack=frozenset(_TIMES),
        states_device=True,
    ),
    Layout(
        "vidur attention",
        frozenset({"attention_prefill", "attention_decode", "stream"}),
        _attention,
        {**_HEADS, **dict.fromkeys(_PHASES, ANY)},
        whole=frozenset(_HEADS),
        flags=frozenset({"is_prefill"}),
        may_lack=frozenset({"attn_kv_cache_save_ms"}),
        states_device=True,
    ),
    Layout(
        "vidur collective",
        frozenset(_COLLECTIVES.values()),
        _collective,
        {**_WORKERS, "median_ms": 0.0},
        whole=frozenset(_WORKERS),
        texts=frozenset({"topology", "collective"}),
        states_device=True,
    ),
)
