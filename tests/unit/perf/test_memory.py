"""What fits into memory, worked out by hand for published models and boards."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.perf.memory import MemoryPlan, device_kv_bytes_per_token, device_weight_bytes, memory_plan
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models

GIB = 2**30


def plan(model: ModelArchitecture, device: Device, **changes: Any) -> MemoryPlan:
    settings: dict[str, Any] = {
        "tp": 1,
        "pp": 1,
        "ep": 1,
        "memory_fraction": 0.9,
        "block_tokens": 16,
        "kv_dtype": "bf16",
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 256,
    }
    return memory_plan(model, device, **{**settings, **changes})


def test_llama_3_70b_on_four_a100() -> None:
    found = plan(models()["llama_3_70b"], devices()["a100_sxm_80gb"], tp=4, activation_reserve_bytes=2.0 * GIB)
    weights = 70_553_706_496 * 2 / 4
    assert found.weights_bytes == weights
    assert found.kv_bytes == pytest.approx(0.9 * 80 * GIB - weights - 2 * GIB, rel=1e-12)
    assert found.kv_bytes_per_token == 327_680
    assert found.num_blocks == math.floor(found.kv_bytes / (16 * 327_680 / 4))
    assert found.shortfall_bytes == 0.0


def test_llama_3_70b_does_not_fit_one_a100() -> None:
    found = plan(models()["llama_3_70b"], devices()["a100_sxm_80gb"], activation_reserve_bytes=0.0)
    assert found.num_blocks == 0
    assert found.kv_bytes == 0.0
    missing = 70_553_706_496 * 2 + 16 * 327_680 - 0.9 * 80 * GIB
    assert found.shortfall_bytes == pytest.approx(missing, rel=1e-12)


def test_stated_blocks_replace_the_model_and_must_fit() -> None:
    stated = plan(models()["llama_3_8b"], devices()["h100_sxm"], num_gpu_blocks=1000)
    assert stated.num_blocks == 1000
    assert stated.shortfall_bytes == 0.0
    too_many = plan(models()["llama_3_8b"], devices()["h100_sxm"], num_gpu_blocks=10_000_000)
    assert too_many.num_blocks == 10_000_000
    assert too_many.shortfall_bytes > 0.0


def test_kv_heads_are_cut_until_there_is_one_and_then_copied() -> None:
    model = models()["llama_3_70b"]  # 8 KV heads
    whole = device_kv_bytes_per_token(model, "bf16", tp=1, pp=1)
    assert device_kv_bytes_per_token(model, "bf16", tp=4, pp=1) == whole / 4
    assert device_kv_bytes_per_token(model, "bf16", tp=16, pp=1) == whole / 8
    assert device_kv_bytes_per_token(model, "fp8", tp=4, pp=1) == whole / 8
    assert device_kv_bytes_per_token(model, "bf16", tp=1, pp=4) == whole / 4


def test_latents_are_copied_to_every_device() -> None:
    model = models()["deepseek_r1"]
    assert device_kv_bytes_per_token(model, "bf16", tp=8, pp=1) == 70_272
    assert plan(model, devices()["h200_sxm"], tp=8).kv_bytes_per_token == 8 * 70_272


def test_pipeline_cuts_layers_and_keeps_embedding_and_logits_on_one_stage() -> None:
    model = models()["llama_3_70b"]
    embedding = 128_256 * 8192 * 2
    layers = 70_553_706_496 * 2 - 2 * embedding
    assert device_weight_bytes(model, tp=2, pp=4) == pytest.approx((layers / 4 + embedding) / 2, rel=1e-12)
    assert device_weight_bytes(model, tp=8, pp=1) == 70_553_706_496 * 2 / 8


def test_tied_embedding_is_needed_on_both_ends_of_a_pipeline() -> None:
    model = models()["phi_2"].model_copy(update={"tied_embeddings": True})
    assert 2 * device_weight_bytes(model, tp=1, pp=2) > device_weight_bytes(model, tp=1, pp=1)


def test_recurrent_state_is_reserved_for_every_sequence() -> None:
    model, device = models()["mamba2_2_7b"], devices()["h100_sxm"]
    few, many = (plan(model, device, max_num_seqs=count) for count in (16, 256))
    assert few.kv_bytes > many.kv_bytes
    assert few.kv_bytes_per_token == 0.0
    assert few.num_blocks > 0


def test_more_memory_fewer_tokens_and_narrower_caches_give_more_blocks() -> None:
    model, device = models()["llama_3_8b"], devices()["h100_sxm"]
    base = plan(model, device).num_blocks
    assert plan(model, device, memory_fraction=0.95).num_blocks > base
    assert plan(model, device, kv_dtype="fp8").num_blocks > 1.9 * base
    assert plan(model, device, max_num_batched_tokens=32_768).num_blocks < base
    assert plan(model, devices()["h200_sxm"]).num_blocks > base


def test_processors_serve_from_their_own_memory() -> None:
    found = plan(models()["llama_3_8b"], devices()["xeon_8480plus"])
    assert found.shortfall_bytes == 0.0
    assert found.num_blocks > 100_000
