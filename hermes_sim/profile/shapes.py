"""Which shapes are measured: those of public models and their tensor-parallel parts, within a bound of time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import numpy as np

from hermes_sim.profile.backend import ITEM_BYTES, Backend
from hermes_sim.profile.case import Case
from hermes_sim.profile.kernel_cases import decode_case, gemm_case, moe_case, prefill_case, stream_case

GEMM_KERNELS: Final = {"fp8": "scaled_mm", "int8": "int_mm"}
INT8_LEAST_ROWS = 32
"""cuBLAS takes no int8 product of fewer rows."""

GPU_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024, 2048, 4096, 8192)
GPU_WEIGHTS: Final = (
    (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096),
    (10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672), (5120, 8192), (8192, 4096), (28672, 8192),
    (2560, 8192), (8192, 2048), (14336, 8192), (8192, 7168), (1280, 8192), (8192, 1024), (7168, 8192), (8192, 3584),
    (7168, 5120), (5120, 5120), (34816, 5120), (5120, 17408), (2048, 2048), (3072, 3072), (1024, 4096), (512, 2048),
)  # fmt: skip
"""(n, k): layers of 8B, 14B and 70B models whole and in 2, 4 and 8 parts, and a few squares."""
GPU_HEADS: Final = ((32, 8, 128), (64, 8, 128), (16, 2, 128), (8, 1, 128), (40, 8, 128), (32, 32, 128), (32, 8, 64))
GPU_EXPERTS: Final = ((4096, 14336, 8, 2), (4096, 1536, 128, 8), (2048, 768, 128, 8), (2880, 2880, 32, 4))
"""hidden, width, experts, experts per token: Mixtral 8x7B, Qwen3 235B and 30B, gpt-oss 20B."""
GPU_PREFILL_FLOPS = 2e13
GPU_CACHE_BYTES = 6e9

CPU_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CPU_WEIGHTS: Final = (
    (512, 512), (1024, 1024), (2048, 2048), (4096, 4096), (3072, 1024), (1024, 4096), (6144, 4096), (768, 768),
    (3072, 768), (768, 3072), (2048, 8192), (8192, 2048), (4096, 1024), (1536, 6144), (5120, 1280), (14336, 2048),
    (2560, 2560), (1024, 512), (512, 2048), (2048, 512), (1280, 5120), (3584, 1792), (1792, 3584), (6144, 1536),
    (640, 640), (1920, 1280), (896, 4864), (4864, 896), (2304, 768), (1536, 1536),
)  # fmt: skip
CPU_HEADS: Final = ((8, 8, 64), (12, 12, 64), (8, 2, 128), (32, 8, 64), (4, 1, 128), (16, 16, 64), (16, 4, 128))
CPU_EXPERTS: Final = ((1024, 512, 8, 2), (512, 1024, 16, 4))
CPU_FLOPS = 1.2e10
"""Most operations of one call: a tenth of a second on a core or two."""
CPU_CACHE_BYTES = 3e8

STREAM_ROWS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384)
STREAM_WIDTHS: Final = (2048, 4096, 8192)
CPU_STREAM_BYTES = 2e8


def gemm_cases(backend: Backend, *, large: bool) -> list[Case]:
    """Products, every dtype that the library has."""
    rows, weights = (GPU_ROWS, GPU_WEIGHTS) if large else (CPU_ROWS, CPU_WEIGHTS)
    return [
        gemm_case(GEMM_KERNELS.get(dtype, "matmul"), dtype, m, n, k)
        for dtype, m, (n, k) in product(backend.gemm_dtypes, rows, weights)
        if (dtype != "int8" or m >= INT8_LEAST_ROWS) and (large or 2.0 * m * n * k <= CPU_FLOPS)
    ]


def prefill_cases(backend: Backend, *, large: bool) -> list[Case]:
    """Prompts with and without history."""
    lengths = (128, 512, 1024, 2048, 4096, 8192, 16384) if large else (32, 64, 128, 256, 512, 1024)
    batches = (1, 2, 4, 16) if large else (1, 2, 4)
    histories = (0, 1024, 4096, 16384) if large else (0, 256, 1024)
    kernel = "sdpa" if backend.name == "torch" else "numpy"
    most_flops = GPU_PREFILL_FLOPS if large else CPU_FLOPS / 8.0
    return [
        prefill_case(kernel, backend.dtype, num_seqs, new, history, heads)
        for heads, num_seqs, new, history in product(GPU_HEADS if large else CPU_HEADS, batches, lengths, histories)
        if 4.0 * heads[0] * heads[2] * num_seqs * new * (history + new / 2.0) <= most_flops
    ]


def decode_cases(backend: Backend, *, large: bool) -> list[Case]:
    """Equal contexts by the library's kernel, equal and mixed ones by the paged kernel."""
    contexts = (128, 512, 1024, 2048, 4096, 8192, 32768) if large else (64, 128, 256, 512, 1024, 2048, 4096)
    batches = (1, 2, 4, 8, 16, 32, 64, 128, 256) if large else (1, 2, 4, 8, 16, 32)
    most_bytes = GPU_CACHE_BYTES if large else CPU_CACHE_BYTES
    kernel = "sdpa" if backend.name == "torch" else "numpy"
    cases = []
    for heads, num_seqs, context in product(GPU_HEADS if large else CPU_HEADS, batches, contexts):
        if 2.0 * heads[1] * heads[2] * ITEM_BYTES[backend.dtype] * num_seqs * context > most_bytes:
            continue
        equal = [context] * num_seqs
        cases.append(decode_case(kernel, backend.dtype, equal, heads, paged=False))
        if large or (num_seqs in {1, 8} and heads == CPU_HEADS[-1]):
            cases.append(decode_case("paged", backend.dtype, equal, heads, paged=True))
        if large and num_seqs >= 8 and context <= 8192:
            cases.append(decode_case("paged", backend.dtype, mixed_contexts(num_seqs, context), heads, paged=True))
    return cases


