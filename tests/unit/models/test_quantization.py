"""What a quantised checkpoint stores narrower, and how wide it is."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.models.hugging_face import from_config
from hermes_sim.models.parameters import bytes_per_weight, compute_dtype, in_dtype, num_parameters, weight_bytes
from tests.unit.models.config_examples import DEEPSEEK_V3, EXAMPLES, LLAMA_3_70B
from tests.unit.models.shipped_models import models


def _weights(bits: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, "symmetric": True, **more}


def _compressed(weights: dict[str, Any], activations: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": activations}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"], **more}


@pytest.mark.parametrize(
    ("section", "stored", "multiplied", "scale_bytes"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8", 4 / 16384),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", "fp8", 0.0),
        ({"quant_algo": "FP8"}, "fp8", "fp8", 0.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4", "fp4", 1 / 16),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "fp4", "bf16", 1 / 16),
        # fp16 scale and 4-bit zero point for 128 weights
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "int4", "bf16", 2.5 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", "bf16", 0.0),
        (_compressed(_weights(4, "int", group_size=32), None), "int4", "bf16", 2 / 32),
        (_compressed(_weights(8, "int", strategy="channel"), _weights(8, "int")), "int8", "int8", 0.0),
        (_compressed(_weights(8, "float", strategy="tensor"), _weights(8, "float")), "fp8", "fp8", 0.0),
        (_compressed(_weights(8, "float", strategy="block", block_structure=[128, 128]), _weights(8, "float")),
         "fp8", "fp8", 4 / 16384),
        (_compressed(_weights(4, "float", group_size=16), _weights(4, "float")), "fp4", "fp4", 1 / 16),
    ],
)  # fmt: skip
def test_formats(section: dict[str, Any], stored: str, multiplied: str, scale_bytes: float) -> None:
    model = from_config({**LLAMA_3_70B, "quantization_config": section}, "m")
    assert model.quantization is not None
    assert model.quantization.weight_dtype == stored
    assert model.quantization.compute_dtype == multiplied
    assert model.quantization.scale_bytes_per_weight == pytest.approx(scale_bytes)
    assert model.quantization.parts == ("attention", "mlp")
    assert compute_dtype(model, "lm_head") == "bf16"


@pytest.mark.parametrize(
    ("patterns", "left_alone"),
    [
        (["lm_head", "model.layers.0.mlp.gate"], set()),
        ([f"model.layers.{layer}.self_attn*" for layer in range(61)], {"attention"}),
        ([f"model.layers.{layer}.self_attn*" for layer in range(9)], set()),  # a few layers only
        (["*self_attn*", "*shared_experts*"], {"attention", "shared_experts"}),
        (["re:.*self_attn.*", "re:.*mlp\\.(gate|up|down)_proj"], {"attention", "mlp"}),
        (["language_model.model.layers.*.mlp.experts*"], {"experts"}),
        ([f"model.layers.{layer}.mlp" for layer in range(3)], {"mlp"}),
    ],
)
@pytest.mark.parametrize("key", ["ignore", "exclude_modules", "modules_to_not_convert"])
def test_modules_left_alone(patterns: list[str], left_alone: set[str], key: str) -> None:
    section = {"quant_method": "modelopt", "quant_algo": "NVFP4", key: patterns}
    model = from_config({**DEEPSEEK_V3, "quantization_config": section}, "m")
    assert model.quantization is not None
    assert set(model.quantization.parts) == {"attention", "mlp", "experts", "shared_experts"} - left_alone


def test_only_attention_layers_of_a_hybrid_count_for_attention() -> None:
    attention = [f"model.language_model.layers.{layer}.self_attn*" for layer in range(3, 60, 4)]
    section = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": attention}
    model = from_config({**EXAMPLES["qwen3_5_397b_a17b"], "quantization_config": section}, "m")
    assert model.quantization is not None
    assert set(model.quantization.parts) == {"experts", "shared_experts", "state_space"}


def test_everything_left_alone_is_no_quantisation() -> None:
    section = {"quant_method": "fp8", "modules_to_not_convert": ["re:.*"]}
    assert from_config({**LLAMA_3_70B, "quantization_config": section}, "m").quantization is None


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8"),
        (_compressed(_weights(8, "float"), None, kv_cache_scheme={"num_bits": 8, "type": "float"}), "fp8"),
        (_compressed(_weights(8, "float"), None, kv_cache_scheme=None), "bf16"),
    ],
)
def test_kv_dtype(section: dict[str, Any], expected: str) -> None:
    assert from_config({**LLAMA_3_70B, "quantization_config": section}, "m").kv_dtype == expected


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "'bitsandbytes' cannot be read .*compressed-tensors"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "'MIXED_PRECISION' cannot be read"),
        ({"quant_method": "compressed-tensors"}, "without config_groups"),
        ({"quant_method": "gptq", "bits": 3}, "3-bit integer"),
        (_compressed(_weights(6, "float"), None), "6-bit floating-point"),
        ("fp8", "not a mapping"),
    ],
)
def test_what_cannot_be_read_is_said(section: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_config({**LLAMA_3_70B, "quantization_config": section}, "m")


def test_weight_bytes_by_hand() -> None:
    model = models()["qwen3_32b_fp8"]
    plain = models()["qwen3_32b"]
    # All but embedding, output matrix and norms: one byte and a fp32 scale for 128 x 128 weights.
    wide = 2 * 151936 * 5120 + 64 * (2 * 5120 + 2 * 128) + 5120
    expected = 2 * wide + (num_parameters(plain) - wide) * (1 + 4 / 16384)
    assert weight_bytes(model) == pytest.approx(expected, rel=1e-12)
    assert weight_bytes(plain) == 2 * num_parameters(plain)


def test_a_cast_model_has_one_width() -> None:
    cast = in_dtype(models()["deepseek_r1"], "bf16")
    assert weight_bytes(cast) == 2 * num_parameters(cast)
    assert bytes_per_weight(models()["deepseek_r1"], "experts", "bf16") == 2.0
    assert in_dtype(cast, None) is cast
