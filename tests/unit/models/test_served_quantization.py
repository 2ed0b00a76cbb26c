"""Quantisation that an engine states: bytes by hand, parts apart, what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from hermes_sim import simulate
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.forward import token_operators
from hermes_sim.models.parameters import (
    bytes_per_weight,
    compute_dtype,
    kv_bytes_per_token,
    num_parameters,
    part_quantization,
    weight_bytes,
)
from hermes_sim.models.served_quantization import ServedQuantization, quantized
from hermes_sim.models.sparsity import Sparsity
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.served_model import served_model
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import tiny_model


def served(quantization: Any, model: ModelArchitecture | None = None) -> ModelArchitecture:
    return quantized(model or tiny_model(), ServedQuantization.model_validate(quantization))


@pytest.mark.parametrize(
    ("scheme", "bytes_each", "multiplied"),
    [
        ("w8a16", 1.0, "bf16"),
        ("w8a8", 1.0, "int8"),
        ("w4a16", 0.5 + 2 / 128, "bf16"),
        ("w4a8", 0.5 + 2 / 128, "int8"),
        ("w4a4", 0.5 + 2 / 128, "int4"),
        ("w3a16", 0.375 + 2 / 128, "bf16"),
        ("w2a16", 0.25 + 2 / 128, "bf16"),
        ("w16a16", 2.0, "bf16"),
        ("fp8", 1.0, "fp8"),
        ("fp8a16", 1.0, "bf16"),
        ("fp8_block", 1.0 + 4 / 128**2, "fp8"),
        ("fp6a16", 0.75, "bf16"),
        ("mxfp8", 1.0 + 1 / 32, "fp8"),
        ("mxfp6", 0.75 + 1 / 32, "fp6"),
        ("mxfp4", 0.5 + 1 / 32, "fp4"),
        ("mxfp4a8", 0.5 + 1 / 32, "fp8"),
        ("mxfp4a16", 0.5 + 1 / 32, "bf16"),
        ("nvfp4", 0.5 + 1 / 16, "fp4"),
        ({"scheme": "w4a16", "group_size": 32, "zero_point_bits": 4}, 0.5 + 2.5 / 32, "bf16"),
        # kept: half of the weights with 4 bits and a position of 2 bits
        ({"scheme": "w4a16", "sparsity": "2:4"}, 0.5 * (0.5 + 0.25) + 2 / 128, "bf16"),
        ({"sparsity": "2:4"}, 0.5 * (2.0 + 0.25), "bf16"),
        ({"sparsity": {"2:4": 0.5, "1:4": 0.25}}, 0.5 * 1.125 + 0.25 * 0.5625 + 0.25 * 2.0, "bf16"),
        ({"scheme": "w8a8", "outlier_columns_frac": 0.01}, 1.0 + 0.02, "int8"),
        ({"scheme": "w3a16", "group_size": 16, "outlier_weights_frac": 0.01}, 0.375 + 2 / 16 + 0.04, "bf16"),
    ],
)  # fmt: skip
def test_bytes_and_arithmetic(scheme: Any, bytes_each: float, multiplied: str) -> None:
    model = served(scheme)
    assert bytes_per_weight(model, "mlp") == pytest.approx(bytes_each, rel=1e-12)
    assert compute_dtype(model, "attention") == multiplied
    assert bytes_per_weight(model, "lm_head") == 2.0
    (up,) = (operator for operator in token_operators(model, 64) if operator.name == "up")
    activations = 2.0 * 64 * (up.n + up.k)
    outliers = 2.0 * 0.01 if isinstance(scheme, dict) and "outlier_columns_frac" in scheme else 0.0
    assert up.bytes == pytest.approx((bytes_each - outliers) * up.n * up.k + activations, rel=1e-12)


def test_a_checkpoint_is_requantised_whatever_it_was() -> None:
    model = models()["deepseek_r1"]
    assert weight_bytes(served("w16a16", model)) > 1.9 * weight_bytes(model)
    assert compute_dtype(served("nvfp4", model), "experts") == "fp4"
    assert served("w4a16", model).name == model.name


def test_parts_are_treated_apart() -> None:
    model = served({"scheme": "w8a8", "per_part": {"lm_head": "w8a16", "mlp": {"scheme": "mxfp4a16"}}})
    assert compute_dtype(model, "attention") == "int8"
    assert bytes_per_weight(model, "mlp") == 0.5 + 1 / 32
    assert (bytes_per_weight(model, "lm_head"), compute_dtype(model, "lm_head")) == (1.0, "bf16")
    only = served({"scheme": "w4a16", "parts": ["mlp"]})
    assert bytes_per_weight(only, "attention") == 2.0


def test_zeros_are_no_arithmetic() -> None:
    flops = [
        sum(operator.total_flops for operator in token_operators(served(q), 100) if operator.part == "mlp")
        for q in ({"sparsity": "4:4"}, {"sparsity": "2:4"}, {"sparsity": {"1:4": 0.5}})
    ]
    assert flops[1] == 0.5 * flops[0]
    assert flops[2] == (0.5 * 0.25 + 0.5) * flops[0]


def test_outlier_columns_are_a_second_product_in_16_bits() -> None:
    model = served({"scheme": "w8a8", "outlier_columns_frac": 0.01})
    operators = {operator.name: operator for operator in token_operators(model, 7)}
    whole, apart = operators["up"], operators["up_outliers"]
    assert (apart.m, apart.n, apart.k, apart.dtype) == (7, whole.n, 11, "bf16")  # a hundredth of 1024, rounded up
    assert apart.bytes == 2.0 * (11 * whole.n + 7 * 11 + 7 * whole.n)


def test_online_rotation_precedes_output_and_down_projections() -> None:
    names = [operator.name for operator in token_operators(served({"scheme": "w4a4", "online_rotation": True}), 7)]
    rotated = [after for before, after in itertools.pairwise(names) if before.endswith("_rotation")]
    assert rotated == ["out", "down"]


def engine(**changes: Any) -> Engine:
    return Engine.model_validate(
        {"name": "llm", "serves": ["prefill", "decode"], "model": "tiny", "placement": {"gpu": 1}, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "bytes_each"),
    [
        ({}, 2.0),
        ({"kv_cache": {"dtype": "fp8"}}, 1.0),
        # a scale and a zero point of 16 bits for each head's key and value of 128 numbers
        ({"kv_cache": {"dtype": "int8"}}, 1.0 + 4 / 128),
        ({"quantization": "w4a8kv4"}, 0.5 + 4 / 128),
        ({"quantization": "w4a8kv4", "kv_cache": {"scale_group": 32}}, 0.5 + 4 / 32),
        ({"quantization": "w4a8kv4", "kv_cache": {"dtype": "int2", "scale_bits": 16}}, 0.25 + 2 / 128),
        ({"quantization": "fp8kv8"}, 1.0),
    ],
)
def test_kv_cache_with_its_scales(changes: dict[str, Any], bytes_each: float) -> None:
    model = served_model(engine(**changes), {"tiny": tiny_model()})
    assert model is not None
    assert kv_bytes_per_token(model) == pytest.approx(2 * 2 * 2 * 128 * bytes_each, rel=1e-12)


def test_nothing_stated_leaves_the_model_alone() -> None:
    model = tiny_model()
    assert served_model(engine(), {"tiny": model}) is model


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ("w7a16", "no quantisation scheme"),
        ("w4a61", "activations have 4, 6, 8, 16 bits, got 61"),
        ("w4", "does not say the activations: w4a16, w4a8"),
        ("w16a8", "narrow activations need narrow weights"),
        ("w4a16kv5", "a KV cache has 2, 3, 4, 8, 16 bits, got 5"),
        ({"sparsity": "4:2"}, "needs a pattern N:M"),
        ({"sparsity": {"2:4": 0.7, "1:4": 0.7}}, "add up to 1.4, more than 1"),
        ({"schem": "w4a16"}, "Extra inputs"),
    ],
)
def test_what_is_refused(quantization: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ServedQuantization.model_validate(quantization)


def test_dump_reads_back() -> None:
    quantization = ServedQuantization.model_validate({"scheme": "w4a16", "sparsity": "2:4", "per_part": {"mlp": "fp8"}})
    assert ServedQuantization.model_validate(quantization.model_dump(mode="json", by_alias=True)) == quantization
    assert quantization.sparsity == Sparsity.model_validate("2:4")
    part = part_quantization(served(quantization.model_dump()), "attention")
    assert part is not None
    assert part.sparsity == quantization.sparsity


def test_results_say_how_a_model_is_served() -> None:
    results = simulate("a100x4_w4a16", "chat", overrides=["workload.traffic.num_requests=5"])
    assert any("llama_3_70b is served in w4a16kv8, 39.5 GB of weights" in note for note in results.scenario.notes)
    bits = 8.0 * weight_bytes(served("w4a16", models()["llama_3_70b"])) / num_parameters(models()["llama_3_70b"])
    assert 4.125 < bits < 4.6  # embedding and logits stay wide