def mixed_contexts(num_seqs: int, mean: int) -> list[int]:
    """Log-normal contexts about a mean, the longest several times the median."""
    drawn = np.random.default_rng(0).lognormal(-0.5, 1.0, num_seqs) * mean
    return [max(int(context), 1) for context in drawn]


def moe_cases(backend: Backend, *, large: bool) -> list[Case]:
    """Mixture-of-experts layers, tokens spread evenly and unevenly."""
    rows: tuple[int, ...]
    experts: tuple[tuple[int, int, int, int], ...]
    if large:
        rows, experts = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192), GPU_EXPERTS
    else:
        rows, experts = (1, 4, 16, 64, 256), CPU_EXPERTS
    kernel = "grouped_mm" if backend.name == "torch" else "matmul"
    cases = [
        moe_case(kernel, backend.dtype, num_tokens, shape, "uniform") for num_tokens, shape in product(rows, experts)
    ]
    skewed = [
        moe_case(kernel, backend.dtype, num_tokens, shape, "power_law_1.2")
        for num_tokens, shape in product(rows[::3], experts)
    ]
    return cases + skewed


def stream_cases(backend: Backend, *, large: bool) -> list[Case]:
    """Norms, activations, copies."""
    cases = []
    for num_tokens, width in product(STREAM_ROWS, STREAM_WIDTHS if large else STREAM_WIDTHS[::2]):
        if not large and 12.0 * num_tokens * width > CPU_STREAM_BYTES:
            continue
        for name, num_bytes in _stream_bytes(backend, width).items():
            cases.append(stream_case(name, backend.dtype, num_tokens, width, num_bytes * num_tokens))
    return cases


def _stream_bytes(backend: Backend, width: int) -> dict[str, float]:
    """Bytes that each kernel moves for one token."""
    return {name: num_bytes for name, (_, num_bytes) in backend.stream_kernels(1, width, backend.dtype).items()}


def all_cases(backend: Backend, *, large: bool) -> Sequence[list[Case]]:
    """Groups of cases, one a table and dtype."""
    products = gemm_cases(backend, large=large)
    by_dtype = [[case for case in products if case.dtype == dtype] for dtype in backend.gemm_dtypes]
    rest = (prefill_cases, decode_cases, moe_cases, stream_cases)
    return [*by_dtype, *(cases(backend, large=large) for cases in rest)]
