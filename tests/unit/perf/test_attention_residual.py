"""Residual tables of attention in a step: the table's ratio where it was measured, nothing where it was not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hermes_sim.hardware.device import Device
from hermes_sim.hardware.residual import Residuals, ResidualTable, encode
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.attention_layers import AttentionLayers, attention_kernel, attention_layers, layer_coefficients
from hermes_sim.perf.attention_residual import attention_residual, corrected_coefficients, plane_of
from hermes_sim.perf.operators.attention import decode_attention_seconds, prefill_attention_seconds
from hermes_sim.perf.operators.corrected_attention import (
    corrected_decode_seconds,
    corrected_prefill_seconds,
    plane_ratio,
)
from hermes_sim.perf.residual import pack_residual, residuals_at
from hermes_sim.perf.step_kernel import decode_seconds
from tests.unit.perf.test_step_cost import devices, engine, models, tiny_model

SEQS, TOKENS, KV_HEADS = (1.0, 2.0, 4.0, 8.0, 16.0), (64.0, 128.0, 256.0, 512.0, 1024.0), (1.0, 2.0, 4.0, 8.0)


def table(tokens: str, seed: int = 5) -> ResidualTable:
    shape = (len(SEQS), len(TOKENS), len(KV_HEADS))
    values = np.random.default_rng(seed).uniform(-0.4, 0.4, shape)
    return ResidualTable(
        axes={"num_seqs": SEQS, tokens: TOKENS, "num_kv_heads": KV_HEADS}, values=encode(values, np.ones(shape, bool))
    )


def corrected_device(name: str = "h100_sxm", kernel: str = "vllm") -> Device:
    device = devices()[name]
    tables = {
        f"attention_{phase}_{kernel}": table(tokens)
        for phase, tokens in (("decode", "context_tokens"), ("prefill", "new_tokens"))
    }
    residuals = Residuals(device=device.name, tables=tables, source=device.cost_model.source)
    return device.model_copy(update={"residuals": residuals})


def layers_of(model: ModelArchitecture, kind: int = 0) -> AttentionLayers:
    return attention_layers(model, tp=1, kv_dtype=model.kv_dtype)[kind]


@pytest.mark.parametrize("num_seqs", [1, 2, 4, 16, 32, 64])
@pytest.mark.parametrize("num_tokens", [1.0, 32.0, 64.0, 256.0, 1024.0, 2048.0, 8192.0])
def test_the_plane_is_the_table_at_octaves(num_seqs: int, num_tokens: float) -> None:
    own, layers = table("context_tokens"), layers_of(models()["llama_3_8b"])
    point = {"num_seqs": [num_seqs], "context_tokens": [num_tokens], "num_kv_heads": [layers.num_kv_heads]}
    expected = np.exp(residuals_at(own, point)[0][0])
    plane = plane_of(own, layers, "decode")
    assert plane_ratio(plane, 0, float(num_seqs), num_tokens) == pytest.approx(expected, rel=1e-12)


def test_between_octaves_the_ratio_is_linear() -> None:
    plane = plane_of(table("context_tokens"), layers_of(models()["llama_3_8b"]), "decode")
    for num_seqs, num_tokens in ((3.0, 96.0), (12.0, 96.0), (1.0, 768.0), (8.0, 1536.0)):
        seqs, tokens = 2.0 ** np.floor(np.log2(num_seqs)), 2.0 ** np.floor(np.log2(num_tokens))
        corners = [[plane_ratio(plane, 0, seqs * i, tokens * j) for j in (1, 2)] for i in (1, 2)]
        weights = num_seqs / seqs - 1.0, num_tokens / tokens - 1.0
        expected = np.array([1 - weights[0], weights[0]]) @ corners @ np.array([1 - weights[1], weights[1]])
        assert plane_ratio(plane, 0, num_seqs, num_tokens) == pytest.approx(expected, rel=1e-12)


def test_decodes_take_the_measured_ratio_and_drafts_do_not() -> None:
    device, layers = corrected_device(), layers_of(models()["llama_3_8b"])
    coefficients = corrected_coefficients([layers], device, "vllm")[0]
    plain = layer_coefficients(layers, device)
    analytic_s = decode_attention_seconds(4, 4, 2048.0, 600.0, plain, 0)[0]
    ratio = residuals_at(table(""), {"num_seqs": [4], "": [512.0], "num_kv_heads": [8.0]})[0][0]
    assert abs(ratio) > 0.01
    found_s = corrected_decode_seconds(4, 4, 2048.0, 600.0, coefficients, 0)[0]
    assert found_s == pytest.approx(analytic_s * np.exp(ratio), rel=1e-12)
    drafts = (4, 12, 2048.0, 600.0)
    assert corrected_decode_seconds(*drafts, coefficients, 0) == decode_attention_seconds(*drafts, plain, 0)


def test_history_of_a_prompt_dilutes_the_ratio_of_whole_prompts() -> None:
    device, layers = corrected_device(), layers_of(models()["llama_3_8b"])
    coefficients = corrected_coefficients([layers], device, "vllm")[0]
    plain = layer_coefficients(layers, device)
    ratio = residuals_at(table(""), {"num_seqs": [1], "": [512.0], "num_kv_heads": [8.0]})[0][0]
    for history in (0.0, 512.0, 7680.0):
        chunk = (1, 512.0, 512.0 * (history + 256.5), history + 512.0)
        found_s = corrected_prefill_seconds(*chunk, 0, 0.0, 0.0, coefficients, 0)[0]
        analytic_s = prefill_attention_seconds(*chunk, 0, 0.0, 0.0, plain, 0)[0]
        share = 512.0 / (history + 512.0)
        assert found_s / analytic_s - 1.0 == pytest.approx((np.exp(ratio) - 1.0) * share, abs=1e-12)
    together = (1, 512.0, 512.0 * 256.5, 512.0, 4, 2048.0, 512.0)
    assert corrected_prefill_seconds(*together, coefficients, 0) == prefill_attention_seconds(*together, plain, 0)


def test_a_window_takes_the_table_of_the_nearest_measured_one() -> None:
    """Half an octave away at most; a table of whole contexts says nothing about windows, nor the other way round."""
    device, layers = corrected_device(), layers_of(models()["llama_3_8b"])
    windowed = [replace(layers, kind="sliding", window_tokens=window) for window in (100, 128, 170, 200, 1024)]
    assert [attention_residual(kind, device, "decode") for kind in windowed] == [None] * 5
    assert device.residuals is not None
    tables = {**device.residuals.tables, "attention_decode_vllm_window128": table("context_tokens", seed=7)}
    device = device.model_copy(update={"residuals": device.residuals.model_copy(update={"tables": tables})})
    found = [attention_residual(kind, device, "decode") for kind in windowed]
    assert [one is tables["attention_decode_vllm_window128"] for one in found] == [True, True, True, False, False]
    assert found[3:] == [None, None]
    assert attention_residual(layers, device, "decode") is tables["attention_decode_vllm"]
    assert attention_residual(windowed[1], device, "prefill") is None


def test_a_table_over_all_heads_is_cut_down_to_a_plane() -> None:
    """Five axes, of which an engine fixes three: between knots the plane is the mean of both, in octaves."""
    axes = {"num_seqs": SEQS, "context_tokens": TOKENS, "num_heads": (16.0, 64.0), "num_kv_heads": (8.0,),
            "head_dim": (64.0, 128.0)}  # fmt: skip
    values = np.zeros((5, 5, 2, 1, 2))
    values[..., 0, 0, 1], values[..., 1, 0, 1] = 0.1, 0.3
    five = ResidualTable(axes=axes, values=encode(values, np.ones(values.shape, bool)))
    layers = layers_of(models()["llama_3_8b"])  # 32 heads, 8 of keys, of 128
    plane = plane_of(five, layers, "decode")
    assert plane_ratio(plane, 0, 4.0, 256.0) == pytest.approx(np.exp(0.2), rel=1e-12)
    with pytest.raises(ValueError, match="at most 4 axes"):
        pack_residual(five)


def test_a_table_belongs_to_the_kernel_in_use() -> None:
    layers = layers_of(models()["llama_3_8b"])
    assert attention_residual(layers, corrected_device(), "decode", "vllm") is not None
    assert attention_residual(layers, corrected_device(), "decode", "sglang") is not None  # priced by the same kernel
    assert attention_residual(layers, corrected_device(), "decode", "trtllm") is None
    assert attention_residual(layers, corrected_device(kernel="trtllm"), "decode", "trtllm") is not None


def test_axes_are_sequences_tokens_and_heads() -> None:
    layers = layers_of(models()["llama_3_8b"])
    with pytest.raises(ValueError, match="num_seqs, context_tokens"):
        plane_of(table("new_tokens"), layers, "decode")
    strange = ResidualTable(
        axes={"num_seqs": (1.0, 2.0), "context_tokens": (1.0, 2.0), "beams": (1.0,)}, values="1 1 1 1"
    )
    with pytest.raises(ValueError, match="beams"):
        plane_of(strange, layers, "decode")


def test_a_served_mla_is_not_priced_with_uncaptured_launches() -> None:
    device = devices()["h100_sxm"]
    latent = layers_of(models()["deepseek_r1"])
    assert attention_kernel(latent, device, "vllm").startswith("vllm_mla")
    assert attention_kernel(latent, device, "vllm", serving=True).startswith("mla")


def test_an_engine_prices_attention_with_its_own_kernels() -> None:
    model, device = models()["llama_3_8b"], devices()["h100_sxm"]
    own, other = (engine(model, device, kernels=kernels).attention for kernels in ("vllm", "trtllm"))
    assert not np.array_equal(own, other)
    np.testing.assert_array_equal(own, engine(model, device, kernels="sglang").attention)


@pytest.mark.parametrize("num_seqs", [1, 5, 16, 100])
def test_a_run_of_decodes_has_the_bits_of_single_steps(num_seqs: int) -> None:
    from hermes_sim.perf.operator_table import StepBatch

    cost = engine(tiny_model(), corrected_device(), max_seqs=128)
    tokens_s = tuple((cost.decode_linear[num_seqs] + cost.sampled[num_seqs]).tolist())
    for context in (65, 130, 700, 3000):
        context_sum = num_seqs * context
        quick = decode_seconds(tokens_s, cost.attention, num_seqs, context_sum, context)  # type: ignore[arg-type]
        batch = StepBatch(num_seqs, num_seqs, num_seqs, context_sum, context, 0, 0, 0, 0)
        assert list(quick) == cost.seconds(batch).tolist()
