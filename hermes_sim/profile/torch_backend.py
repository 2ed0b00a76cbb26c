"""Measurements with PyTorch, on one or more GPUs, or on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from hermes_sim.core.errors import HermesError
from hermes_sim.profile.backend import Array, Call, DeviceKind, IntArray, PagedCache, Timing
from hermes_sim.profile.cpu_facts import cpu_facts, cpu_name, free_memory_bytes, last_level_cache_bytes
from hermes_sim.profile.numpy_backend import EPSILON, ROTARY_BASE, host_seconds, sort_by_expert

DTYPES: Final = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
FP8_CAPABILITY = (8, 9)
SHORTEST_SAMPLE_S = 5e-4
"""A sample lasts this long at least: the two events around it cost a few microseconds."""
MOST_CAPTURED_CALLS = 256
KEPT_BYTES = 8 * 2**30
"""Memory of dropped arrays and graphs that the allocator may keep."""


class TorchBackend:
    """Tensors on a GPU (timed by events around replays of a CUDA graph) or on the CPU (timed by the host's clock)."""

    def __init__(self, device: DeviceKind) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise HermesError("PyTorch finds no GPU; --device cpu measures the processor")
        self.name = "torch"
        self.on_gpu = device == "cuda"
        self.device = torch.device(device)
        self.captures = self.on_gpu
        self._generator = torch.Generator(self.device).manual_seed(0)
        self._one = torch.ones((), device=self.device)
        if not self.on_gpu:
            self.device_name = cpu_name()
            self.cache_bytes = last_level_cache_bytes()
            self.gemm_dtypes: tuple[str, ...] = ("fp32", "bf16")
            self.dtype = "fp32"
            return
        facts = torch.cuda.get_device_properties(0)
        self.device_name = facts.name
        self.cache_bytes = int(getattr(facts, "L2_cache_size", 64 * 2**20))
        fp8 = ("fp8",) if torch.cuda.get_device_capability(0) >= FP8_CAPABILITY else ()
        self.gemm_dtypes = ("bf16", *fp8, "int8", "fp16")
        self.dtype = "bf16"

    def versions(self) -> dict[str, str]:
        found = {"torch": torch.__version__, "numpy": np.__version__, "cuda": torch.version.cuda or ""}
        if self.on_gpu:
            found["cudnn"] = str(torch.backends.cudnn.version())
            found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        try:
            import triton

            found["triton"] = triton.__version__
        except ImportError:
            pass
        return found

    def machine(self) -> dict[str, object]:
        if not self.on_gpu:
            return {**cpu_facts(), "num_threads": torch.get_num_threads()}
        facts = torch.cuda.get_device_properties(0)
        return {
            **cpu_facts(),
            "gpu": facts.name,
            "num_gpus": torch.cuda.device_count(),
            "gpu_memory_bytes": facts.total_memory,
            "num_multiprocessors": facts.multi_processor_count,
            "compute_capability": f"{facts.major}.{facts.minor}",
            "l2_cache_bytes": self.cache_bytes,
        }

    def free_bytes(self) -> int:
        if not self.on_gpu:
            return free_memory_bytes()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + int(kept)

    def release(self) -> None:
        if self.on_gpu and torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > KEPT_BYTES:
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def random(self, shape: Sequence[int], dtype: str) -> Array:
        if DTYPES[dtype] == torch.int8:
            return torch.randint(
                -128, 128, tuple(shape), generator=self._generator, device=self.device, dtype=torch.int8
            )
        wide = torch.float32 if dtype == "fp32" else torch.bfloat16
        values = torch.randn(tuple(shape), generator=self._generator, device=self.device, dtype=wide)
        return values.to(DTYPES[dtype])

    def integers(self, values: npt.ArrayLike) -> Array:
        return torch.as_tensor(np.array(values, np.int64)).to(self.device)

    def assign(self, target: Array, values: npt.ArrayLike) -> None:
        target.copy_(torch.as_tensor(np.asarray(values, np.int64)))

    def to_host(self, array: Array) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = array.detach().cpu().numpy()
        return found

    def capture(self, call: Call) -> Call:
        if not self.on_gpu:
            return call
        self._warm_up([call])
        return self._captured(call)

    def _captured(self, call: Call) -> Call:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        replay: Call = graph.replay
        return replay

    def measure(self, calls: Sequence[Call], *, num_repeats: int, budget_s: float, graph: bool) -> Timing:
        if not self.on_gpu:
            return Timing(host_seconds(calls, num_repeats, budget_s), "eager")
        self._warm_up(calls)
        one_s = self._host_round(calls)
        num_rounds = max(1, min(math.ceil(SHORTEST_SAMPLE_S / one_s), MOST_CAPTURED_CALLS // len(calls)))
        num_calls = num_rounds * len(calls)

        def run_all() -> None:
            for _ in range(num_rounds):
                for call in calls:
                    call()

        if not graph:
            return Timing([self._host_round([run_all]) / num_calls for _ in range(num_repeats)], "eager")
        replay = self._captured(run_all)
        replay()
        end_s = perf_counter() + budget_s
        samples: list[float] = []
        while len(samples) < num_repeats and (len(samples) < 3 or perf_counter() < end_s):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            replay()
            end.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(end) * 1e-3 / num_calls)
        return Timing(samples, "graph")

    def _warm_up(self, calls: Sequence[Call]) -> None:
        """Twice, on a stream of its own, as capturing asks for: kernels are loaded, workspaces allocated."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for call in [*calls, calls[0]]:
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()

    def _host_round(self, calls: Sequence[Call]) -> float:
        self.synchronize()
        start_s = perf_counter()
        for call in calls:
            call()
        self.synchronize()
        return perf_counter() - start_s

    def linear(self, num_outputs: int, num_inputs: int, dtype: str) -> Array:
        return self.random((num_outputs, num_inputs), dtype)

    def activations(self, num_rows: int, num_columns: int, dtype: str) -> Array:
        return self.random((num_rows, num_columns), dtype)

    def product(self, activations: Array, weight: Array, dtype: str) -> Array:
        if dtype == "fp8":
            return torch._scaled_mm(
                activations,
                weight.t(),
                scale_a=self._one,
                scale_b=self._one,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        if dtype == "int8":
            return torch._int_mm(activations, weight.t())
        return functional.linear(activations, weight)

    def attend(self, queries: Array, keys: Array, values: Array) -> Array:
        new_tokens, context = queries.shape[2], keys.shape[2]
        mask = causal_lower_right(new_tokens, context) if 1 < new_tokens < context else None

        def call() -> Array:
            return functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=1 < new_tokens == context, enable_gqa=True
            )

        if not self.on_gpu:
            return call()
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return call()

    def attend_paged(self, queries: Array, cache: PagedCache, block_tables: Array, context_tokens: Array) -> Array:
        if self.on_gpu:
            from hermes_sim.profile.paged_decode import paged_decode

            return paged_decode(queries, cache.keys, cache.values, block_tables, context_tokens)
        rows = []
        for seq, num_tokens in enumerate(context_tokens.tolist()):
            keys, values = self.read_paged(cache, block_tables[seq], num_tokens)
            rows.append(self.attend(queries[seq][None, :, None], keys, values)[0, :, 0])
        return torch.stack(rows)

    def read_paged(self, cache: PagedCache, blocks: Array, num_tokens: int) -> tuple[Array, Array]:
        used = blocks[: -(-num_tokens // cache.keys.shape[1])]
        keys, values = (
            kept[used].flatten(0, 1)[:num_tokens].transpose(0, 1)[None] for kept in (cache.keys, cache.values)
        )
        return keys, values

    def write_paged(self, cache: PagedCache, slots: Array, keys: Array, values: Array) -> None:
        cache.keys.flatten(0, 1).index_copy_(0, slots, keys)
        cache.values.flatten(0, 1).index_copy_(0, slots, values)

    def experts(self, tokens: Array, gate_up: Array, down: Array, routing: Array) -> Array:
        order, source, ends, share = routing
        middle = self.silu_and_multiply(self._grouped(tokens[source], gate_up, ends))
        out = self._grouped(middle, down, ends)
        returned = torch.empty_like(out).index_copy_(0, order, out)
        return returned.view(tokens.shape[0], share, -1).mean(dim=1)

    def _grouped(self, rows: Array, weights: Array, ends: Array) -> Array:
        if self.on_gpu:
            return torch._grouped_mm(rows, weights, offs=ends)
        bounds = [0, *ends.tolist()]
        parts = [rows[first:last] @ weights[e] for e, (first, last) in enumerate(pairwise(bounds))]
        return torch.cat(parts)

    def expert_weights(self, num_experts: int, hidden: int, width: int, dtype: str) -> tuple[Array, Array]:
        gate_up = self.random((num_experts, 2 * width, hidden), dtype).transpose(1, 2)
        return gate_up, self.random((num_experts, hidden, width), dtype).transpose(1, 2)

    def route(self, assignment: IntArray, num_experts: int) -> Array:
        order, ends = sort_by_expert(assignment, num_experts)
        share = assignment.shape[1]
        last_rows = torch.as_tensor(ends.astype(np.int32)).to(self.device)
        return self.integers(order), self.integers(order // share), last_rows, share

    def stream_kernels(self, num_tokens: int, width: int, dtype: str) -> dict[str, tuple[Call, float]]:
        x, y, out = (self.random((num_tokens, width), dtype) for _ in range(3))
        weight = self.random((width,), dtype)
        moved = float(x.numel() * x.element_size())
        return {
            "copy": (lambda: out.copy_(x), 2.0 * moved),
            "add": (lambda: torch.add(x, y, out=out), 3.0 * moved),
            "rms_norm": (lambda: self.rms_norm(x, weight), 2.0 * moved),
            "silu": (lambda: functional.silu(x), 2.0 * moved),
            "softmax": (lambda: torch.softmax(x, dim=-1), 2.0 * moved),
        }

    def copies(self, num_bytes: int) -> dict[str, Call]:
        source = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        found: dict[str, Call] = {"device_to_device": lambda: target.copy_(source)}
        if not self.on_gpu:
            return found
        pinned = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8).pin_memory()
        found["host_to_device"] = lambda: target.copy_(pinned, non_blocking=True)
        found["device_to_host"] = lambda: pinned.copy_(source, non_blocking=True)
        if torch.cuda.device_count() > 1:
            other = torch.empty_like(source, device="cuda:1")
            found["peer_to_peer"] = lambda: other.copy_(source, non_blocking=True)
        return found

    def collectives(self, num_bytes: int) -> dict[int, Call]:
        found: dict[int, Call] = {}
        num_devices = 2
        while self.on_gpu and num_devices <= torch.cuda.device_count():
            parts = [
                torch.randn(num_bytes // 2, dtype=torch.bfloat16, device=f"cuda:{device}")
                for device in range(num_devices)
            ]
            found[num_devices] = lambda parts=parts: torch.cuda.nccl.all_reduce(parts)  # type: ignore[misc]
            num_devices *= 2
        return found

    def small_kernel(self) -> Call:
        x = torch.zeros(16, device=self.device)
        return lambda: x.add_(1.0)

    def rms_norm(self, x: Array, weight: Array) -> Array:
        return functional.rms_norm(x, (x.shape[-1],), weight, EPSILON)

    def silu_and_multiply(self, x: Array) -> Array:
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up

    def rotate(self, x: Array, positions: Array) -> Array:
        half = x.shape[-1] // 2
        steps = torch.arange(half, device=self.device, dtype=torch.float32) / half
        angles = positions[:, None].float() * ROTARY_BASE**-steps
        cosine, sine = (values[:, None, :].to(x.dtype) for values in (angles.cos(), angles.sin()))
        left, right = x.chunk(2, dim=-1)
        return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)

    def embed(self, table: Array, tokens: Array) -> Array:
        return functional.embedding(tokens, table)

    def largest(self, logits: Array) -> Array:
        return logits.argmax(dim=-1)
