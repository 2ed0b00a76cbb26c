"""The cost of a step: by hand, against the operator table, and by the laws a run relies on."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.core.compiled import jit_enabled
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.forward import Batch, decoder_operators
from hermes_sim.perf import step_kernel
from hermes_sim.perf.operator_table import captured_size
from hermes_sim.perf.step_cost import LlmCost, StepBatch, step_cost
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine, plain_device, tiny_model

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3


def decodes(*contexts: int) -> StepBatch:
    """A step of single-token decodes that read those contexts."""
    return StepBatch(len(contexts), len(contexts), len(contexts), sum(contexts), max(contexts))


def prompt(new: int, history: int = 0) -> StepBatch:
    """A step of one prompt chunk that yields a token."""
    return StepBatch(new, 1, 0, 0, 0, 1, new * history + new * (new + 1) // 2, new + history)


def mixed(contexts: tuple[int, ...], new: int) -> StepBatch:
    """Decodes and one whole prompt in a step."""
    one, other = decodes(*contexts), prompt(new)
    return StepBatch(
        one.num_tokens + new, one.num_sampled + 1, one.num_decode, one.decode_context_sum, one.decode_context_max,
        1, other.prefill_token_pairs, other.prefill_context_sum,
    )  # fmt: skip


def arguments(batch: StepBatch) -> tuple[Any, ...]:
    """Counts and sums in the order of step_cost."""
    return (
        batch.num_tokens, batch.num_sampled, batch.num_decode, batch.num_decode_tokens, batch.decode_context_sum,
        batch.decode_context_max, batch.num_prefill, batch.prefill_token_pairs, batch.prefill_context_sum,
    )  # fmt: skip


BATCHES = (decodes(100), decodes(*range(500, 540)), prompt(300), prompt(200, 2000), mixed((900, 30, 7000), 128))


def test_decode_step_of_a_tiny_model_by_hand() -> None:
    """Every weight once at half of 1 TB/s, the cache and queries, one launch of 1 us per kernel."""
    cost = engine(tiny_model(), plain_device(), max_captured_seqs=0, host_per_step_s=1.0)
    seconds = cost.seconds(decodes(1000))
    weights = 2 * (1024 * 1536 + 1024 * 1024 + 1024 * 8192 + 4096 * 1024) + 32000 * 1024
    gemm_activations = 2 * ((1024 + 1536) + (1024 + 1024) + (1024 + 8192) + (4096 + 1024)) + (1024 + 32000)
    norms, rope, activation = 5 * 4 * 1024, 2 * 2 * (1024 + 256), 2 * 3 * 4096
    embedding, sampler = 2 * 1024, 3 * 32000 * 2
    cache = 2 * (1000 * 512 + (4096 + 2048) / 2)
    elements = weights + gemm_activations + norms + rope + activation + embedding + sampler + cache
    num_kernels = 2 * 4 + 1 + 5 + 2 + 2 + 1 + 1 + 2
    assert seconds[MEMORY] == pytest.approx(elements * 2 / 0.5e12 + num_kernels * 1e-6, rel=1e-12)
    assert seconds[COMPUTE] == seconds[NETWORK] == 0.0


def test_host_time_is_per_step_and_per_sampled_sequence() -> None:
    cost = engine(tiny_model(), plain_device())
    assert cost.seconds(decodes(*[50] * 40))[HOST] == pytest.approx(100e-6 + 40e-6, rel=1e-12)
    assert cost.seconds(decodes(50))[HOST] == pytest.approx(101e-6, rel=1e-12)


def test_steps_that_are_not_captured_wait_for_the_host_to_launch() -> None:
    device = plain_device(kernel_launch="20 us")
    captured, eager = (engine(tiny_model(), device, graph_capture=on) for on in (True, False))
    batch = decodes(50)
    # embedding, norms, rope, cache, act, gemms, sampling, attention
    num_kernels = 1 + 5 + 2 + 2 + 2 + 2 * 4 + 2 + 2 * 2
    assert eager.seconds(batch)[HOST] > captured.seconds(batch)[HOST]
    device_s = eager.seconds(batch)[:HOST].sum()
    assert eager.seconds(batch)[HOST] == pytest.approx(num_kernels * 20e-6 - device_s + 101e-6, rel=1e-9)
    # a long prompt keeps the device busy for longer than the launches take
    assert eager.seconds(prompt(512, 7000))[HOST] == pytest.approx(101e-6, rel=1e-12)


@pytest.mark.parametrize(
    ("num_seqs", "size"),
    [(0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (17, 24), (249, 256), (257, 272), (300, 304)],
)
def test_captured_sizes(num_seqs: int, size: int) -> None:
    assert captured_size(num_seqs, 512) == size


def test_decodes_run_at_the_captured_size_and_beyond_the_largest_at_their_own() -> None:
    cost = engine(tiny_model(), plain_device(), max_captured_seqs=24)
    for num_seqs in range(64):
        np.testing.assert_array_equal(cost.decode_linear[num_seqs], cost.linear[captured_size(num_seqs, 24)])
    assert (cost.decode_linear[17] == cost.decode_linear[24]).all()
    assert (cost.decode_linear[25] == cost.linear[25]).all()
    # one token more or less of prompt does not pad
    assert (cost.linear[17] != cost.linear[24]).any()


def test_small_kernels_are_shorter_in_captured_steps_only() -> None:
    alone = engine(tiny_model(), plain_device(), max_captured_seqs=24)
    fused = engine(tiny_model(), plain_device(), max_captured_seqs=24, captured_frac=0.25)
    np.testing.assert_array_equal(alone.linear, fused.linear)
    np.testing.assert_array_equal(alone.decode_linear[25:], fused.decode_linear[25:])
    for num_seqs in (1, 7, 24):
        batch = decodes(*[50] * num_seqs)
        small = {"embedding", "norm", "rope", "act"}
        saved_s = 0.75 * sum(line.seconds for line in alone.operator_table(**asdict(batch)) if line.operator in small)
        assert saved_s > 0.0
        assert alone.seconds(batch).sum() - fused.seconds(batch).sum() == pytest.approx(saved_s, rel=1e-9)
        table = fused.operator_table(**asdict(batch))
        assert sum(line.seconds for line in table) == pytest.approx(fused.seconds(batch).sum(), rel=1e-12)


def test_tables_have_the_promised_shapes() -> None:
    cost = engine(tiny_model(), plain_device(), max_tokens=40, max_seqs=60)
    assert cost.linear.shape == (41, 4)
    assert cost.decode_linear.shape == cost.sampled.shape == (61, 4)
    assert cost.attention.shape == (step_kernel.NUM_ATTENTION_COEFFICIENTS,)
    for table in (cost.linear, cost.decode_linear, cost.sampled):
        assert table.dtype == np.float64
        assert (table[0] == 0.0).all()


def test_output_is_overwritten_and_sums_to_the_result() -> None:
    cost = engine(tiny_model(), plain_device())
    out = np.full(4, 1e9)
    batch = mixed((100, 200), 50)
    total_s = step_cost(
        cost.linear,
        cost.decode_linear,
        cost.sampled,
        cost.attention,
        *[np.int64(v) for v in arguments(batch)],
        out,
    )
    assert total_s == ((out[0] + out[1]) + out[2]) + out[3]
    np.testing.assert_array_equal(out, cost.seconds(batch))


def test_compiled_and_plain_python_agree() -> None:
    if not jit_enabled():
        pytest.skip("the compiler is off: there is only plain Python")
    cost = engine(models()["mixtral_8x7b"], devices()["h100_sxm"], tp=2)
    for batch in BATCHES:
        out = np.zeros(4)
        plain = step_cost.py_func(  # type: ignore[attr-defined]
            cost.linear, cost.decode_linear, cost.sampled, cost.attention, *arguments(batch), out
        )
        np.testing.assert_allclose(out, cost.seconds(batch), rtol=1e-12)
        assert plain == pytest.approx(cost.seconds(batch).sum(), rel=1e-12)


ENGINES: dict[str, dict[str, Any]] = {
    "llama_3_70b": {"tp": 4},
    "llama_2_7b": {},
    "mixtral_8x7b": {"tp": 2, "ep": 2},
    "deepseek_r1": {"tp": 8, "ep": 8},
    "deepseek_v3_2": {"tp": 8},
    "gpt_oss_120b": {"tp": 2, "pp": 2},
    "mamba2_2_7b": {},
    "qwen3_5_397b_a17b": {"tp": 8},
}


@pytest.mark.parametrize("name", ENGINES)
def test_operator_table_adds_up_to_the_step(name: str) -> None:
    cost = engine(models()[name], devices()["h100_sxm"], **ENGINES[name])
    for batch in BATCHES:
        table = cost.operator_table(**asdict(batch))
        by_bound = dict.fromkeys(("compute", "memory", "network", "host"), 0.0)
        for line in table:
            by_bound[line.bound] += line.seconds
        assert sum(by_bound.values()) == pytest.approx(cost.seconds(batch).sum(), rel=1e-12)
        assert by_bound["network"] == pytest.approx(cost.seconds(batch)[NETWORK], rel=1e-12)
        assert {line.provenance for line in table} == {"analytic"}


@pytest.mark.parametrize("name", ["llama_3_70b", "llama_2_7b"])
def test_totals_are_those_of_the_operators(name: str) -> None:
    model, parallel = models()[name], ENGINES[name]
    cost = engine(model, devices()["h100_sxm"], **parallel)
    flops = moved = 0.0
    sums = np.zeros(6)
    for batch in BATCHES:
        operators = decoder_operators(
            model,
            Batch(
                num_decode=batch.num_decode,
                decode_context_sum=batch.decode_context_sum,
                num_prefill=batch.num_prefill,
                num_prefill_tokens=batch.num_tokens - batch.num_decode,
                prefill_token_pairs=batch.prefill_token_pairs,
                prefill_context_sum=batch.prefill_context_sum,
                num_sampled=batch.num_sampled,
            ),
            tp=cost.tp,
        )
        flops += cost.tp * sum(operator.total_flops for operator in operators)
        moved += cost.tp * sum(operator.total_bytes for operator in operators if operator.kind != "collective")
        sums += [
            1, batch.num_tokens, batch.num_sampled,
            batch.decode_context_sum, batch.prefill_token_pairs, batch.prefill_context_sum,
        ]  # fmt: skip
    assert cost.flops_bytes(*sums) == pytest.approx((flops, moved), rel=1e-9)


@pytest.mark.parametrize("name", [*ENGINES, "flan_t5_xxl"])
def test_work_of_many_intervals_is_that_of_each_alone(name: str) -> None:
    cost = engine(models()[name], devices()["h100_sxm"], **ENGINES.get(name, {}))
    rng = np.random.default_rng(5)
    num_steps = rng.integers(0, 50, 12).astype(float)
    num_decodes = np.where(rng.random(12) < 0.3, 0.0, num_steps * rng.integers(1, 100, 12))
    num_prompt_tokens = np.where(rng.random(12) < 0.3, 0.0, num_steps * rng.integers(1, 2000, 12))
    counters = np.array([
        num_steps, num_decodes + num_prompt_tokens, num_decodes, 3000.0 * num_decodes, 900.0 * num_prompt_tokens,
        1.5 * num_prompt_tokens, 1.0 + 2.0 * rng.random(12),
    ])  # fmt: skip
    flops, moved = cost.flops_bytes(*counters.reshape(7, 3, 4))
    alone = np.array([[float(number) for number in cost.flops_bytes(*each)] for each in counters.T])
    np.testing.assert_allclose(np.stack((flops.ravel(), moved.ravel()), axis=1), alone, rtol=1e-12)
    assert (moved.ravel()[num_steps == 0.0] == 0.0).all()
    assert (moved.ravel()[num_steps > 0.0] > 0.0).all()


def test_no_steps_move_nothing() -> None:
    assert engine(tiny_model(), plain_device()).flops_bytes(0, 0, 0, 0, 0, 0) == (0.0, 0.0)


def test_tensor_parallel_steps_are_shorter_but_talk() -> None:
    model, device = models()["llama_3_70b"], devices()["h100_sxm"]
    two, four = (engine(model, device, tp=tp).seconds(decodes(*[1000] * 32)) for tp in (2, 4))
    assert four.sum() < two.sum()
    assert four[NETWORK] > 0.0
    assert engine(model, device).seconds(decodes(1000))[NETWORK] == 0.0


def test_slowest_pipeline_stage() -> None:
    whole = engine(tiny_model(), plain_device())
    assert whole.stage_interval_frac == 1.0
    cost = engine(tiny_model(num_layers=80, vocab_size=64), plain_device(), pp=4)
    assert cost.stage_interval_frac == pytest.approx(0.25, rel=0.01)
    uneven = engine(tiny_model(num_layers=81, vocab_size=64), plain_device(), pp=4)
    assert uneven.stage_interval_frac == pytest.approx(21 / 81, rel=0.01)


def test_power_is_of_all_devices_by_what_limits() -> None:
    cost = engine(tiny_model(), plain_device(), tp=2, pp=2)
    np.testing.assert_allclose(cost.power_w, 4 * 400 * np.array([1.0, 0.8, 0.3, 0.18]))
    assert cost.idle_w == 200.0


def test_estimates_say_so() -> None:
    table = engine(tiny_model(), plain_device()).operator_table(**asdict(decodes(10)))
    assert {line.provenance for line in table} == {"estimate"}


def test_windowed_layers_stop_growing() -> None:
    model = models()["gpt_oss_20b"]
    all_sliding = model.model_copy(update={"num_sliding_layers": model.num_layers})
    cost = engine(all_sliding, devices()["h100_sxm"])
    np.testing.assert_array_equal(cost.seconds(decodes(2000)), cost.seconds(decodes(20_000)))
    assert engine(model, devices()["h100_sxm"]).seconds(decodes(20_000)).sum() > cost.seconds(decodes(20_000)).sum()


def test_recurrent_steps_do_not_depend_on_the_context() -> None:
    cost = engine(models()["mamba2_2_7b"], devices()["h100_sxm"])
    np.testing.assert_array_equal(cost.seconds(decodes(10)), cost.seconds(decodes(7000)))
    one, many = (cost.seconds(decodes(*[10] * count)).sum() for count in (1, 64))
    assert many > one


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(ENGINES)),
    st.lists(st.integers(1, 8000), max_size=64),
    st.integers(0, 400),
    st.integers(0, 4000),
)
def test_a_step_takes_time_and_more_work_takes_no_less(name: str, contexts: list[int], new: int, history: int) -> None:
    cost = cached_engine(name)
    batch = _combine(contexts, new, history)
    seconds = cost.seconds(batch)
    assert (seconds >= 0.0).all()
    assert seconds.sum() > 0.0
    assert cost.seconds(_combine([c + 1 for c in contexts], new, history + 1)).sum() >= seconds.sum() * (1 - 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["llama_3_70b", "mixtral_8x7b"]), st.floats(1.05, 4.0), st.integers(0, 4))
def test_higher_peaks_never_make_a_step_slower(name: str, factor: float, number: int) -> None:
    device = devices()["h100_sxm"]
    memory = device.memory.model_copy(update={"bandwidth_bytes_per_s": device.memory.bandwidth_bytes_per_s * factor})
    peaks = {dtype: peak * factor for dtype, peak in device.peak_flops_per_s.items()}
    faster = device.model_copy(update={"memory": memory, "peak_flops_per_s": peaks})
    before, after = (engine(models()[name], each, tp=4).seconds(BATCHES[number]) for each in (device, faster))
    assert after.sum() <= before.sum()


def test_no_step_beats_the_roofline_of_its_memory_and_peak() -> None:
    """Weights and cache from memory once, all arithmetic at the dense peak, over all devices of the replica."""
    for name, parallel in ENGINES.items():
        for device_name in ("a100_sxm_80gb", "h100_sxm", "b200_sxm"):
            device = devices()[device_name]
            cost = engine(models()[name], device, **parallel)
            for batch in BATCHES:
                operators = decoder_operators(
                    models()[name], Batch(num_decode=batch.num_decode), tp=cost.tp, ep=cost.ep
                )
                weights = sum(
                    operator.count * (operator.bytes_per_call - 2.0 * operator.m * (operator.n + operator.k))
                    for operator in operators
                    if operator.kind == "gemm"
                )
                table = cost.operator_table(**asdict(batch))
                peak = max(device.peak_flops_per_s.values()) * cost.tp
                assert cost.seconds(batch).sum() >= sum(line.flops for line in table) / peak
                if batch.num_prefill == 0:
                    assert cost.seconds(batch).sum() >= weights / device.memory.bandwidth_bytes_per_s


def test_tables_are_built_in_a_moment() -> None:
    if not jit_enabled():
        pytest.skip("the compiler is off")
    model, device = models()["llama_3_70b"], devices()["a100_sxm_80gb"]
    engine(model, device, tp=4)
    start = time.perf_counter()
    engine(model, device, tp=4, max_tokens=8192, max_seqs=256)
    assert time.perf_counter() - start < 0.2
    assert engine(model, device, tp=4, max_tokens=131_072).linear.shape == (131_073, 4)


_ENGINES: dict[str, LlmCost] = {}


def cached_engine(name: str) -> LlmCost:
    model: ModelArchitecture = models()[name]
    if name not in _ENGINES:
        _ENGINES[name] = engine(model, devices()["h100_sxm"], **ENGINES[name])
    return _ENGINES[name]


def _combine(contexts: list[int], new: int, history: int) -> StepBatch:
    num_prefill = int(new > 0)
    pairs = new * history + new * (new + 1) // 2
    return StepBatch(
        num_tokens=len(contexts) + new,
        num_sampled=len(contexts),
        num_decode=len(contexts),
        decode_context_sum=sum(contexts),
        decode_context_max=max(contexts, default=0),
        num_prefill=num_prefill,
        prefill_token_pairs=pairs,
        prefill_context_sum=num_prefill * (new + history),
    )
