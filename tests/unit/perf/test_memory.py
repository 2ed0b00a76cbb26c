"""What fits into memory, worked out by hand for published models and boards."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hermes_sim.hardware.device import Device
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.parameters import bytes_per_weight, part_parameters, weight_bytes
from hermes_sim.perf.memory import (
    MemoryPlan,
    device_kv_bytes_per_token,
    device_weight_bytes,
    memory_plan,
    stage_weight_bytes,
)
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
    whole = device_kv_bytes_per_token(model, "bf16", tp=1)
    assert device_kv_bytes_per_token(model, "bf16", tp=4) == whole / 4
    assert device_kv_bytes_per_token(model, "bf16", tp=16) == whole / 8
    assert device_kv_bytes_per_token(model, "fp8", tp=4) == whole / 8
    assert device_kv_bytes_per_token(model, "bf16", tp=1, num_layers=20) == whole / 4


def test_latents_are_copied_to_every_device() -> None:
    model = models()["deepseek_r1"]
    assert device_kv_bytes_per_token(model, "bf16", tp=8) == 70_272
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


def test_stages_of_a_pipeline_by_hand() -> None:
    """80 layers in 30, 25 and 25: the first has the embedding, the last the logits, the second neither."""
    model = models()["llama_3_70b"]
    embedding = 128_256 * 8192 * 2
    layers = 70_553_706_496 * 2 - 2 * embedding
    found = stage_weight_bytes(model, (30, 25, 25), tp=2)
    expected = [(layers * count / 80 + end) / 2 for count, end in ((30, embedding), (25, 0), (25, embedding))]
    assert found == pytest.approx(expected, rel=1e-12)
    assert device_weight_bytes(model, tp=2, pp=3, layers_per_stage=(30, 25, 25)) == found[0]


def test_the_stage_with_fewest_blocks_decides() -> None:
    model, device = models()["llama_3_70b"], devices()["h100_sxm"]
    even = plan(model, device, tp=2, pp=2)
    uneven = plan(model, device, tp=2, pp=2, layers_per_stage=(50, 30))
    assert uneven.num_blocks < even.num_blocks
    assert uneven.block_bytes == 16 * 327_680 * 50 / 80 / 2
    assert uneven.kv_bytes_per_token == even.kv_bytes_per_token == 327_680
    assert uneven.num_blocks == math.floor(uneven.kv_bytes / uneven.block_bytes)
    stated = plan(model, device, tp=2, pp=2, layers_per_stage=(40, 40))
    assert stated == even
    with pytest.raises(ValueError, match="must state 2 stages with 80 layers in all"):
        plan(model, device, tp=2, pp=2, layers_per_stage=(50, 31))


def test_experts_lie_on_the_devices_of_all_ranks() -> None:
    """DeepSeek-R1 with fp8 experts, eight ranks of one device: an eighth of the experts, all of the rest."""
    model = models()["deepseek_r1"]
    experts = part_parameters(model)["experts"] * bytes_per_weight(model, "experts")
    rest = weight_bytes(model) - experts
    assert device_weight_bytes(model, tp=1, pp=1, ep=8, dp=8) == pytest.approx(rest + experts / 8, rel=1e-12)
    assert device_weight_bytes(model, tp=2, pp=1, ep=1, dp=4) == pytest.approx(rest / 2 + experts / 8, rel=1e-12)
    # 256 experts in shares of 96: the larger ones hold 86
    assert device_weight_bytes(model, tp=3, pp=1, ep=3) == pytest.approx((rest + experts * 258 / 256) / 3, rel=1e-12)
    rank, group = (plan(model, devices()["h200_sxm"], ep=8, **each) for each in ({"dp": 8}, {"tp": 8}))
    assert rank.kv_bytes_per_token == 70_272
    assert rank.block_bytes == group.block_bytes == 16 * 70_272


def test_drafts_take_weights_and_blocks() -> None:
    model, device = models()["llama_3_8b"], devices()["h100_sxm"]
    base = plan(model, device)
    drafting = plan(model, device, draft_weights_bytes=1e9, draft_kv_bytes_per_token=4096.0)
    assert drafting.weights_bytes == base.weights_bytes + 1e9
    assert drafting.block_bytes == base.block_bytes + 16 * 4096
    assert drafting.num_blocks == math.floor((base.kv_bytes - 1e9) / drafting.block_bytes)


def test_blocks_of_a_hybrid_model_hold_one_group_of_layers() -> None:
    """gpt-oss: 18 full and 18 sliding layers: blocks of half the size, twice as many, two for each of the first 9."""
    model, device = models()["gpt_oss_120b"], devices()["h100_sxm"]
    found = plan(model, device, tp=2)
    assert found.block_bytes == 16 * 73_728 / 2 / 2
    assert found.num_blocks == math.floor(found.kv_bytes / found.block_bytes)
    assert (found.window_blocks, found.window_groups, found.full_layers) == (128 // 16 + 1, 1, True)
    assert [found.blocks_of(tokens) for tokens in (1, 16, 17, 144, 145, 16_000)] == [2, 2, 4, 18, 19, 1009]
    whole = plan(model.model_copy(update={"num_sliding_layers": 0, "sliding_window": 0}), device, tp=2)
    assert found.num_blocks * 16_000 / found.blocks_of(16_000) > 1.9 * whole.num_blocks * 16


def test_a_model_that_slides_everywhere_keeps_one_window() -> None:
    model = models()["mistral_7b"].model_copy(update={"sliding_window": 4096, "num_sliding_layers": 32})
    found = plan(model, devices()["h100_sxm"])
    assert (found.window_blocks, found.window_groups, found.full_layers) == (257, 0, False)
    assert found.block_bytes == 16 * 131_072
    assert [found.blocks_of(tokens) for tokens in (16, 4112, 32_000)] == [1, 257, 257]


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


def test_what_lies_beside_an_engine_is_taken_from_its_blocks() -> None:
    """An index of 7.8 GB, as 1e8 codes of 64 bytes fill: as many blocks fewer as it covers."""
    model, device = models()["llama_3_8b"], devices()["a100_sxm_80gb"]
    alone, beside = plan(model, device), plan(model, device, beside_bytes=7.8e9)
    assert alone.kv_bytes - beside.kv_bytes == pytest.approx(7.8e9)
    assert alone.num_blocks - beside.num_blocks in (
        int(7.8e9 // alone.block_bytes),
        int(7.8e9 // alone.block_bytes) + 1,
    )
    assert plan(model, device, beside_bytes=70e9).num_blocks == 0
