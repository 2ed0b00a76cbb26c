"""Steps that verify drafts, and the drafts themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sim.models.parameters import kv_bytes_per_token, part_parameters, weight_bytes
from hermes_sim.perf.drafts import DraftCost, build_draft_cost, draft_memory, draft_tp
from hermes_sim.perf.operator_table import StepBatch, captured_size
from hermes_sim.perf.step_cost import LlmCost
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine, plain_device, tiny_model

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3
NAMES = ("llama_3_8b", "deepseek_r1", "deepseek_v3_2", "gpt_oss_20b", "qwen3_5_397b_a17b")


def verify(num_drafts: int, *contexts: int) -> StepBatch:
    """Decodes with `num_drafts` drafts each, which read those contexts."""
    tokens = len(contexts) * (1 + num_drafts)
    return StepBatch(
        tokens, tokens, len(contexts), sum(contexts), max(contexts), num_draft_tokens=tokens - len(contexts)
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_that_could_draft_prices_plain_steps_the_same(name: str) -> None:
    plain, drafting = (engine(models()[name], devices()["h100_sxm"], max_draft_tokens=most) for most in (0, 4))
    assert len(drafting.decode_linear) == len(drafting.sampled) == 64 * 5 + 1
    for table in ("decode_linear", "sampled"):
        np.testing.assert_array_equal(getattr(drafting, table)[:65], getattr(plain, table))
    for table in ("linear", "attention"):
        np.testing.assert_array_equal(getattr(drafting, table), getattr(plain, table))
    assert drafting.stage_interval_frac == plain.stage_interval_frac
    batch = StepBatch(64, 64, 64, 64_000, 1000)
    np.testing.assert_array_equal(plain.seconds(batch), drafting.seconds(batch))


def test_tables_are_read_by_tokens_and_host_time_by_sequences() -> None:
    """6 sequences with 3 drafts: the captured graph of 24 tokens, 24 rows of logits, 6 sequences on the host."""
    cost = engine(tiny_model(), plain_device(), max_draft_tokens=3)
    seconds = cost.seconds(verify(3, *[100] * 6))
    assert seconds[HOST] == pytest.approx(100e-6 + 6e-6, rel=1e-12)
    attention_s = seconds[:HOST].sum() - cost.linear[captured_size(24, 512)].sum() - cost.sampled[24, :HOST].sum()
    plain_s = cost.seconds(verify(0, *[100] * 6))
    base_s = plain_s[:HOST].sum() - cost.linear[captured_size(6, 512)].sum() - cost.sampled[6, :HOST].sum()
    # two layers; query, output and the new keys and values of 18 tokens more at half of 1 TB/s, the cache only once:
    # hidden behind the stream of the cache as long as that is longer
    assert attention_s >= base_s
    assert attention_s <= base_s + 2 * 18 * (4096 + 2048) / 0.5e12 + 1e-12


def test_a_large_verification_is_no_captured_graph() -> None:
    cost = engine(tiny_model(), plain_device(kernel_launch="50 us"), max_draft_tokens=7, max_captured_seqs=64)
    captured, eager = cost.seconds(verify(7, *[10] * 8)), cost.seconds(verify(7, *[10] * 9))
    assert captured[HOST] == pytest.approx(108e-6, rel=1e-12)
    assert eager[HOST] > 500e-6


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 7), st.lists(st.integers(10, 9000), min_size=1, max_size=16))
def test_verifying_costs_no_less_than_decoding_and_no_more_than_one_sequence_per_draft(
    name: str, num_drafts: int, contexts: list[int]
) -> None:
    cost = _cached(name)
    verified = cost.seconds(verify(num_drafts, *contexts))
    fewer = cost.seconds(verify(max(num_drafts - 1, 0), *contexts))
    apart = cost.seconds(verify(0, *[context for context in contexts for _ in range(1 + num_drafts)]))
    assert fewer[:HOST].sum() <= verified[:HOST].sum() * (1 + 1e-12)
    assert verified[:HOST].sum() <= apart[:HOST].sum() * (1 + 1e-12)
    assert verified[HOST] == pytest.approx(fewer[HOST], rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_operator_table_of_a_verification_adds_up(name: str) -> None:
    cost = _cached(name)
    for batch in (verify(3, 100, 2000), verify(1, *range(500, 540))):
        table = cost.operator_table(**asdict(batch))
        assert sum(line.seconds for line in table) == pytest.approx(cost.seconds(batch).sum(), rel=1e-12)


def test_a_verification_never_beats_the_roofline() -> None:
    device = devices()["h100_sxm"]
    for name in NAMES:
        cost = _cached(name)
        for batch in (verify(7, *[3000] * 8), verify(3, 100, 2000)):
            table = cost.operator_table(**asdict(batch))
            assert cost.seconds(batch).sum() >= sum(line.flops for line in table) / max(
                device.peak_flops_per_s.values()
            )


def test_work_of_verified_drafts() -> None:
    cost = _cached("llama_3_8b")
    batch = verify(3, *[1000] * 10)
    lines = cost.operator_table(**asdict(batch))
    found = cost.flops_bytes(1, 40, 40, 10_000, 0, 0, tokens_per_decode=4.0)
    assert found[0] == pytest.approx(sum(line.flops for line in lines), rel=1e-9)


def drafts(target: LlmCost, **changes: Any) -> DraftCost:
    defaults: dict[str, Any] = {
        "tp_bandwidth_bytes_per_s": 100e9,
        "tp_latency_s": 5e-6,
        "max_tokens": 512,
        "max_seqs": 64,
        "max_draft_tokens": 4,
        "graph_capture": True,
        "max_captured_seqs": 512,
    }
    return build_draft_cost(target, devices()["h100_sxm"], **{**defaults, **changes})


def test_a_draft_model_is_an_engine_without_host_time() -> None:
    target = engine(models()["llama_3_70b"], devices()["h100_sxm"], tp=4, max_draft_tokens=4)
    cost = drafts(target, kind="model", draft_model=models()["llama_3_8b"]).cost
    assert cost is not None
    alone = engine(
        models()["llama_3_8b"], devices()["h100_sxm"], tp=4, max_draft_tokens=4, host_per_step_s=0.0,
        host_per_sequence_s=0.0,
    )  # fmt: skip
    for table in ("linear", "decode_linear", "sampled", "attention"):
        np.testing.assert_array_equal(getattr(cost, table), getattr(alone, table))
        assert getattr(cost, table).shape == getattr(target, table).shape
    assert cost.seconds(verify(0, 100))[HOST] == 0.0


def test_a_draft_model_whose_heads_cannot_be_cut_runs_on_one_device() -> None:
    assert draft_tp(models()["llama_3_8b"], 8) == 8
    assert draft_tp(models()["vicuna_68m"], 8) == 1
    target = engine(models()["llama_3_70b"], devices()["h100_sxm"], tp=8)
    cost = drafts(target, kind="model", draft_model=models()["vicuna_68m"]).cost
    assert cost is not None
    assert cost.tp == 1
    assert cost.linear[:, NETWORK].sum() == 0.0


def test_heads_cost_their_share_of_the_layers_and_whole_logits() -> None:
    """One of 80 layers: 1/80 of layers and attention, logits as the target makes them, nothing on the host."""
    target = engine(models()["llama_3_70b"], devices()["h100_sxm"], tp=4)
    cost = drafts(target, kind="heads", layers_frac=1 / 80).cost
    assert cost is not None
    batch = StepBatch(8, 8, 8, 16_000, 2000)
    mine, whole = cost.seconds(batch), target.seconds(batch)
    logits = target.sampled[8]
    for resource in (COMPUTE, MEMORY, NETWORK):
        expected = (whole[resource] - logits[resource]) / 80 + logits[resource]
        assert mine[resource] == pytest.approx(expected, rel=1e-9)
    assert mine[HOST] == 0.0


def test_medusa_heads_are_logits_each_and_their_blocks() -> None:
    """Three heads in one pass: three times the logits, and hidden x hidden beside vocabulary x hidden weights."""
    model = models()["llama_3_8b"]
    target = engine(model, devices()["h100_sxm"])
    cost = drafts(target, kind="medusa", num_heads=3).cost
    assert cost is not None
    found, logits = cost.seconds(StepBatch(40, 8, 8, 16_000, 2000)), target.sampled[8]
    expected = 3 * logits[[COMPUTE, MEMORY, NETWORK]] * (1 + model.hidden_size / model.vocab_size)
    assert found[[COMPUTE, MEMORY, NETWORK]] == pytest.approx(expected, rel=1e-12)
    assert found[HOST] == 0.0
    memory = draft_memory(model, "medusa", num_heads=3, tp=2)
    assert memory.weights_bytes == 3 * 2 * (model.vocab_size + model.hidden_size) * model.hidden_size / 2
    assert memory.kv_bytes_per_token == 0.0


def test_ngram_drafts_take_the_host_alone() -> None:
    target = engine(models()["llama_3_8b"], devices()["h100_sxm"])
    found = drafts(target, kind="ngram", host_per_draft_s=1e-6)
    assert (found.cost, found.draft_step_s) == (None, 1e-6)
    assert draft_memory(models()["llama_3_8b"], "ngram", tp=1) == draft_memory(models()["llama_3_8b"], "heads", tp=1)


def test_memory_of_drafts_by_hand() -> None:
    model, draft = models()["llama_3_70b"], models()["llama_3_8b"]
    found = draft_memory(model, "model", draft, tp=4)
    assert found.weights_bytes == weight_bytes(draft) / 4
    assert found.kv_bytes_per_token == kv_bytes_per_token(draft) / 4
    heads = draft_memory(model, "heads", layers_frac=1 / 80, tp=4)
    parts = part_parameters(model)
    layers_bytes = 2 * (sum(parts.values()) - parts["embedding"] - parts["lm_head"])
    assert heads.weights_bytes == pytest.approx(layers_bytes / 80 / 4, rel=1e-12)
    assert heads.kv_bytes_per_token == pytest.approx(327_680 / 80 / 4, rel=1e-12)


def test_a_draft_model_must_be_named() -> None:
    with pytest.raises(ValueError, match="need that model"):
        draft_memory(models()["llama_3_8b"], "model", tp=1)


def test_a_group_of_layers_beside_decodes_and_the_whole_step_add_up() -> None:
    """Layered prefill: a wave in G steps costs the wave's layers once, and the decodes' in every step."""
    cost = engine(models()["llama_3_8b"], devices()["h100_sxm"])
    num_groups = 4
    wave = StepBatch(408, 8, 8, 8000, 1000, 1, 400 * 401 // 2, 400)
    alone = StepBatch(8, 8, 8, 8000, 1000)
    one = cost.seconds(wave) / num_groups + cost.seconds(alone) * (1.0 - 1.0 / num_groups)
    total = num_groups * one
    expected = cost.seconds(wave) + (num_groups - 1) * cost.seconds(alone)
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    # with no decodes: the wave's device time once, the host in every step, logits whole in the last
    prompt = StepBatch(400, 0, 0, 0, 0, 1, 400 * 401 // 2, 400)
    middle = cost.seconds(prompt) / num_groups + cost.seconds(StepBatch(0, 0)) * (1.0 - 1.0 / num_groups)
    assert middle[HOST] == pytest.approx(100e-6, rel=1e-12)
    assert middle[:HOST].sum() == pytest.approx(cost.seconds(prompt)[:HOST].sum() / num_groups, rel=1e-12)
    first_token = StepBatch(400, 1, 0, 0, 0, 1, 400 * 401 // 2, 400)
    last = cost.seconds(first_token) / num_groups + cost.seconds(StepBatch(0, 1)) * (1.0 - 1.0 / num_groups)
    assert (last - middle).sum() == pytest.approx(cost.sampled[1].sum(), rel=1e-9)


_ENGINES: dict[str, LlmCost] = {}


def _cached(name: str) -> LlmCost:
    if name not in _ENGINES:
        _ENGINES[name] = engine(models()[name], devices()["h100_sxm"], max_draft_tokens=7, max_seqs=128)
    return _ENGINES[name]
