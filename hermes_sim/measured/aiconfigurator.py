"""Tables of ai-dynamo/aiconfigurator's collector: one per system, backend and operator, `latency_ms`, captured graphs.

`message_size` counts elements, of 2 bytes or as `nccl_dtype` says. `step` is what is cached already: a decode attends
to step + 1 tokens. Tables of prompts and of decodes have the same columns; decodes have one new token and a history.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from hermes_sim.measured.layout import Layout, Part, Source, whole_numbers

DTYPES: Final = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32", "fp8_static": "fp8",
    "nvfp4": "fp4", "sq": "int8", "int8_wo": "w8a16", "int4_wo": "w4a16",
    "w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "w4a8", "w4afp8": "w4a8",
}  # fmt: skip
"""Names of the origin -> ours; others are the same. mxfp4: with bf16 activations; w4a8: with 8-bit ones."""

ELEMENT_BYTES: Final = {"half": 2, "int8": 1, "float": 4, "float32": 4, "bfloat16": 2, "float16": 2}
_NCCL: Final = {
    "all_gather": "all_gather", "all_reduce": "all_reduce", "alltoall": "all_to_all", "all_to_all": "all_to_all",
    "reduce_scatter": "reduce_scatter", "send_recv": "send", "sendrecv": "send", "p2p": "send",
}  # fmt: skip
_TIMED: Final = {"latency_ms": 0.0}
_ATTENTION: Final = {
    **whole_numbers("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"),
    **whole_numbers("step", "window_size", least=0.0),
}
_MLA: Final = {**whole_numbers("batch_size", "isl", "num_heads"), **whole_numbers("step", least=0.0)}
_MOE: Final = whole_numbers(
    "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"
)


def _gemm(source: Source) -> Iterator[Part]:
    table = source.table
    yield "gemm", _common(source, "gemm_dtype").assign(**{name: table[name] for name in ("m", "n", "k")})


def _attention(source: Source) -> Iterator[Part]:
    table = source.table
    window = table.get("window_size", 0)
    rows = _common(source, "attn_dtype").assign(
        num_seqs=table["batch_size"],
        num_heads=table["num_heads"],
        num_kv_heads=table["num_key_value_heads"],
        head_dim=table["head_dim"],
        window_tokens=window,
        kv_dtype=dtypes(table["kv_cache_dtype"]),
    )
    yield from _phases("attention", source, rows)


def _mla(source: Source) -> Iterator[Part]:
    table = source.table
    rows = _common(source, "mla_dtype").assign(
        num_seqs=table["batch_size"], num_heads=table["num_heads"], kv_dtype=dtypes(table["kv_cache_dtype"])
    )
    if "tp_size" in table:
        rows["tp"] = table["tp_size"]
    yield from _phases("mla", source, rows)


def _phases(operator: str, source: Source, rows: pd.DataFrame) -> Iterator[Part]:
    new, step = source.table["isl"], source.table["step"]
    is_decode = (new == 1) & ((step > 0) | bool((new == 1).all()))
    if is_decode.any():
        yield f"{operator}_decode", rows[is_decode].assign(context_tokens=step[is_decode] + 1.0)
    if not is_decode.all():
        yield f"{operator}_prefill", rows[~is_decode].assign(new_tokens=new, history_tokens=step)


def _moe(source: Source) -> Iterator[Part]:
    table = source.table
    yield (
        "moe",
        _common(source, "moe_dtype").assign(
            num_tokens=table["num_tokens"],
            hidden=table["hidden_size"],
            width=table["inter_size"],
            num_experts=table["num_experts"],
            num_experts_per_token=table["topk"],
            moe_tp=table["moe_tp_size"],
            moe_ep=table["moe_ep_size"],
            distribution=_texts(table["distribution"]),
        ),
    )


def _nccl(source: Source) -> Iterator[Part]:
    table = source.table
    element_bytes = _texts(table["nccl_dtype"]).map(ELEMENT_BYTES)
    rows = _common(source, "nccl_dtype").assign(
        engine="",
        timing="",
        library="nccl",
        num_devices=table["num_gpus"],
        num_bytes=table["message_size"] * element_bytes,
    )
    source.skip("collective", "the width of this nccl_dtype is not known", int(element_bytes.isna().sum()))
    operators = _texts(table["op_name"]).str.casefold()
    source.skip("collective", "no such collective here", int((~operators.isin(list(_NCCL))).sum()))
    for name, operator in _NCCL.items():
        chosen = (operators == name) & element_bytes.notna()
        if chosen.any():
            yield operator, rows[chosen]


def _all_reduce(source: Source) -> Iterator[Part]:
    """`backend`, or the kernel's name where a table has no such column, tells captured from eager launches."""
    table = source.table
    how = _texts(table["backend"] if "backend" in table else table["kernel_source"]).str.casefold()
    library = how.str.split("_").str[0].str.replace("tensorrt", "trtllm")
    yield (
        "all_reduce",
        _common(source, "allreduce_dtype").assign(
            library=library,
            engine=source.file.engine or library,
            timing=how.str.contains("eager").map({True: "eager", False: "graph"}),
            num_devices=table["num_gpus"],
            num_bytes=2.0 * table["message_size"],
        ),
    )


