"""Steps of encoder-decoder models, by hand and by their laws."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from hermes_sim.models.encoder_decoder import decoder_stack, encoder_stack
from hermes_sim.models.forward import encoder_pass_operators
from hermes_sim.perf.operator_rows import TOKEN_BYTES, WEIGHT_BYTES
from hermes_sim.perf.operator_table import StepBatch
from hermes_sim.perf.operators import attention
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.perf.step_kernel import FIRST_KIND
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine, plain_device, tiny_model

COMPUTE, MEMORY, NETWORK, HOST = 0, 1, 2, 3


def flan(**changes: object) -> LlmCost:
    return engine(models()["flan_t5_xxl"], devices()["h100_sxm"], max_tokens=4096, **changes)


def prompts(*lengths: int) -> StepBatch:
    """A step of whole prompts, which yields their first tokens."""
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return StepBatch(sum(lengths), len(lengths), 0, 0, 0, len(lengths), pairs, sum(lengths))


def decodes(*contexts: int) -> StepBatch:
    return StepBatch(len(contexts), len(contexts), len(contexts), sum(contexts), max(contexts))


BATCHES = (prompts(300), prompts(512, 17, 90), decodes(100), decodes(*range(500, 540)))


def test_tables_are_of_the_encoder_and_of_the_decoder() -> None:
    cost = flan(tp=2)
    assert cost.encoder_operators is not None
    names = cost.encoder_operators.names
    assert names == tuple(operator.name for operator in encoder_pass_operators(cost.model, 8, tp=2))
    for row, operator in zip(cost.encoder_operators.rows, encoder_pass_operators(cost.model, 77, tp=2), strict=True):
        assert row[WEIGHT_BYTES] + 77 * row[TOKEN_BYTES] == pytest.approx(operator.bytes_per_call)
    np.testing.assert_array_equal(cost.linear[300], cost.encoder_operators.table(300)[300])
    np.testing.assert_array_equal(cost.decode_linear[24], cost.token_operators.table(24)[24])


def test_a_prompt_runs_the_encoder_and_one_start_token_by_hand() -> None:
    """One short prompt on a device of 100 TFLOP/s and 1 TB/s, half of each reached: everything streams its weights."""
    model = tiny_model(family="encoder_decoder", num_encoder_layers=3)
    cost = engine(model, plain_device(), host_per_step_s=1.0)
    seconds = cost.seconds(prompts(10))
    cross_kv = 1024 * 512
    encoder_layer = 1024 * 1536 + 1024 * 1024 + 1024 * 8192 + 4096 * 1024
    decoder_layer = encoder_layer + 2 * 1024 * 1024
    logits = 32000 * 1024
    weights_s = (3 * encoder_layer + 2 * cross_kv + 2 * decoder_layer + logits) * 2 / 0.5e12
    kernels = cost.encoder_operators.num_kernels + cost.token_operators.num_kernels  # type: ignore[union-attr]
    kernels += cost.sampling_operators.num_kernels - 2 - 2  # cache writes are part of the attention
    launches_s = (kernels + 3 + 2 * 2) * 1e-6  # an attention in each encoder layer, two in each decoder layer
    assert seconds[:HOST].sum() == pytest.approx(weights_s + launches_s, rel=0.02)
    assert seconds[:HOST].sum() > weights_s + launches_s


def test_prompts_cost_the_square_of_their_length() -> None:
    """4 heads head_dim FLOPs for each of n^2 pairs in every layer of the encoder, at half the peak."""
    model = tiny_model(family="encoder_decoder", num_encoder_layers=6)
    cost = engine(model, plain_device(), max_tokens=8192)
    coefficients = cost.attention[FIRST_KIND:]
    assert coefficients[attention.NUM_LAYERS] == 2
    long, longer = (
        attention.prefill_attention_seconds(1, length, length * (length + 1) / 2, length, 0, 0.0, 0.0, coefficients, 0)[
            0
        ]
        - coefficients[attention.PREFILL_LAUNCH_S]
        for length in (2048.0, 4096.0)
    )
    assert 2 * long == pytest.approx(6 * 4 * 8 * 128 * 2048**2 / 50e12, rel=1e-12)
    assert longer == pytest.approx(4 * long, rel=1e-12)


def test_a_decode_is_that_of_the_decoder_with_a_second_attention() -> None:
    model = models()["flan_t5_xxl"]
    both, alone = (engine(each, devices()["h100_sxm"]) for each in (model, decoder_stack(model)))
    one, other = both.seconds(decodes(1000)), alone.seconds(decodes(1000))
    cross_weights_s = 24 * 2 * 4096 * 4096 * 2 / devices()["h100_sxm"].memory.bandwidth_bytes_per_s
    assert one[:HOST].sum() > other[:HOST].sum() + cross_weights_s
    assert one[:HOST].sum() < other[:HOST].sum() + 3 * cross_weights_s  # launches of its kernels
    # the cache is read once, whatever part of it is the prompt
    few, many = (each.seconds(decodes(8000))[MEMORY] - each.seconds(decodes(1000))[MEMORY] for each in (both, alone))
    assert few == pytest.approx(many, rel=0.05)


@pytest.mark.parametrize("name", ["flan_t5_xxl", "bart_large_cnn"])
@pytest.mark.parametrize("tp", [1, 2])
def test_operator_table_adds_up_to_the_step(name: str, tp: int) -> None:
    cost = engine(models()[name], devices()["h100_sxm"], tp=tp, max_tokens=1024)
    for batch in BATCHES:
        table = cost.operator_table(**asdict(batch))
        assert sum(line.seconds for line in table) == pytest.approx(cost.seconds(batch).sum(), rel=1e-12)


def test_no_step_beats_the_roofline() -> None:
    device = devices()["h100_sxm"]
    cost = flan()
    for batch in BATCHES:
        table = cost.operator_table(**asdict(batch))
        flops, moved = sum(line.flops for line in table), sum(line.bytes for line in table)
        assert cost.seconds(batch).sum() >= flops / device.peak_flops_per_s["bf16"]
        if batch.num_prefill == 0:
            assert cost.seconds(batch).sum() >= 0.9 * moved / device.memory.bandwidth_bytes_per_s


def test_longer_prompts_never_take_less_time() -> None:
    cost = flan()
    total = [cost.seconds(prompts(length)).sum() for length in range(1, 1500)]
    assert (np.diff(total) >= -1e-12).all()


def test_work_of_a_run_is_that_of_its_steps() -> None:
    cost = flan()
    batches = (prompts(300), decodes(*[400] * 7))
    lines = [line for batch in batches for line in cost.operator_table(**asdict(batch))]
    # the start token is a sampled token of the prompt's step, so it is counted as the decode that it is
    flops, _ = cost.flops_bytes(2, 308, 8, 2800 + 300, 300 * 301 // 2, 300)
    assert flops == pytest.approx(sum(line.flops for line in lines), rel=1e-9)


def test_no_pipeline_through_two_stacks() -> None:
    with pytest.raises(ValueError, match="cannot be cut into pipeline stages"):
        flan(pp=2)


def test_encoder_alone_is_cheaper_than_the_prompt_step() -> None:
    model = models()["bart_large_cnn"]
    alone = engine(encoder_stack(model), devices()["h100_sxm"], max_tokens=1024)
    whole = engine(model, devices()["h100_sxm"], max_tokens=1024)
    assert (whole.linear[1:].sum(axis=1) > alone.linear[1:].sum(axis=1)).all()
