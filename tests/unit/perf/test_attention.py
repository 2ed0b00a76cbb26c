"""The attention model, by hand and by its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.perf.attention_layers import (
    attention_efficiency,
    attention_layers,
    layer_coefficients,
    recurrent_layers,
)
from hermes_sim.perf.operators import attention
from hermes_sim.perf.operators.attention import decode_attention_seconds, prefill_attention_seconds
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import plain_device, tiny_model


def coefficients_of(device_name: str, model_name: str, tp: int = 1, kind: int = 0) -> np.ndarray:
    model = models()[model_name]
    return layer_coefficients(attention_layers(model, tp=tp, kv_dtype=model.kv_dtype)[kind], devices()[device_name])


def test_decode_streams_its_keys_and_values() -> None:
    # 10 sequences of 1000 tokens; a token has 2 x 2 heads x 128 x 2 bytes; a query and its output 2 x 8 x 128 x 2,
    # a new token's keys and values are read and written once: 2 x 1024 bytes. Half of 1 TB/s, launch 1 us.
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    coefficients = layer_coefficients(layers, plain_device(attention={"decode_launch": "1 us", "row_tokens": 0.0}))
    time_s, is_compute = decode_attention_seconds(10, 10, 10_000.0, 1000.0, coefficients, 0)
    assert time_s == pytest.approx(1e-6 + (10_000 * 1024 + 10 * (4096 + 2048)) / 0.5e12, rel=1e-12)
    assert not is_compute


def test_one_long_context_is_slower_than_the_same_tokens_spread_out() -> None:
    coefficients = coefficients_of("a100_sxm_80gb", "llama_3_70b", tp=8)
    spread_s, _ = decode_attention_seconds(64, 64, 65_536.0, 1024.0, coefficients, 0)
    skewed_s, _ = decode_attention_seconds(64, 64, 65_536.0, 60_000.0, coefficients, 0)
    assert skewed_s > 1.5 * spread_s


def test_tiles_come_in_waves() -> None:
    """100 cores, 2 KV heads: 50 sequences fill a wave, one more costs a tile, and the rest of its wave is free."""
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    shape = {"decode_launch": "1 us", "decode_tile_cycles": 5000.0, "decode_wave_frac": 1.0}
    coefficients = layer_coefficients(layers, plain_device(attention=shape))
    tile_s = coefficients[attention.DECODE_TILE_S]
    assert coefficients[attention.DECODE_WAVES] == pytest.approx(0.02)
    seconds = [decode_attention_seconds(n, n, float(n), 1.0, coefficients, 0)[0] for n in (1, 50, 51, 100, 101)]
    waves = [(time_s - seconds[0]) / tile_s for time_s in seconds]
    assert waves == pytest.approx([0.0, 0.0, 1.0, 1.0, 2.0], abs=0.4)  # bytes of queries beside


def test_keys_of_few_tiles_are_split_and_those_of_many_are_not() -> None:
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    times = {}
    for splits in (True, False):
        shape = {"decode_launch": "1 us", "decode_walk_cycles": 5000.0, "decode_splits": splits}
        coefficients = layer_coefficients(layers, plain_device(attention=shape))
        times[splits] = [decode_attention_seconds(n, n, n * 8192.0, 8192.0, coefficients, 0)[0] for n in (1, 64)]
    assert times[True][0] < 0.1 * times[False][0]
    assert times[True][1] == times[False][1]


def test_decodes_among_prompts_fill_tiles_of_their_own() -> None:
    """100 cores, 8 heads: 50 decodes are 4 waves of tiles of so many rows, beside the 1.28 waves of the prompt.

    Of the shorter, the share of one over the waves squared is hidden; a decode costs many times one in a kernel alone.
    """
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    coefficients = layer_coefficients(layers, plain_device(attention={"mixed_row_tokens": 64.0, "row_tokens": 0.0}))
    pairs = 2048 * 2049 / 2
    alone_s, _ = prefill_attention_seconds(1, 2048.0, pairs, 2048.0, 0, 0.0, 0.0, coefficients, 0)
    mixed_s, _ = prefill_attention_seconds(1, 2048.0, pairs, 2048.0, 50, 50 * 4096.0, 4096.0, coefficients, 0)
    decode_s = 64 * 50 * 4096 * coefficients[attention.PAIR_S]
    hidden_s = (alone_s - coefficients[attention.PREFILL_LAUNCH_S]) / (4.0 + 1.28) ** 2
    assert mixed_s - alone_s == pytest.approx(decode_s - hidden_s, rel=1e-6)
    assert mixed_s - alone_s > 2.0 * decode_attention_seconds(50, 50, 50 * 4096.0, 4096.0, coefficients, 0)[0]


def test_tiles_of_decodes_among_prompts_come_in_waves() -> None:
    """100 cores, 8 heads: 12 decodes are 96 tiles, one wave as one decode is; 13 take two."""
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    coefficients = layer_coefficients(layers, plain_device(attention={"mixed_row_tokens": 64.0}))
    waves = [
        attention.mixed_decode_seconds(n, n * 4096.0, 4096.0, 0.08, coefficients, 0) / (4096 * 64)
        for n in (1, 12, 13, 25)
    ]
    tile_s = coefficients[attention.PAIR_S] / 0.08
    assert np.array(waves) / tile_s == pytest.approx([1.0, 1.0, 2.0, 2.0], rel=1e-9)


def test_query_heads_that_do_not_run_at_once_read_the_same_keys_again() -> None:
    """4 query heads a KV head, 100 cores, no cache: of 25 decodes all four run at once, of 100 only one does."""
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    device = plain_device(attention={"mixed_row_tokens": 1e-6})
    coefficients = layer_coefficients(layers, device)
    times = [
        attention.mixed_decode_seconds(n, n * 4096.0, 4096.0, 0.08, coefficients, 0)
        / (n * 4096.0 * coefficients[attention.DECODE_BYTE_S])
        for n in (25, 50, 100, 200)
    ]
    assert times == pytest.approx([1.0, 2.0, 4.0, 4.0], rel=1e-6)
    coefficients[attention.MIXED_CACHE_TOKENS] = 1e9
    held_s = attention.mixed_decode_seconds(200, 200 * 4096.0, 4096.0, 0.08, coefficients, 0)
    assert held_s == pytest.approx(200 * 4096.0 * coefficients[attention.DECODE_BYTE_S], rel=1e-6)


def test_kernels_of_an_engine_come_before_the_default() -> None:
    h100 = devices()["h100_sxm"]
    grouped, latent = (
        attention_layers(models()[name], tp=8, kv_dtype=dtype)[0]
        for name, dtype in (("llama_3_70b", "fp8"), ("deepseek_r1", "bf16"))
    )
    kernels = h100.cost_model.attention_kernels
    assert attention_efficiency(grouped, h100) == kernels["fp8"]
    assert attention_efficiency(grouped, h100, "trtllm") == kernels["trtllm_fp8"]
    assert attention_efficiency(grouped, h100, "sglang") == kernels["fp8"]
    assert attention_efficiency(latent, h100, "sglang") == kernels["sglang_mla"]


def test_prompt_costs_four_flops_per_pair_head_and_dimension() -> None:
    # 2048 tokens: 2048 x 2049 / 2 pairs x 4 x 8 x 128 FLOPs at half of 100 TFLOP/s; 3 passes of q, o, k, v bytes
    layers = attention_layers(tiny_model(), tp=1, kv_dtype="bf16")[0]
    coefficients = layer_coefficients(layers, plain_device())
    pairs = 2048 * 2049 / 2
    time_s, is_compute = prefill_attention_seconds(1, 2048.0, pairs, 2048.0, 0, 0.0, 0.0, coefficients, 0)
    assert time_s == pytest.approx(1e-6 + pairs * 4 * 8 * 128 / 50e12, rel=1e-12)
    assert is_compute


def test_chunk_late_in_a_prompt_costs_more_than_an_early_one() -> None:
    coefficients = coefficients_of("a100_sxm_80gb", "llama_3_70b", tp=4)
    chunk = 512.0 * 513.0 / 2.0
    early_s, _ = prefill_attention_seconds(1, 512.0, chunk, 512.0, 0, 0.0, 0.0, coefficients, 0)
    late_s, _ = prefill_attention_seconds(1, 512.0, chunk + 512.0 * 7680.0, 8192.0, 0, 0.0, 0.0, coefficients, 0)
    assert late_s > 5.0 * early_s


def test_window_caps_what_a_decode_reads() -> None:
    full, sliding = (coefficients_of("h100_sxm", "gpt_oss_20b", kind=kind) for kind in (0, 1))
    assert sliding[attention.WINDOW_TOKENS] == 128
    short = [decode_attention_seconds(8, 8, 8 * 100.0, 100.0, c, 0)[0] for c in (full, sliding)]
    assert short[0] == short[1]
    at_window, _ = decode_attention_seconds(8, 8, 8 * 128.0, 128.0, sliding, 0)
    beyond, far_beyond = (decode_attention_seconds(8, 8, 8 * n, n, sliding, 0)[0] for n in (200.0, 50_000.0))
    assert far_beyond == beyond
    assert at_window <= beyond < 1.5 * at_window  # a mask, and one block more where the window starts inside one
    assert decode_attention_seconds(8, 8, 8 * 50_000.0, 50_000.0, full, 0)[0] > 5.0 * at_window


def test_grouped_queries_read_an_eighth_of_the_cache() -> None:
    grouped = attention_layers(tiny_model(num_heads=64, num_kv_heads=8), tp=1, kv_dtype="bf16")[0]
    every = attention_layers(tiny_model(num_heads=64, num_kv_heads=64), tp=1, kv_dtype="bf16")[0]
    assert every.decode_bytes_per_token == 8.0 * grouped.decode_bytes_per_token
    assert every.decode_flops_per_token == grouped.decode_flops_per_token


def test_kv_heads_fewer_than_devices_are_copied() -> None:
    four, eight = (attention_layers(tiny_model(), tp=tp, kv_dtype="bf16")[0] for tp in (2, 8))
    assert four.num_kv_heads == eight.num_kv_heads == 1
    assert four.decode_bytes_per_token == eight.decode_bytes_per_token


def test_latent_attention_reads_one_latent_for_all_heads() -> None:
    model = models()["deepseek_r1"]
    (layers,) = attention_layers(model, tp=8, kv_dtype="bf16")
    assert layers.num_layers == 61
    assert layers.decode_bytes_per_token == (512 + 64) * 2
    assert layers.decode_flops_per_token == 2 * 16 * (2 * 512 + 64)
    assert layers.flops_per_pair == 2 * 16 * (192 + 128)
    assert layers.history_flops_per_token == 2 * 512 * 16 * (128 + 128)


def test_sparse_attention_scores_all_tokens_and_attends_to_the_best() -> None:
    model = models()["deepseek_v3_2"]
    kinds = {layers.kind: layers for layers in attention_layers(model, tp=8, kv_dtype=model.kv_dtype)}
    assert model.mla is not None
    assert model.mla.indexer is not None
    assert kinds["latent"].window_tokens == model.mla.indexer.top_k == 2048
    assert kinds["indexer_scores"].window_tokens == 0


def test_recurrent_layers_read_and_write_the_state() -> None:
    model = models()["mamba2_2_7b"]
    assert attention_layers(model, tp=1, kv_dtype="bf16") == ()
    recurrent = recurrent_layers(model, tp=1)
    assert recurrent is not None
    assert model.state_space is not None
    matrices = model.state_space.inner_size * model.state_space.state_size * 4
    assert recurrent.bytes_per_sequence > 2 * matrices
    assert recurrent_layers(models()["llama_3_8b"], tp=1) is None


NAMES = ("llama_3_70b", "llama_2_7b", "deepseek_r1", "gpt_oss_120b")
DEVICES = ("a100_sxm_80gb", "h100_sxm", "b200_sxm", "l40s", "xeon_8480plus")
contexts = st.lists(st.integers(1, 30_000), min_size=1, max_size=64)


@settings(max_examples=60, deadline=None)
@given(contexts, st.sampled_from(NAMES), st.sampled_from(DEVICES))
def test_decodes_never_beat_memory_or_peak_and_grow_with_context(lengths: list[int], name: str, device: str) -> None:
    model = models()[name]
    layers = attention_layers(model, tp=1, kv_dtype=model.kv_dtype)[0]
    coefficients = layer_coefficients(layers, devices()[device])
    total, longest = float(sum(lengths)), float(max(lengths))
    time_s, _ = decode_attention_seconds(len(lengths), len(lengths), total, longest, coefficients, 0)
    bandwidth = devices()[device].memory.bandwidth_bytes_per_s
    assert time_s >= total * layers.decode_bytes_per_token / bandwidth
    peak = max(devices()[device].peak_flops_per_s.values())
    assert time_s >= total * layers.decode_flops_per_token / peak
    longer_s, _ = decode_attention_seconds(len(lengths), len(lengths), total + 1.0, longest + 1.0, coefficients, 0)
    assert longer_s >= time_s


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 16_384), st.integers(0, 60_000), st.sampled_from(NAMES), st.sampled_from(DEVICES))
def test_prompts_never_beat_the_peak_and_grow_with_history(new: int, history: int, name: str, device: str) -> None:
    model = models()[name]
    layers = attention_layers(model, tp=1, kv_dtype=model.kv_dtype)[0]
    coefficients = layer_coefficients(layers, devices()[device])

    def seconds(history: int) -> float:
        pairs = new * history + new * (new + 1) / 2
        return prefill_attention_seconds(1, float(new), pairs, float(history + new), 0, 0.0, 0.0, coefficients, 0)[0]

    pairs = new * history + new * (new + 1) / 2
    assert seconds(history) >= pairs * layers.flops_per_pair / max(devices()[device].peak_flops_per_s.values())
    assert seconds(history + 1) >= seconds(history)
