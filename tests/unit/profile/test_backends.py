"""Operators against plain references in double precision; PyTorch against NumPy where it is installed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pytest

from hermes_sim.profile.backend import Array, Backend, PagedCache
from hermes_sim.profile.kernel_cases import assign_experts
from hermes_sim.profile.numpy_backend import NumpyBackend

FloatArray = npt.NDArray[np.float64]
BACKENDS = ["numpy", pytest.param("torch", marks=pytest.mark.skipif(find_spec("torch") is None, reason="no PyTorch"))]
RANDOM = np.random.default_rng(3)


def backend_of(name: str) -> Backend:
    if name == "numpy":
        return NumpyBackend()
    from hermes_sim.profile.torch_backend import TorchBackend

    return TorchBackend("cpu")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_of(request.param)


def loader(backend: Backend) -> Callable[[npt.NDArray[np.float64]], Array]:
    """Host values as arrays of the backend, in single precision."""

    def load(values: npt.NDArray[np.float64]) -> Array:
        single = values.astype(np.float32)
        if backend.name == "numpy":
            return single
        import torch

        return torch.as_tensor(single)

    return load


def attention(queries: FloatArray, keys: FloatArray, values: FloatArray) -> FloatArray:
    """One head: queries [new, dim] at the end of keys [context, dim]."""
    scores = queries @ keys.T / math.sqrt(queries.shape[1])
    new, context = scores.shape
    scores[np.arange(context)[None, :] > np.arange(new)[:, None] + context - new] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True) @ values)


@pytest.mark.parametrize(("new", "context"), [(1, 1), (1, 40), (7, 7), (5, 40), (300, 700)])
def test_prompt_attention_is_causal_over_history(backend: Backend, new: int, context: int) -> None:
    queries = RANDOM.standard_normal((2, 4, new, 8))
    keys, values = RANDOM.standard_normal((2, 2, 2, context, 8))
    load = loader(backend)
    found = backend.to_host(backend.attend(load(queries), load(keys), load(values)))
    for seq in range(2):
        for head in range(4):
            expected = attention(queries[seq, head], keys[seq, head // 2], values[seq, head // 2])
            assert found[seq, head] == pytest.approx(expected, abs=2e-5)


def paged(load: Callable[[FloatArray], Array], contexts: list[int]) -> tuple[FloatArray, FloatArray, FloatArray, Array]:
    """Queries, keys and values in a cache of 4-token blocks in disorder, and the block tables."""
    queries = RANDOM.standard_normal((len(contexts), 4, 16))
    keys, values = RANDOM.standard_normal((2, 40, 4, 2, 16))
    tables = RANDOM.permutation(39)[: len(contexts) * 10].reshape(len(contexts), 10) + 1
    return queries, keys, values, tables


def expected_paged(
    queries: FloatArray, keys: FloatArray, values: FloatArray, tables: Array, contexts: list[int]
) -> FloatArray:
    out = np.empty_like(queries)
    for seq, context in enumerate(contexts):
        flat_keys, flat_values = (kept[tables[seq]].reshape(40, 2, 16)[:context] for kept in (keys, values))
        for head in range(4):
            mine = attention(queries[seq, head][None], flat_keys[:, head // 2], flat_values[:, head // 2])
            out[seq, head] = mine[0]
    return out


def test_paged_decode_reads_the_blocks_of_each_sequence(backend: Backend) -> None:
    contexts = [1, 17, 40]
    load = loader(backend)
    queries, keys, values, tables = paged(load, contexts)
    cache = PagedCache(load(keys), load(values))
    found = backend.attend_paged(load(queries), cache, backend.integers(tables), backend.integers(contexts))
    assert backend.to_host(found) == pytest.approx(expected_paged(queries, keys, values, tables, contexts), abs=2e-5)


@pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1", reason="no Triton, or not interpreted"
)
def test_the_triton_kernel_agrees_in_its_interpreter() -> None:
    from hermes_sim.profile.paged_decode import choose_splits, paged_decode

    contexts = [1, 17, 40]
    load = loader(backend_of("torch"))
    queries, keys, values, tables = paged(load, contexts)
    whole = backend_of("torch").integers
    found = paged_decode(load(queries), load(keys), load(values), whole(tables), whole(contexts))
    assert found.numpy() == pytest.approx(expected_paged(queries, keys, values, tables, contexts), abs=2e-5)
    assert [choose_splits(rows, 132) for rows in (1, 8, 64, 4096)] == [32, 32, 8, 1]


def test_what_is_written_to_the_cache_is_read_back(backend: Backend) -> None:
    load = loader(backend)
    keys, values = RANDOM.standard_normal((2, 6, 2, 16))
    cache = PagedCache(load(np.zeros((5, 4, 2, 16))), load(np.zeros((5, 4, 2, 16))))
    blocks = np.array([3, 1])
    positions = np.arange(6)
    backend.write_paged(cache, backend.integers(blocks[positions // 4] * 4 + positions % 4), load(keys), load(values))
    found = backend.read_paged(cache, backend.integers(blocks), 6)
    for read, written in zip(found, (keys, values), strict=True):
        assert backend.to_host(read)[0].transpose(1, 0, 2) == pytest.approx(written, abs=1e-6)


def test_experts_are_those_of_each_token(backend: Backend) -> None:
    load = loader(backend)
    tokens = RANDOM.standard_normal((10, 8))
    gate_up, down = RANDOM.standard_normal((4, 8, 12)), RANDOM.standard_normal((4, 6, 8))
    assignment = assign_experts(10, 4, 2, "power_law_1.2")
    found = backend.experts(load(tokens), load(gate_up), load(down), backend.route(assignment, 4))
    expected = np.zeros_like(tokens)
    for token, chosen in enumerate(assignment):
        for expert in chosen:
            gate, up = np.split(tokens[token] @ gate_up[expert], 2)
            expected[token] += 0.5 * (gate / (1 + np.exp(-gate)) * up) @ down[expert]
    assert backend.to_host(found) == pytest.approx(expected, abs=1e-4)


def test_rotary_scores_depend_on_distance_alone(backend: Backend) -> None:
    """Su et al., RoFormer (arXiv 2104.09864), equation 11."""
    load = loader(backend)
    query, key = (load(np.broadcast_to(RANDOM.standard_normal((1, 1, 16)), (4, 1, 16)).copy()) for _ in range(2))
    near = backend.to_host(backend.rotate(query, backend.integers([5, 6, 105, 1005])))[:, 0]
    far = backend.to_host(backend.rotate(key, backend.integers([2, 3, 102, 1002])))[:, 0]
    assert (near * far).sum(axis=1) == pytest.approx(np.full(4, (near[0] * far[0]).sum()), abs=1e-3)
    assert np.linalg.norm(near, axis=1) == pytest.approx(
        np.full(4, np.linalg.norm(backend.to_host(query)[0])), rel=1e-5
    )


def test_norm_and_activation(backend: Backend) -> None:
    load = loader(backend)
    x, gain = RANDOM.standard_normal((3, 32)), RANDOM.standard_normal(32)
    found = backend.to_host(backend.rms_norm(load(x), load(gain)))
    assert found == pytest.approx(x / np.sqrt((x**2).mean(axis=1, keepdims=True)) * gain, abs=1e-4)
    wide = np.array([[-200.0, 0.0, 3.0, 2.0, 5.0, 7.0]])
    found = backend.to_host(backend.silu_and_multiply(load(wide)))
    assert found == pytest.approx(np.array([[0.0, 0.0, 3.0 / (1.0 + math.exp(-3.0)) * 7.0]]), abs=1e-5)


def test_products_and_streams(backend: Backend) -> None:
    for dtype in backend.gemm_dtypes:
        out = backend.product(backend.activations(4, 64, dtype), backend.linear(32, 64, dtype), dtype)
        assert tuple(out.shape) == (4, 32)
    for call, num_bytes in backend.stream_kernels(4, 64, backend.dtype).values():
        call()
        assert num_bytes >= 2 * 4 * 64 * 4


def test_triad_and_copy_in_threads() -> None:
    from hermes_sim.profile.numpy_backend import copy_chunk, triad_chunk

    backend = NumpyBackend()
    source, other = (backend.random((100_003,), "fp32") for _ in range(2))
    target = np.zeros_like(source)
    backend.in_threads(3, triad_chunk, source, target, other)
    assert target == pytest.approx(source + 3 * other, abs=1e-5)
    backend.in_threads(3, copy_chunk, source, target)
    assert np.array_equal(target, source)


def test_experts_of_a_token_differ_and_some_are_popular() -> None:
    even, skewed = (assign_experts(4000, 32, 4, law) for law in ("uniform", "power_law_1.2"))
    for assignment in (even, skewed):
        assert all(len(set(chosen)) == 4 for chosen in assignment.tolist())
    counts = np.bincount(even.reshape(-1), minlength=32)
    assert counts.max() / counts.mean() < 1.25
    skewed_counts = np.bincount(skewed.reshape(-1), minlength=32)
    assert skewed_counts[0] / skewed_counts.mean() > 4.0
