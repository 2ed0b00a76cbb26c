"""Tables of casys-kaist/LLMServingSim's profilers, both versions: parts of layers and attention of named models.

Files are of one device, model and tensor-parallel degree, which their names tell: DEVICE_MODEL_tpN_TABLE. Shapes follow
from the model; a tensor-parallel shard is one device with its share of heads and widths. Experts are whole in every
shard (expert parallelism): their times in the files are the same at every degree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pandas as pd

from hermes_sim.measured.layout import Layout, Part, Source, whole_numbers
from hermes_sim.measured.parts import product, stream
from hermes_sim.models.architecture import ModelArchitecture

NORM_MODULES: Final = {"final_layernorm": "layernorm"}
"""Modules of Transformers: the norm before the head adds nothing."""
CHAINS: Final = {"norm": 9.0, "rope": 5.0, "activation": 5.0 / 3.0}
"""Kernel -> bytes that the chain of kernels moves over those of one that is fused. A norm widens to 32 bits and narrows
again: 36 bytes a number instead of 4. Rotation: 20 bytes instead of 4. SiLU is a kernel before the product: 10 bytes
instead of 6. Source: the modules of Transformers' Llama."""
PartOf = Callable[["Source", ModelArchitecture, str, pd.Series, int], tuple[str, pd.DataFrame | None]]
SAMPLER_BYTES_PER_LOGIT: Final = 10.0
"""16-bit logits are read, widened to 32 bits and read again."""
REPEATS: Final = 3
"""Of every call by the newer profiler, unless the notes beside a table say otherwise."""
_UNKNOWN_MODEL: Final = "its model's shape is not known: no model file and no architecture of the folder has the name"


def _dense(source: Source) -> Iterator[Part]:
    """Products are those of the engine: query, key and value together, gate and up together."""
    yield from _parts(source, source.table["layer"], source.table["tokens"], source.table["time_us"] * 1e-6)


def _per_sequence(source: Source) -> Iterator[Part]:
    table = source.table
    yield from _parts(source, table["layer"], table["sequences"], table["time_us"] * 1e-6)


def _layers(source: Source) -> Iterator[Part]:
    """Older profiler: every matrix by itself, ns per name and number of tokens.

    It runs the modules of Transformers: what engines fuse is a chain of kernels there, unless a compiler fuses it, as
    XLA does for TPUs. Norms add nothing. An expert is whole on one device, whatever the tensor-parallel degree.
    """
    parts = _parts(source, source.table["layer_name"], source.table["input"], source.table["ns"] * 1e-9, _module)
    yield from parts


def _parts(
    source: Source, names: pd.Series, tokens: pd.Series, measured_s: pd.Series, part_of: PartOf | None = None
) -> Iterator[Part]:
    model = _model(source)
    if model is None:
        return
    names = names.astype("str").str.strip()
    tp = source.file.tp
    for name, index in names.groupby(names).groups.items():
        if part_of is None:
            operator, rows = _part(model, str(name), tokens.loc[index], tp)
        else:
            operator, rows = part_of(source, model, str(name), tokens.loc[index], tp)
        if rows is None:
            source.skip(str(name), operator, len(index))
            continue
        yield operator, _common(source, rows, measured_s.loc[index])


def _module(
    source: Source, model: ModelArchitecture, name: str, tokens: pd.Series, tp: int
) -> tuple[str, pd.DataFrame | None]:
    """The same of a module of Transformers."""
    if model.moe is not None and (name.startswith("expert.") or name == "act_fn"):
        tp = 1
    norm = NORM_MODULES.get(name)
    if norm is not None:
        name = norm
    operator, rows = _part(model, name, tokens, tp)
    if rows is None or operator != "stream" or source.names.is_compiled(_device(source)):
        return operator, rows
    kernel = str(rows["kernel"].iloc[0])
    chain = CHAINS.get(kernel)
    if chain is None or (kernel == "norm" and model.norm != "rms") or (kernel == "activation" and not model.gated_mlp):
        return operator, rows
    return operator, rows.assign(kernel=f"unfused_{kernel}", num_bytes=rows["num_bytes"] * chain)


