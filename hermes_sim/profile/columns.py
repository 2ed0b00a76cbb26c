"""Columns of the tables that measurements are written to: the public format, and a few tables of machine facts."""

from __future__ import annotations

from typing import Final

COMMON: Final = ("operator", "device", "engine", "engine_version", "timing", "kernel", "dtype")
"""engine: the library that ran it, numpy or torch."""

RESULTS: Final = ("measured_s", "fastest_s", "p90_s", "num_repeats")
"""measured_s is the median of the repeats, or the fastest where the provenance says so."""

HEADS: Final = ("num_heads", "num_kv_heads", "head_dim", "window_tokens", "kv_dtype")

OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    "gemm": ("m", "n", "k"),
    "attention_prefill": ("num_seqs", "new_tokens", "history_tokens", *HEADS),
    "attention_decode": ("num_seqs", "context_tokens", "max_context_tokens", *HEADS),
    "moe": (
        "num_tokens",
        "hidden",
        "width",
        "num_experts",
        "num_experts_per_token",
        "moe_tp",
        "moe_ep",
        "distribution",
        "num_active_experts",
    ),
    "stream": ("num_tokens", "num_bytes"),
    "all_reduce": ("num_devices", "num_bytes", "devices_per_node", "topology", "library"),
    "retrieval": (
        "index",
        "num_vectors",
        "dim",
        "nlist",
        "code_bytes",
        "code_bits",
        "links",
        "nprobe",
        "ef_search",
        "num_queries",
        "top_k",
        "num_threads",
        "metric",
        "num_distances",
        "num_hops",
        "recall",
    ),
}
"""Operator -> the columns of its shape, as cost models read them."""

FACTS: Final[dict[str, tuple[str, ...]]] = {
    "copy": ("num_bytes",),
    "launch": ("num_kernels",),
    "threads": ("num_threads", "num_bytes"),
    "power": ("power_w", "clock_hz", "work_per_s", "work_unit"),
}
"""Facts about a machine that are no operator of a model: kind or load in `kernel`. They have a folder of their own."""
FACTS_FOLDER: Final = "hardware"


def columns(operator: str) -> tuple[str, ...]:
    """All columns of one table, in the order they are written."""
    if operator in FACTS:
        return ("fact", *COMMON[1:], *FACTS[operator], *RESULTS)
    return (*COMMON, *OPERATORS[operator], *RESULTS)


def key_columns(operator: str) -> tuple[str, ...]:
    """What tells one measurement from another; results are left out, and how it came to be timed."""
    results = (
        *("timing", "engine_version", "power_w", "clock_hz", "work_per_s", "num_active_experts"),
        *("num_distances", "num_hops", "recall"),
    )
    return tuple(name for name in columns(operator) if name not in RESULTS and name not in results)
