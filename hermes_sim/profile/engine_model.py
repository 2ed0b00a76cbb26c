"""The forward pass of the reference loop: one step of a batch over a paged KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hermes_sim.profile.backend import Array, Backend, Call, IntArray, PagedCache
from hermes_sim.profile.engine_shape import ModelShape

WEIGHT_SCALE = 0.02
"""Standard deviation of random weights: activations stay in range through all layers."""
NULL_BLOCK = 0
"""Where padded rows of a captured batch write; no sequence owns it."""


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A chunk of one prompt: rows of the step, tokens before it, blocks of its sequence."""

    first_row: int
    num_tokens: int
    history_tokens: int
    blocks: Array


@dataclass(frozen=True, slots=True)
class StepInput:
    """Arrays of one step; decodes come first, one row each, then the prompt chunks."""

    tokens: Array
    positions: Array
    slots: Array
    num_decode: int
    block_tables: Array
    """[num_decode, max_blocks]"""
    context_tokens: Array
    prompts: tuple[PromptPart, ...]
    sampled_rows: Array | None
    """Rows whose next token is wanted; None: all, as in a step of decodes alone."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer."""

    qkv: Array
    out: Array
    gate_up: Array
    down: Array
    attention_norm: Array
    mlp_norm: Array


class Transformer:
    """Random weights and the KV cache of all layers."""

    def __init__(self, backend: Backend, shape: ModelShape, num_blocks: int, block_tokens: int) -> None:
        self.backend = backend
        self.shape = shape
        self.block_tokens = block_tokens
        heads = shape.num_heads + 2 * shape.num_kv_heads
        self._embedding = backend.random((shape.vocabulary, shape.hidden), backend.dtype)
        self._logits = self._weight(shape.vocabulary, shape.hidden)
        self._norm = self._gain()
        self._layers = [
            LayerWeights(
                qkv=self._weight(heads * shape.head_dim, shape.hidden),
                out=self._weight(shape.hidden, shape.num_heads * shape.head_dim),
                gate_up=self._weight(2 * shape.width, shape.hidden),
                down=self._weight(shape.hidden, shape.width),
                attention_norm=self._gain(),
                mlp_norm=self._gain(),
            )
            for _ in range(shape.num_layers)
        ]
        cache_shape = (num_blocks + 1, block_tokens, shape.num_kv_heads, shape.head_dim)
        self._caches = [
            PagedCache(backend.random(cache_shape, backend.dtype), backend.random(cache_shape, backend.dtype))
            for _ in range(shape.num_layers)
        ]

    def step(self, batch: StepInput) -> Array:
        """Next tokens of the rows that want one."""
        backend, dtype = self.backend, self.backend.dtype
        x = backend.embed(self._embedding, batch.tokens)
        for layer, cache in zip(self._layers, self._caches, strict=True):
            normed = backend.rms_norm(x, layer.attention_norm)
            attended = self._attention(backend.product(normed, layer.qkv, dtype), cache, batch)
            x = x + backend.product(attended, layer.out, dtype)
            normed = backend.rms_norm(x, layer.mlp_norm)
            middle = backend.silu_and_multiply(backend.product(normed, layer.gate_up, dtype))
            x = x + backend.product(middle, layer.down, dtype)
        wanted = x if batch.sampled_rows is None else x[batch.sampled_rows]
        return backend.largest(backend.product(backend.rms_norm(wanted, self._norm), self._logits, dtype))

    def _attention(self, qkv: Array, cache: PagedCache, batch: StepInput) -> Array:
        shape, backend = self.shape, self.backend
        num_rows = qkv.shape[0]
        heads = qkv.reshape(num_rows, -1, shape.head_dim)
        queries = backend.rotate(heads[:, : shape.num_heads], batch.positions)
        keys = backend.rotate(heads[:, shape.num_heads : -shape.num_kv_heads], batch.positions)
        backend.write_paged(cache, batch.slots, keys, heads[:, -shape.num_kv_heads :])
        out = queries
        num_decode = batch.num_decode
        if num_decode:
            found = backend.attend_paged(queries[:num_decode], cache, batch.block_tables, batch.context_tokens)
            if not batch.prompts:
                return found.reshape(num_rows, -1)
            out[:num_decode] = found
        for part in batch.prompts:
            rows = slice(part.first_row, part.first_row + part.num_tokens)
            known, values = backend.read_paged(cache, part.blocks, part.history_tokens + part.num_tokens)
            asked = queries[rows].swapaxes(0, 1)[None]
            out[rows] = backend.attend(asked, known, values)[0].swapaxes(0, 1)
        return out.reshape(num_rows, -1)

    def _weight(self, num_outputs: int, num_inputs: int) -> Array:
        weight = self.backend.linear(num_outputs, num_inputs, self.backend.dtype)
        weight *= WEIGHT_SCALE
        return weight

    def _gain(self) -> Array:
        gain = self.backend.random((self.shape.hidden,), self.backend.dtype)
        gain[...] = 1.0
        return gain


class CapturedDecode:
    """Steps of decodes alone as graphs, one per padded batch size, over arrays that stay where they are."""

    def __init__(self, model: Transformer, sizes: tuple[int, ...], max_blocks: int) -> None:
        self._backend = model.backend
        self._sizes = sizes
        largest = sizes[-1]
        whole = self._backend.integers
        self._tokens, self._positions = whole(np.zeros(largest)), whole(np.zeros(largest))
        self._slots, self._contexts = whole(np.zeros(largest)), whole(np.ones(largest))
        self._tables = whole(np.zeros((largest, max_blocks)))
        self._graphs = {size: self._capture(model, size) for size in reversed(sizes)}

    @property
    def largest(self) -> int:
        """The largest batch that is captured."""
        return self._sizes[-1]

    def step(
        self, tokens: IntArray, positions: IntArray, slots: IntArray, tables: IntArray, contexts: IntArray
    ) -> tuple[Array, int]:
        """Next tokens of the padded batch, and its size: padded rows read and write the null block."""
        size = next(size for size in self._sizes if size >= len(tokens))
        padding = size - len(tokens)
        self._backend.assign(self._tokens[:size], np.pad(tokens, (0, padding)))
        self._backend.assign(self._positions[:size], np.pad(positions, (0, padding)))
        self._backend.assign(self._slots[:size], np.pad(slots, (0, padding), constant_values=NULL_BLOCK))
        self._backend.assign(self._contexts[:size], np.pad(contexts, (0, padding), constant_values=1))
        self._backend.assign(self._tables[:size], np.pad(tables, ((0, padding), (0, 0)), constant_values=NULL_BLOCK))
        replay, out = self._graphs[size]
        replay()
        return out[0], size

    def _capture(self, model: Transformer, size: int) -> tuple[Call, list[Array]]:
        batch = StepInput(
            self._tokens[:size], self._positions[:size], self._slots[:size], size, self._tables[:size],
            self._contexts[:size], (), None,
        )  # fmt: skip
        out: list[Array] = [None]

        def call() -> None:
            out[0] = model.step(batch)

        return self._backend.capture(call), out


def slots_of(blocks: IntArray, positions: npt.NDArray[np.int64], block_tokens: int) -> IntArray:
    """Places in the flat cache of some positions of a sequence."""
    return np.asarray(blocks[positions // block_tokens] * block_tokens + positions % block_tokens, np.int64)
