"""What each engine does where the rules leave a choice: its preset, as the compiled engine is told."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.batching import QUEUE_ORDERS
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import lower
from hermes_sim.workload.requests import request_table
from tests import scenarios as s

PRESETS = ["vllm_v1", "vllm_v0", "sglang", "trtllm", "orca", "distserve", "vllm_0_2"]

# rule -> array of the compiled engine -> its value under each preset, in the order of PRESETS
RULES: dict[str, dict[str, tuple[float, ...]]] = {
    "1 and 6: chunks, mixed steps, who comes first": {
        "chunk_prefill": (1, 0, 1, 0, 0, 0, 0),
        "mix_steps": (1, 0, 0, 1, 1, 0, 0),
        "waiting_first": (0, 1, 1, 0, 0, 1, 1),
        "decodes_first": (0, 0, 0, 0, 0, 0, 0),
        "static_batch": (0, 0, 0, 0, 0, 0, 0),
        "by_layers": (0, 0, 0, 0, 0, 0, 0),
        "prompt_padding": (0, 0, 0, 0, 0, 0, 0),
        "prefill_threshold": (0, 0, 0, 0, 0, 0, 0),
    },
    "2: budget and bound": {
        "max_num_batched_tokens": (2048, 8192, 8192, 8192, 8192, 4096, 2560),
        "max_num_seqs": (256, 256, 2048, 2048, 32, 256, 256),
    },
    "4: the victim": {"fewest_generated": (0, 0, 1, 0, 0, 0, 0)},
    "6: the line": {"queue_order": (QUEUE_ORDERS.index("fcfs"),) * 7},
    "7: the whole sequence": {"full_sequence_gate": (1, 1, 1, 1, 1, 1, 1)},
    "8: what is kept back": {"output_reserve_frac": (0.0, 0.0, 0.7, 1.0, 1.0, 0.0, 0.0)},
    "9: blocks": {"block_tokens": (16, 16, 1, 32, 16, 16, 16)},
    "10: prefix cache": {
        "prefix_caching": (1, 0, 1, 1, 0, 0, 0),
        "radix": (0, 0, 1, 1, 0, 0, 0),
        "seal_at_schedule": (1, 0, 0, 0, 1, 1, 1),
    },
    "12 and 13: steps in flight": {"async_scheduling": (1, 0, 1, 1, 0, 0, 0), "num_lanes": (2, 1, 2, 2, 1, 1, 1)},
}


def told(preset: str, **keys: Any) -> Any:
    cluster = s.cluster(s.llm(engine_preset=preset, **keys))
    return lower(load_scenario(cluster, s.workload()), request_table([0.0], [10], [5])).state


def test_every_preset_is_pinned() -> None:
    assert list(ENGINE_PRESETS) == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_the_compiled_engine_is_told(preset: str) -> None:
    state = told(preset)
    for rule, fields in RULES.items():
        for name, values in fields.items():
            assert getattr(state, name)[0] == values[PRESETS.index(preset)], f"rule {rule}: {name}"


def test_watermark_is_a_hundredth_before_vllm_v1_only() -> None:
    for preset in PRESETS:
        state = told(preset, kv_cache={"num_gpu_blocks": 4000})
        assert state.watermark_blocks[0] == (40 if preset in ("vllm_v0", "vllm_0_2") else 0)


def test_distserve_swaps_to_a_gibibyte_on_the_host() -> None:
    # Llama 3 8B: 2 x 8 heads x 128 x 2 bytes x 32 layers = 131,072 bytes a token; 16 tokens a block: 512 blocks a GiB
    state = told("distserve")
    assert state.swap_blocks[0] == 512
    assert all(told(preset).swap_blocks[0] == 0 for preset in PRESETS if preset != "distserve")


def test_what_the_file_states_wins() -> None:
    state = told("sglang", batching={"queue_order": "longest_prefix", "async_scheduling": False})
    assert state.queue_order[0] == QUEUE_ORDERS.index("longest_prefix")
    assert (state.chunk_prefill[0], state.radix[0], state.num_lanes[0]) == (1, 1, 1)