def _common(source: Source, dtype: str) -> pd.DataFrame:
    table = source.table
    kernel = _texts(table["kernel_source"]) if "kernel_source" in table else pd.Series("", index=table.index)
    return pd.DataFrame(
        {
            "device": source.file.device,
            "measured_s": table["latency_ms"] * 1e-3,
            "engine": source.file.engine or _engine(kernel),
            "engine_version": _texts(table["version"]) if "version" in table else "",
            "timing": "graph",
            "kernel": kernel,
            "dtype": dtypes(table[dtype]),
        },
        index=table.index,
    )


def _engine(kernel: pd.Series) -> pd.Series:
    """By the kernel's name, for a file whose own name does not tell the engine."""
    lowered = kernel.str.casefold()
    engine = pd.Series("", index=kernel.index, dtype="str")
    engine[lowered.str.startswith("vllm")] = "vllm"
    engine[lowered.str.contains("torch_flow|trt_flow|trtllm", regex=True) & (engine == "")] = "trtllm"
    engine[lowered.str.startswith("sglang")] = "sglang"
    return engine


def dtypes(names: pd.Series) -> pd.Series:
    """The origin's names of dtypes as ours."""
    texts = _texts(names)
    return texts.map(DTYPES).fillna(texts)


def _texts(values: pd.Series) -> pd.Series:
    return values.astype("str").fillna("")


def _layout(name: str, operators: set[str], convert: object, numbers: dict[str, float], texts: set[str]) -> Layout:
    assert callable(convert)
    may_lack = frozenset({"window_size"} & set(numbers))
    whole = frozenset(numbers)
    return Layout(
        name, frozenset(operators), convert, {**numbers, **_TIMED}, whole, frozenset(texts), may_lack=may_lack
    )


_PHASES: Final = ("prefill", "decode")
LAYOUTS: Final[tuple[Layout, ...]] = (
    _layout("aiconfigurator gemm", {"gemm"}, _gemm, whole_numbers("m", "n", "k"), {"gemm_dtype"}),
    _layout(
        "aiconfigurator attention",
        {f"attention_{phase}" for phase in _PHASES},
        _attention,
        _ATTENTION,
        {"attn_dtype", "kv_cache_dtype"},
    ),
    _layout("aiconfigurator mla", {f"mla_{phase}" for phase in _PHASES}, _mla, _MLA, {"mla_dtype", "kv_cache_dtype"}),
    _layout("aiconfigurator moe", {"moe"}, _moe, _MOE, {"moe_dtype", "distribution"}),
    _layout(
        "aiconfigurator nccl",
        set(_NCCL.values()),
        _nccl,
        whole_numbers("num_gpus", "message_size"),
        {"op_name", "nccl_dtype"},
    ),
    _layout(
        "aiconfigurator custom all-reduce",
        {"all_reduce"},
        _all_reduce,
        whole_numbers("num_gpus", "message_size"),
        {"allreduce_dtype", "kernel_source"},
    ),
)