def _part(model: ModelArchitecture, name: str, tokens: pd.Series, tp: int) -> tuple[str, pd.DataFrame | None]:
    """Operator and rows of a named part; (reason, None) where it cannot be expressed."""
    hidden, head_dim = model.hidden_size, model.head_dim
    heads, kv_heads = max(model.num_heads // tp, 1), max(model.num_kv_heads // tp, 1)
    expert = model.moe.expert_intermediate_size if model.moe is not None else 0
    width = (model.intermediate_size or expert) // tp
    query, key = heads * head_dim, kv_heads * head_dim
    matrices: dict[str, tuple[str, int, int]] = {
        "qkv_proj": ("qkv", query + 2 * key, hidden),
        "q_proj": ("q", query, hidden),
        "k_proj": ("k", key, hidden),
        "v_proj": ("v", key, hidden),
        "o_proj": ("out", hidden, query),
        "gate_up_proj": ("gate_up", 2 * width, hidden),
        "gate_proj": ("gate", width, hidden),
        "up_proj": ("up", width, hidden),
        "down_proj": ("down", hidden, width),
        "expert.w1": ("expert_gate", expert, hidden),
        "expert.w3": ("expert_up", expert, hidden),
        "expert.w2": ("expert_down", hidden, expert),
        "gate": ("router", model.moe.num_experts if model.moe is not None else 0, hidden),
        "lm_head": ("lm_head", model.vocab_size // tp, hidden),
    }
    streams: dict[str, tuple[str, float]] = {
        "embedding": ("embedding", 2.0 * hidden),
        "input_layernorm": ("norm", 2.0 * hidden),
        "post_layernorm": ("norm", 2.0 * hidden),
        "layernorm": ("norm", 2.0 * hidden),
        "final_layernorm": ("add_norm", 4.0 * hidden),
        "qk_norm": ("qk_norm", 2.0 * (model.num_heads + model.num_kv_heads) * head_dim),  # timed with all heads
        "rope": ("rope", 2.0 * (query + key)),
        "rotary_emb": ("rope", 2.0 * (query + key)),
        "act_fn": ("activation", (3.0 if model.gated_mlp else 2.0) * (expert or width)),
        "sampler": ("sampler", SAMPLER_BYTES_PER_LOGIT / 2.0 * model.vocab_size),
    }
    if name in matrices:
        part, n, k = matrices[name]
        return ("gemm", product(part, tokens, n, k, tp)) if n * k > 0 else (f"{model.name} has no such part", None)
    if name in streams:
        part, elements = streams[name]
        return "stream", stream(part, tokens, elements, tp)
    if name == "attn":
        return "attention_prefill", _heads(model, tp, tokens.index).assign(
            num_seqs=1, new_tokens=tokens, part="attention"
        )
    return "no part of a layer by this name is known", None


def _attention(source: Source) -> Iterator[Part]:
    """A prompt chunk over its history, decodes over theirs, or both in one call."""
    table = source.table
    chunk, history, decodes, context = (
        table[name] for name in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    )
    longest = context + 1.0
    yield from _calls(source, chunk, history, decodes, context + 1.0, longest, table["time_us"] * 1e-6)


def _skew(source: Source) -> Iterator[Part]:
    """Three times a row: all decodes at the mean context, all at the longest, and the mix of nb long, n - nb short.

    Each is the sum over the profiler's repeats, where the attention table has their mean: calls of one shape that are
    in both tables differ by the number of repeats to within a percent, short and long ones alike.
    """
    table = source.table
    repeats = float(source.notes.get("repeats") or REPEATS)
    mean, longest = table["kv_mean"] + 1.0, table["kv_big"] + 1.0
    for column, context, most in (
        ("t_mean_us", mean, mean),
        ("t_max_us", longest, longest),
        ("t_skew_us", mean, longest),
    ):
        yield from _calls(source, table["pc"], table["kp"], table["n"], context, most, table[column] * 1e-6 / repeats)


def _calls(
    source: Source,
    chunk: pd.Series,
    history: pd.Series,
    decodes: pd.Series,
    context: pd.Series,
    longest: pd.Series,
    measured_s: pd.Series,
) -> Iterator[Part]:
    model = _model(source)
    if model is None:
        return
    heads = _heads(model, source.file.tp, source.table.index)
    kinds: dict[str, tuple[pd.Series, dict[str, Any]]] = {
        "attention_prefill": (
            (chunk > 0) & (decodes == 0),
            {"num_seqs": 1, "new_tokens": chunk, "history_tokens": history},
        ),
        "attention_decode": (
            (chunk == 0) & (decodes > 0),
            {"num_seqs": decodes, "context_tokens": context, "max_context_tokens": longest},
        ),
        "attention_mixed": (
            (chunk > 0) & (decodes > 0),
            {
                "num_prefill": 1,
                "new_tokens": chunk,
                "history_tokens": history,
                "num_decode": decodes,
                "context_tokens": context,
                "max_context_tokens": longest,
            },
        ),
    }
    for operator, (chosen, columns) in kinds.items():
        if chosen.any():
            rows = heads.assign(part="attention", **columns)[chosen]
            yield operator, _common(source, rows, measured_s[chosen])
    source.skip("attention", "neither prompt tokens nor decodes", int(((chunk == 0) & (decodes == 0)).sum()))


def _moe(source: Source) -> Iterator[Part]:
    model = _model(source)
    if model is None:
        return
    table = source.table
    if model.moe is None:
        source.skip("moe", f"{model.name} has no experts", len(table))
        return
    rows = pd.DataFrame(
        {
            "num_tokens": table["tokens"],
            "hidden": model.hidden_size,
            "width": model.moe.expert_intermediate_size,
            "num_experts": model.moe.num_experts,
            "num_experts_per_token": model.moe.num_experts_per_token,
            "moe_tp": source.file.tp,
            "num_active_experts": table["activated_experts"],
            "part": "experts",
            "tp": source.file.tp,
        },
        index=table.index,
    )
    yield "moe", _common(source, rows, table["time_us"] * 1e-6)


def _older_attention(source: Source) -> Iterator[Part]:
    """Older profiler. Tables with head counts are of GPUs, and their kv_cache_size is the cache of the whole batch with
    the new tokens in it: time follows it and not its product with the batch. Tables without are of TPUs, and theirs is
    what each sequence has cached before.
    """
    model = _model(source)
    if model is None:
        return
    table = source.table
    of_batch = "n_q_head" in table
    batch, chunk, cache = table["batch_size"], table["prefill_chunk_size"], table["kv_cache_size"]
    new = chunk.where(table["is_prefill"], 1)
    history = cache / batch - new if of_batch else cache
    measured_s = table["us"] * 1e-6
    heads = _heads(model, source.file.tp, table.index).assign(num_seqs=batch, part="attention")
    possible = (history >= 0) & (new > 0)
    source.skip("attention", "the batch's cache holds less than a token of each sequence", int((~possible).sum()))
    prompts = table["is_prefill"] & possible
    if prompts.any():
        rows = heads.assign(new_tokens=new, history_tokens=history.round())[prompts]
        yield "attention_prefill", _common(source, rows, measured_s[prompts])
    decodes = ~table["is_prefill"] & possible
    if decodes.any():
        rows = heads.assign(context_tokens=history + 1.0)[decodes]
        yield "attention_decode", _common(source, rows, measured_s[decodes])


def _heads(model: ModelArchitecture, tp: int, index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "num_heads": max(model.num_heads // tp, 1),
            "num_kv_heads": max(model.num_kv_heads // tp, 1),
            "head_dim": model.head_dim,
            "tp": tp,
        },
        index=index,
    )


def _model(source: Source) -> ModelArchitecture | None:
    name = source.notes.get("model") or source.file.model
    model = source.names.architecture(name) if name else None
    if model is None:
        source.skip(name or "?", _UNKNOWN_MODEL, len(source.table))
    return model


def _device(source: Source) -> str:
    return source.names.device(source.notes["device"]) if "device" in source.notes else source.file.device


def _common(source: Source, rows: pd.DataFrame, measured_s: pd.Series) -> pd.DataFrame:
    name = source.notes.get("model") or source.file.model
    return rows.assign(
        measured_s=measured_s,
        device=_device(source),
        engine="vllm",
        engine_version=source.notes.get("engine_version", ""),
        timing="device",
        dtype="bf16",
        model=source.names.model(name),
    )


def _layout(
    name: str,
    operators: set[str],
    convert: object,
    whole: dict[str, float],
    times: tuple[str, ...],
    texts: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
) -> Layout:
    assert callable(convert)
    return Layout(
        name,
        frozenset(operators),
        convert,
        {**whole, **dict.fromkeys((*numbers, *times), 0.0)},
        whole=frozenset(whole),
        texts=frozenset(texts),
        flags=frozenset(flags),
    )


_PARTS: Final = {"gemm", "stream"}
_CALLS: Final = {"attention_prefill", "attention_decode", "attention_mixed"}
LAYOUTS: Final[tuple[Layout, ...]] = (
    _layout("llmservingsim dense", _PARTS, _dense, whole_numbers("tokens"), ("time_us",), ("layer",)),
    _layout("llmservingsim per sequence", _PARTS, _per_sequence, whole_numbers("sequences"), ("time_us",), ("layer",)),
    _layout(
        "llmservingsim attention",
        _CALLS,
        _attention,
        whole_numbers("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", least=0.0),
        ("time_us",),
    ),
    _layout(
        "llmservingsim skew",
        _CALLS,
        _skew,
        {**whole_numbers("n"), **whole_numbers("nb", "pc", "kp", least=0.0)},
        ("t_mean_us", "t_max_us", "t_skew_us"),
        numbers=("kv_big", "kv_mean"),
    ),
    _layout("llmservingsim moe", {"moe"}, _moe, whole_numbers("tokens", "activated_experts"), ("time_us",)),
    _layout(
        "llmservingsim layers (older)",
        _PARTS | {"attention_prefill"},
        _layers,
        whole_numbers("input"),
        ("ns",),
        ("layer_name",),
    ),
    _layout(
        "llmservingsim attention (older)",
        {"attention_prefill", "attention_decode"},
        _older_attention,
        {**whole_numbers("batch_size"), **whole_numbers("prefill_chunk_size", "kv_cache_size", least=0.0)},
        ("us",),
        flags=("is_prefill",),
    ),
)
