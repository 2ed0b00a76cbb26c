"""Groups of attention layers that share a pool of blocks."""

from __future__ import annotations

import pytest

from hermes_sim.perf.kv_layout import kv_layout
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import tiny_model


@pytest.mark.parametrize(
    ("name", "group_layers", "window_groups", "window_tokens"),
    [
        ("gemma_3_27b", 10, 6, 1024),  # 10 full and 52 sliding layers: vLLM's seven groups of ten
        ("gemma_2_9b", 21, 1, 4096),
        ("gpt_oss_20b", 12, 1, 128),
        ("llama_4_scout_fp8", 12, 3, 8192),
        ("llama_3_8b", 32, 0, 0),
        ("deepseek_r1", 61, 0, 0),
        ("qwen3_5_397b_a17b", 15, 0, 0),  # recurrent layers keep their state outside the pool
        ("mamba2_2_7b", 0, 0, 0),
    ],
)
def test_groups_of_published_models(name: str, group_layers: int, window_groups: int, window_tokens: int) -> None:
    layout = kv_layout(models()[name])
    assert (layout.group_layers, layout.window_groups, layout.window_tokens) == (
        group_layers,
        window_groups,
        window_tokens,
    )
    assert layout.full_layers


@pytest.mark.parametrize(
    ("num_layers", "num_sliding", "group_layers", "window_groups"),
    [
        (25, 12, 13, 1),  # 13 and 12 are nearly equal: the larger
        (9, 5, 4, 2),  # 5 is 1.25 times 4: two groups of four, one of them half empty
        (10, 2, 8, 1),  # mostly full layers: one group of all of them
    ],
)
def test_group_size(num_layers: int, num_sliding: int, group_layers: int, window_groups: int) -> None:
    layout = kv_layout(tiny_model(num_layers=num_layers, num_sliding_layers=num_sliding, sliding_window=64))
    assert (layout.group_layers, layout.window_groups) == (group_layers, window_groups)
    assert layout.group_frac == group_layers / num_layers


def test_every_sliding_layer_has_a_place_in_a_group() -> None:
    for model in models().values():
        layout = kv_layout(model)
        if layout.window_tokens and layout.full_layers:
            assert layout.window_groups * layout.group_layers >= model.num_sliding_layers
            assert layout.group_layers >= model.num_full_attention_layers


def test_blocks_inside_a_window() -> None:
    layout = kv_layout(models()["gpt_oss_20b"])
    # 128 tokens can begin anywhere in a block, so they touch one block more
    assert [layout.window_blocks(block_tokens) for block_tokens in (16, 100, 128, 256)] == [9, 3, 2, 2]
    assert kv_layout(models()["llama_3_8b"]).window_blocks(16) == 0
