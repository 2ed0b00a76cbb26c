"""Measurements with NumPy and its BLAS, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import perf_counter, process_time
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from hermes_sim.profile.backend import Array, Call, IntArray, PagedCache, Timing
from hermes_sim.profile.cpu_facts import cpu_facts, cpu_name, free_memory_bytes, last_level_cache_bytes, num_cpus

Clock = Literal["wall", "cpu"]
CLOCK_WORDS: Final[dict[Clock, str]] = {
    "wall": "wall",
    "cpu": "CPU seconds of the process over its threads: what other processes took is left out",
}
FloatArray = npt.NDArray[np.float32]

QUERY_ROWS = 256
"""Queries worked on at once: their scores stay in the cache for usual contexts."""
CHUNK_ITEMS = 32_768
"""Items of a stream worked on at once: the intermediate of a triad stays in a core's own cache."""
DISTINCT_VALUES = 1 << 20
"""Random values that large operands repeat: drawing more would take longer than measuring."""
EPSILON = 1e-6
ROTARY_BASE = 500_000.0
SHORTEST_SAMPLE_S = 2e-3
"""A sample repeats its calls until it lasts this long: the clock and its call are then below a thousandth."""


class NumpyBackend:
    """fp32 arrays; products by the BLAS that NumPy was built with, on all cores."""

    def __init__(self, clock: Clock = "wall") -> None:
        self.name = "numpy"
        self.clock: Clock = clock
        self.num_threads = num_blas_threads()
        self.device_name = cpu_name()
        self.cache_bytes = last_level_cache_bytes()
        self.gemm_dtypes: tuple[str, ...] = ("fp32",)
        self.dtype = "fp32"
        self.captures = False
        self._random = np.random.default_rng(0)
        self._threads = ThreadPoolExecutor(num_cpus())

    def versions(self) -> dict[str, str]:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"numpy": np.__version__, "blas": f"{blas['name']} {blas['version']}"}

    def machine(self) -> dict[str, object]:
        return {**cpu_facts(), "num_threads": self.num_threads, "clock": CLOCK_WORDS[self.clock]}

    def free_bytes(self) -> int:
        return free_memory_bytes()

    def release(self) -> None:
        """Nothing to do: arrays are freed when they are dropped."""

    def synchronize(self) -> None:
        """Nothing to do: calls return when they are done."""

    def random(self, shape: Sequence[int], dtype: str) -> Array:
        out = np.empty(tuple(shape), np.float32)
        flat = out.reshape(-1)
        values = self._random.standard_normal(min(flat.size, DISTINCT_VALUES), dtype=np.float32)
        for first in range(0, flat.size, DISTINCT_VALUES):
            part = flat[first : first + DISTINCT_VALUES]
            part[...] = values[: part.size]
        return out

    def integers(self, values: npt.ArrayLike) -> Array:
        return np.array(values, np.int64)

    def assign(self, target: Array, values: npt.ArrayLike) -> None:
        target[...] = values

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def capture(self, call: Call) -> Call:
        return call

    def measure(self, calls: Sequence[Call], *, num_repeats: int, budget_s: float, graph: bool) -> Timing:
        return Timing(host_seconds(calls, num_repeats, budget_s, self.clock, self.num_threads), "eager")

    def linear(self, num_outputs: int, num_inputs: int, dtype: str) -> Array:
        return self.random((num_inputs, num_outputs), dtype)  # OpenBLAS packs this order half as fast again

    def activations(self, num_rows: int, num_columns: int, dtype: str) -> Array:
        return self.random((num_rows, num_columns), dtype)

    def product(self, activations: Array, weight: Array, dtype: str) -> Array:
        return activations @ weight

    def attend(self, queries: Array, keys: Array, values: Array) -> Array:
        num_seqs, num_heads, new_tokens, head_dim = queries.shape
        num_kv_heads, context = keys.shape[1:3]
        group = num_heads // num_kv_heads
        out = np.empty_like(queries)
        for seq in range(num_seqs):
            for head in range(num_heads):
                kv_head = head // group
                for first in range(0, new_tokens, QUERY_ROWS):
                    last = min(first + QUERY_ROWS, new_tokens)
                    seen = context - new_tokens + last
                    scores = queries[seq, head, first:last] @ keys[seq, kv_head, :seen].T
                    scores *= head_dim**-0.5
                    _hide_future(scores, context - new_tokens + first)
                    out[seq, head, first:last] = _softmax(scores) @ values[seq, kv_head, :seen]
        return out

    def attend_paged(self, queries: Array, cache: PagedCache, block_tables: Array, context_tokens: Array) -> Array:
        num_seqs, num_heads, head_dim = queries.shape
        num_kv_heads = cache.keys.shape[2]
        grouped = queries.reshape(num_seqs, num_kv_heads, num_heads // num_kv_heads, head_dim)
        out = np.empty_like(grouped)
        for seq in range(num_seqs):
            keys, values = self.read_paged(cache, block_tables[seq], int(context_tokens[seq]))
            scores = grouped[seq] @ keys[0].transpose(0, 2, 1) * np.float32(head_dim**-0.5)
            out[seq] = _softmax(scores) @ values[0]
        return out.reshape(queries.shape)

    def read_paged(self, cache: PagedCache, blocks: Array, num_tokens: int) -> tuple[Array, Array]:
        block_tokens = cache.keys.shape[1]
        used = blocks[: -(-num_tokens // block_tokens)]
        found = (kept[used].reshape(-1, *kept.shape[2:])[:num_tokens] for kept in (cache.keys, cache.values))
        keys, values = (np.ascontiguousarray(kept.transpose(1, 0, 2))[None] for kept in found)
        return keys, values

    def write_paged(self, cache: PagedCache, slots: Array, keys: Array, values: Array) -> None:
        for kept, new in ((cache.keys, keys), (cache.values, values)):
            kept.reshape(-1, *kept.shape[2:])[slots] = new

    def experts(self, tokens: Array, gate_up: Array, down: Array, routing: Array) -> Array:
        order, ends, share = routing
        gathered = tokens[order // share]
        out = np.empty_like(gathered)
        first = 0
        for expert, last in enumerate(ends):
            if last > first:
                middle = self.silu_and_multiply(gathered[first:last] @ gate_up[expert])
                out[first:last] = middle @ down[expert]
            first = last
        returned = np.empty_like(out)
        returned[order] = out
        return returned.reshape(len(tokens), share, -1).mean(axis=1)

    def expert_weights(self, num_experts: int, hidden: int, width: int, dtype: str) -> tuple[Array, Array]:
        return self.random((num_experts, hidden, 2 * width), dtype), self.random((num_experts, width, hidden), dtype)

    def route(self, assignment: IntArray, num_experts: int) -> Array:
        order, ends = sort_by_expert(assignment, num_experts)
        return order, ends.tolist(), assignment.shape[1]

    def stream_kernels(self, num_tokens: int, width: int, dtype: str) -> dict[str, tuple[Call, float]]:
        x, y, out = (self.random((num_tokens, width), dtype) for _ in range(3))
        weight, halves = self.random((width,), dtype), self.random((num_tokens, 2 * width), dtype)
        moved = float(x.nbytes)
        return {
            "copy": (lambda: self.in_threads(self.num_threads, copy_chunk, x, out), 2.0 * moved),
            "triad": (lambda: self.in_threads(self.num_threads, triad_chunk, x, out, y), 3.0 * moved),
            "add": (lambda: np.add(x, y, out=out), 3.0 * moved),
            "rms_norm": (lambda: self.rms_norm(x, weight), 2.0 * moved),
            "silu_and_multiply": (lambda: self.silu_and_multiply(halves), 3.0 * moved),
        }

    def in_threads(self, num_threads: int, chunk: Callable[..., None], *arrays: Array) -> None:
        """Run `chunk` over equal parts of flat views of the arrays, one part a thread."""
        flat = [array.reshape(-1) for array in arrays]
        if num_threads == 1:
            chunk(*flat)
            return
        bounds = np.linspace(0, flat[0].size, num_threads + 1, dtype=np.int64).tolist()
        parts = [[array[first:last] for array in flat] for first, last in pairwise(bounds)]
        list(self._threads.map(lambda part: chunk(*part), parts))

    def copies(self, num_bytes: int) -> dict[str, Call]:
        source, target = (self.random((max(num_bytes // 4, 1),), "fp32") for _ in range(2))
        return {"device_to_device": lambda: self.in_threads(self.num_threads, copy_chunk, source, target)}

    def collectives(self, num_bytes: int) -> dict[int, Call]:
        return {}

    def small_kernel(self) -> Call:
        x = np.zeros(16, np.float32)
        return lambda: np.add(x, x, out=x)

    def rms_norm(self, x: Array, weight: Array) -> Array:
        mean = np.einsum("ij,ij->i", x, x) / np.float32(x.shape[-1])
        return x * (1.0 / np.sqrt(mean + np.float32(EPSILON)))[:, None] * weight

    def silu_and_multiply(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        gate = x[..., :half]
        share = np.tanh(gate * np.float32(0.5))  # the logistic function without its overflow
        share += 1.0
        share *= np.float32(0.5)
        share *= gate
        return share * x[..., half:]

    def rotate(self, x: Array, positions: Array) -> Array:
        half = x.shape[-1] // 2
        angles = positions[:, None].astype(np.float32) * ROTARY_BASE ** (-np.arange(half, dtype=np.float32) / half)
        cosine, sine = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
        left, right = x[..., :half], x[..., half:]
        return np.concatenate((left * cosine - right * sine, right * cosine + left * sine), axis=-1)

    def embed(self, table: Array, tokens: Array) -> Array:
        return table[tokens]

    def largest(self, logits: Array) -> Array:
        return logits.argmax(axis=-1)


def num_blas_threads() -> int:
    """Threads of OpenBLAS, MKL or OpenMP as their variables say; all cores if they say nothing."""
    stated = [os.environ.get(name, "") for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")]
    return min([int(text) for text in stated if text.isdigit() and int(text) > 0], default=num_cpus())


def host_seconds(
    calls: Sequence[Call], num_repeats: int, budget_s: float, clock: Clock = "wall", num_threads: int = 1
) -> list[float]:
    """Seconds per call by the host's clock, of calls that return when they are done; three samples at least."""
    read = perf_counter if clock == "wall" else process_time
    per_call = 1.0 if clock == "wall" else 1.0 / num_threads
    start_s = perf_counter()
    for call in calls[:2]:
        call()
    one_s = (perf_counter() - start_s) / min(len(calls), 2)
    num_rounds = max(1, int(SHORTEST_SAMPLE_S / max(one_s * len(calls), 1e-9)))
    samples: list[float] = []
    end_s = perf_counter() + budget_s
    while len(samples) < num_repeats and (len(samples) < 3 or perf_counter() < end_s):
        start_s = read()
        for _ in range(num_rounds):
            for call in calls:
                call()
        samples.append((read() - start_s) * per_call / (num_rounds * len(calls)))
    return samples


def sort_by_expert(assignment: IntArray, num_experts: int) -> tuple[IntArray, IntArray]:
    """(token, choice) pairs in the order of their experts, and where each expert's pairs end."""
    chosen = assignment.reshape(-1)
    return np.argsort(chosen, kind="stable"), np.cumsum(np.bincount(chosen, minlength=num_experts))


def copy_chunk(source: FloatArray, target: FloatArray) -> None:
    """STREAM copy (McCalpin 1995): 8 bytes an item."""
    np.copyto(target, source)


def triad_chunk(source: FloatArray, target: FloatArray, other: FloatArray) -> None:
    """STREAM triad (McCalpin 1995), target = source + 3 other: 12 bytes an item, by pieces that stay in the cache."""
    for first in range(0, source.size, CHUNK_ITEMS):
        part = slice(first, first + CHUNK_ITEMS)
        np.multiply(other[part], np.float32(3.0), out=target[part])
        np.add(target[part], source[part], out=target[part])


def _hide_future(scores: FloatArray, num_before: int) -> None:
    """Scores of keys after their query become minus infinity; row 0 sees `num_before` keys and its own."""
    rows = scores.shape[0]
    corner = scores[:, num_before:]
    corner[np.triu(np.ones((rows, corner.shape[1]), bool), 1)] = -np.inf


def _softmax(scores: FloatArray) -> FloatArray:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores
