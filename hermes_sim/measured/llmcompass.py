"""Tables of PrincetonUniversity/LLMCompass: single operators, and one layer of GPT-3 175B split over four devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from hermes_sim.measured.layout import Layout, Part, Source
from hermes_sim.measured.parts import product, stream

GPT3_HIDDEN: Final = 12288
"""GPT-3 175B (arXiv 2005.14165, table 2.1); its feed-forward is four times as wide."""
GPT3_BATCH: Final = 8
GPT3_PROMPT_TOKENS: Final = 2048
_DEVICES: Final = re.compile(r"^\s*(\d+)\s*x\s*(.*?)\s*(?:\(\s*TP\s*(\d+)\s*\))?\s*$", re.IGNORECASE)
_ANY: Final = float("-inf")


def _operators(source: Source) -> Iterator[Part]:
    """M x N x K of products; M x N elements of softmax and layernorm; M elements of gelu. 16 bits."""
    table = source.table
    names = table["op"].astype("str").str.casefold()
    devices = table["device"].astype("str").map(source.names.device)
    common: dict[str, Any] = {
        "device": devices,
        "measured_s": table["latency_ms"] * 1e-3,
        "timing": "eager",
        "dtype": "fp16",
    }
    is_product = names.str.startswith("matmul")
    complete = is_product & (table[["M", "N", "K"]].fillna(0.0) >= 1.0).all(axis=1)
    source.skip("matmul", "M, N and K are needed", int((is_product & ~complete).sum()))
    if complete.any():
        chosen = table[complete]
        yield "gemm", product("", chosen["M"], chosen["N"], chosen["K"], 1).assign(**common, num_tokens=0)
    for name in ("softmax", "layernorm", "gelu"):
        chosen = table[(names == name) & (table["M"] >= 1.0)]
        if len(chosen):
            rows = stream(name, chosen["M"], 2.0 * chosen["N"].fillna(1.0))
            yield "stream", rows.assign(**common, part="", num_tokens=0)
    others = ~is_product & ~names.isin(["softmax", "layernorm", "gelu"])
    source.skip("operator", "no operator by this name is known", int(others.sum()))


def _gpt3_layer(source: Source) -> Iterator[Part]:
    """Batch 8 of 2048 tokens, then one decode step. Attention runs as single products there, which no engine does."""
    for index, row in source.table.iterrows():
        found = _DEVICES.match(str(row["device"]))
        device, tp = (found.group(2), int(found.group(3) or found.group(1))) if found else (str(row["device"]), 1)
        tokens = pd.Series(GPT3_BATCH * (GPT3_PROMPT_TOKENS if row["phase"] == "prefill" else 1), index=[index])
        part = _gpt3_part(str(row["op"]), tokens, tp)
        if part is None:
            source.skip(str(row["op"]), "attention as single products, or no part by this name", 1)
            continue
        operator, rows = part
        yield (
            operator,
            rows.assign(
                device=source.names.device(device.split(" (", maxsplit=1)[0]),
                measured_s=row["latency_ms"] * 1e-3,
                timing="eager",
                dtype="fp16",
                model="gpt3_175b",
            ),
        )


def _gpt3_part(name: str, tokens: pd.Series, tp: int) -> Part | None:
    hidden, wide = GPT3_HIDDEN, 4 * GPT3_HIDDEN // tp
    products = {
        "Q_K_V": ("qkv", 3 * hidden // tp, hidden),
        "Wo_proj": ("out", hidden, hidden // tp),
        "W1_proj": ("gate_up", wide, hidden),
        "W2_proj": ("down", hidden, wide),
    }
    if name in products:
        part, n, k = products[name]
        return "gemm", product(part, tokens, n, k, tp)
    if name.startswith("LayerNorm"):
        return "stream", stream("norm", tokens, 2.0 * hidden)
    if name == "GeLU":
        return "stream", stream("activation", tokens, 2.0 * wide, tp)
    if name.startswith("AllReduce"):
        num_bytes = 2.0 * tokens * hidden
        return "all_reduce", pd.DataFrame(
            {"num_devices": tp, "num_bytes": num_bytes, "library": "nccl", "part": "all_reduce", "tp": tp}
        )
    return None


LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout(
        "llmcompass operators",
        frozenset({"gemm", "stream"}),
        _operators,
        {"M": 1.0, "N": _ANY, "K": _ANY, "latency_ms": 0.0},
        whole=frozenset({"M", "N", "K"}),
        texts=frozenset({"device", "op"}),
        states_device=True,
    ),
    Layout(
        "llmcompass layer",
        frozenset({"gemm", "stream", "all_reduce"}),
        _gpt3_layer,
        {"latency_ms": 0.0},
        texts=frozenset({"device", "phase", "op"}),
        states_device=True,
    ),
)
