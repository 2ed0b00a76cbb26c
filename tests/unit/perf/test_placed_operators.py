"""Operators on several device groups and in arrays: by hand, against one group, and against their own laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.hardware.cim_array import AnalogArray, ArrayOperand, DigitalArray
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.operator import Operator
from hermes_sim.models.sparsity import Sparsity
from hermes_sim.perf.array_operators import ArrayOperators, array_products
from hermes_sim.perf.operator_classes import CLASSES, OperatorClass, token_crossings
from hermes_sim.perf.operator_rows import COMPUTE, HOST, MEMORY, NETWORK
from hermes_sim.perf.step_cost import LlmCost, StepBatch, build_llm_cost
from hermes_sim.perf.unit import Unit, UnitLink, UnitPlacement
from hermes_sim.perf.unit_kernel import unit_cost
from hermes_sim.state.arrays import NUM_UNIT_COLUMNS, UNIT_J
from tests.unit.perf.engines import plain_device, tiny_model

MACROS = DigitalArray(
    num_macros=16, rows=64, columns=32, clock="1 GHz", tree_cycles=6, operands={"int8": ArrayOperand(bits=8)},
    write_bandwidth="1 GB/s", energy_per_bit_product="1 pJ", energy_per_bit_written="2 pJ", macro_area_mm2=0.1,
)  # fmt: skip
LINK = UnitLink(bandwidth_bytes_per_s=1e9, latency_s=1e-5, energy_per_byte_j=1e-11)
DECODES = StepBatch(num_tokens=8, num_sampled=8, num_decode=8, decode_context_sum=8000, decode_context_max=1000)
MIXED = StepBatch(
    num_tokens=108, num_sampled=9, num_decode=8, decode_context_sum=8000, decode_context_max=1000,
    num_prefill=1, prefill_token_pairs=5050, prefill_context_sum=100,
)  # fmt: skip


def everything_on(unit: int, **elsewhere: int) -> dict[OperatorClass, int]:
    return {one: elsewhere.get(one, unit) for one in CLASSES}


def placed(unit_of: dict[OperatorClass, int], *, tp: int = 1, interleave_from_seqs: int | None = None) -> UnitPlacement:
    """Two plain devices, or as many as are named."""
    units = tuple(Unit(f"group{number}", plain_device(), tp) for number in range(max(unit_of.values()) + 1))
    links = {(a, b): LINK for a in range(len(units)) for b in range(len(units)) if a != b}
    return UnitPlacement(units, unit_of, links, interleave_from_seqs)


def cost_of(placement: UnitPlacement | None, model: ModelArchitecture | None = None, **keys: Any) -> LlmCost:
    stated: dict[str, Any] = {
        "tp": 1, "pp": 1, "ep": 1, "max_tokens": 256, "max_seqs": 32, "kv_dtype": "bf16",
        "tp_bandwidth_bytes_per_s": 1e11, "tp_latency_s": 1e-6, "pp_bandwidth_bytes_per_s": 1e11, "pp_latency_s": 1e-6,
        "host_per_step_s": 1e-4, "host_per_sequence_s": 1e-6, "graph_capture": True, "max_captured_seqs": 512,
    }  # fmt: skip
    return build_llm_cost(model or tiny_model(), plain_device(), placement=placement, **{**stated, **keys})


def account(cost: LlmCost, batch: StepBatch) -> tuple[float, np.ndarray[Any, Any]]:
    assert cost.linear_units is not None
    assert cost.decode_units is not None
    assert cost.sampled_units is not None
    out = np.zeros(NUM_UNIT_COLUMNS)
    joules = unit_cost(
        cost.linear_units, cost.decode_units, cost.sampled_units, cost.attention,
        batch.num_tokens, batch.num_sampled, batch.num_decode, batch.num_decode_tokens, batch.decode_context_sum,
        batch.decode_context_max, batch.num_prefill, batch.prefill_token_pairs, batch.prefill_context_sum, out,
    )  # fmt: skip
    return joules, out


@pytest.mark.parametrize("batch", [DECODES, MIXED], ids=["decodes", "mixed"])
def test_all_on_one_group_takes_the_time_of_a_plain_engine(batch: StepBatch) -> None:
    one = cost_of(placed(everything_on(0)))
    assert one.seconds(batch) == pytest.approx(cost_of(None).seconds(batch), rel=1e-12)


@pytest.mark.parametrize("batch", [DECODES, MIXED], ids=["decodes", "mixed"])
def test_energy_of_one_group_is_that_of_a_plain_engine(batch: StepBatch) -> None:
    """Idle power for the whole step and active power by what limits: the same watts."""
    one, plain = cost_of(placed(everything_on(0))), cost_of(None)
    joules, _ = account(one, batch)
    assert one.seconds(batch) @ one.power_w + joules == pytest.approx(plain.seconds(batch) @ plain.power_w, rel=1e-9)


def test_attention_elsewhere_adds_what_crosses() -> None:
    """Two layers: query, key, value out and the result back, 2 x 2 messages of 10 us, bytes at 1 GB/s."""
    model = tiny_model()
    unit_of = everything_on(0, attention=1, prefill_attention=1)
    out, back = token_crossings(model, unit_of, "decode")
    query, key_value = 8 * 128, 2 * 2 * 128
    assert (out.source, out.target, out.num_messages, out.bytes_per_token) == (0, 1, 2, 2 * 2 * (query + key_value))
    assert (back.source, back.target, back.num_messages, back.bytes_per_token) == (1, 0, 2, 2 * 2 * query)
    apart, together = cost_of(placed(unit_of)).seconds(DECODES), cost_of(None).seconds(DECODES)
    sent_s = 4 * 1e-5 + 8 * 2 * 2 * (2 * query + key_value) / 1e9
    assert apart[NETWORK] - together[NETWORK] == pytest.approx(sent_s, rel=1e-12)
    assert apart[[COMPUTE, MEMORY, HOST]] == pytest.approx(together[[COMPUTE, MEMORY, HOST]], rel=1e-12)


def test_prompts_attend_where_they_are_and_send_keys_and_values() -> None:
    unit_of = everything_on(0, attention=1)
    (sent,) = token_crossings(tiny_model(), unit_of, "prefill")
    assert (sent.source, sent.target, sent.num_messages) == (0, 1, 2)
    assert sent.bytes_per_token == 2 * 2 * (2 * 2 * 128)


def test_norms_elsewhere_cross_between_all_products() -> None:
    """A layer: 4 times out to products, 4 times back; the rotated query goes to attention from where the norms are."""
    there, back = token_crossings(tiny_model(), everything_on(0, rest=1), "decode")
    assert (there.num_messages, back.num_messages) == (2 * 4, 2 * 4)
    hidden, ff, query, key_value = 1024, 4096, 1024, 512
    out_of_linear = (query + key_value) + hidden + 2 * ff + hidden
    to_linear = hidden + (query + key_value) + hidden + ff
    assert there.bytes_per_token == 2 * 2 * out_of_linear
    assert back.bytes_per_token == 2 * 2 * to_linear


@pytest.mark.parametrize("batch", [DECODES, MIXED], ids=["decodes", "mixed"])
@pytest.mark.parametrize("turns", [None, 2])
def test_accounts_add_up_to_the_step(batch: StepBatch, turns: int | None) -> None:
    """One after the other, groups' seconds are those that compute and memory limit; in turns they are more."""
    cost = cost_of(placed(everything_on(0, attention=1), interleave_from_seqs=turns))
    joules, out = account(cost, batch)
    seconds = cost.seconds(batch)
    device_s = seconds[COMPUTE] + seconds[MEMORY]
    if turns is None:
        assert out[:UNIT_J].sum() == pytest.approx(device_s, rel=1e-9)
    else:
        assert out[:UNIT_J].sum() > device_s
        assert out[:UNIT_J].max() <= device_s + seconds[NETWORK]
    assert joules == pytest.approx(out[UNIT_J:].sum())


def test_halves_in_turns_take_the_longer_side_and_one_turn_of_the_shorter() -> None:
    """Two halves, two layers: max(a, b) + min(a, b) / 4."""
    unit_of = everything_on(0, attention=1)
    turns = cost_of(placed(unit_of, interleave_from_seqs=2))
    half = StepBatch(num_tokens=4, num_sampled=4, num_decode=4, decode_context_sum=4000, decode_context_max=1000)
    whole = cost_of(placed(unit_of))
    sampling_s = whole.sampled[8, :HOST].sum() - 2 * whole.sampled[4, :HOST].sum()
    attending_s = 2 * account(whole, half)[1][1]
    rest_s = 2 * whole.seconds(half)[:HOST].sum() - attending_s + sampling_s
    expected = max(attending_s, rest_s) + min(attending_s, rest_s) / 4
    assert turns.seconds(DECODES)[:HOST].sum() == pytest.approx(expected, rel=1e-9)


def test_decodes_attend_beside_the_prompts_of_their_step() -> None:
    """100 of 108 tokens are prompts': that share of all else can hide attention, and no more."""
    unit_of = everything_on(0, attention=1)
    apart, turns = cost_of(placed(unit_of)), cost_of(placed(unit_of, interleave_from_seqs=2))
    attending_s = account(apart, MIXED)[1][1]
    device_s = apart.seconds(MIXED)[:HOST].sum()
    hidden_s = min(attending_s, (device_s - attending_s) * 100 / 108) * 0.75
    assert turns.seconds(MIXED)[:HOST].sum() == pytest.approx(device_s - hidden_s, rel=1e-9)


def test_few_sequences_run_whole() -> None:
    unit_of = everything_on(0, attention=1)
    late = cost_of(placed(unit_of, interleave_from_seqs=16))
    assert late.seconds(DECODES) == pytest.approx(cost_of(placed(unit_of)).seconds(DECODES), rel=1e-12)


@pytest.mark.parametrize("turns", [None, 2])
@pytest.mark.parametrize("batch", [DECODES, MIXED], ids=["decodes", "mixed"])
def test_lines_of_the_operator_table_add_up(batch: StepBatch, turns: int | None) -> None:
    from hermes_sim.perf.operator_table import operator_costs

    cost = cost_of(placed(everything_on(0, attention=1, prefill_attention=1), interleave_from_seqs=turns))
    lines = operator_costs(cost, batch)
    assert sum(line.seconds for line in lines) == pytest.approx(cost.seconds(batch).sum(), rel=1e-9)
    assert {"group0_to_group1", "group1_to_group0"} <= {line.operator for line in lines}
    assert sum(line.flops for line in lines) == pytest.approx(
        sum(line.flops for line in operator_costs(cost_of(None), batch))
    )


def product(m: int, n: int, k: int, **keys: Any) -> Operator:
    return Operator("up", "gemm", m=m, n=n, k=k, dtype="int8", **keys)


def on_macros(array: DigitalArray | AnalogArray, operator: Operator, **keys: Any) -> ArrayOperators:
    products = array_products([operator], array, operator.m)
    stated = {"num_devices": 1, "names": ("up",), "activation_bytes": 2.0, "stays_frac": 1.0, **keys}
    return ArrayOperators(array=array, products=products, **stated)


def test_product_by_hand() -> None:
    """[128, 8] of 8 bits: 2 macros over k, 2 over n, side by side. 10 vectors x 8 cycles, 6 of the tree, 1 more."""
    operators = on_macros(MACROS, product(10, 8, 128))
    assert operators.total_tiles() == 4
    assert operators.seconds(0, 10) == (pytest.approx(87e-9), COMPUTE)
    assert operators.joules(10)[10] == pytest.approx(10 * 8 * 128 * 64e-12)


def test_more_macros_than_there_are_take_passes() -> None:
    """[512, 32]: 8 x 8 macros of 16: four passes; eight macros over k add up in three levels."""
    operators = on_macros(MACROS, product(10, 32, 512))
    assert operators.seconds(0, 10)[0] == pytest.approx((4 * 80 + 6 + 3) * 1e-9)


def test_weights_that_do_not_stay_are_written_in_every_step() -> None:
    """Three quarters of 8 x 128 bytes at 1 GB/s, before the product or, with a second set of cells, beside it."""
    operators = on_macros(MACROS, product(10, 8, 128), stays_frac=0.25)
    write_s = 0.75 * 8 * 128 / 1e9
    assert operators.seconds(0, 10) == (pytest.approx(write_s + 87e-9), MEMORY)
    twice = MACROS.model_copy(update={"write_overlaps": True})
    assert on_macros(twice, product(10, 8, 128), stays_frac=0.25).seconds(0, 10)[0] == pytest.approx(write_s)
    slow = on_macros(twice, product(10, 8, 128), stays_frac=0.25, read_bytes_per_s=0.5e9)
    assert slow.seconds(0, 10)[0] == pytest.approx(2 * write_s)
    moved = operators.bytes(np.array([1.0]), np.array([10.0]))[0]
    assert moved == pytest.approx(10 * (8 + 128) * 2 + 0.75 * 8 * 128)
    assert operators.joules(10)[10] == pytest.approx(10 * 8 * 128 * 64e-12 + 0.75 * 8 * 128 * 8 * 2e-12)


def test_power_limits_the_pace() -> None:
    """10 x 8 x 128 products of 64 pJ within 1 W."""
    limited = MACROS.model_copy(update={"power_limit_w": 1.0})
    assert on_macros(limited, product(10, 8, 128)).seconds(0, 10)[0] == pytest.approx(10 * 8 * 128 * 64e-12)


def test_zeros_that_are_skipped_take_neither_cells_nor_energy() -> None:
    """1:4 on four sub-macros: a quarter of k; fixed 2:4 half of it; dense macros all."""
    sparse = product(10, 8, 256, sparsity=Sparsity(layers_frac={"1:4": 1.0}))
    flexible = MACROS.model_copy(update={"num_sub_macros": 4})
    fixed = MACROS.model_copy(update={"patterns": ("2:4",)})
    tiles = [on_macros(array, sparse).total_tiles() for array in (MACROS, fixed, flexible)]
    assert tiles == [8, 4, 2]
    joules = [on_macros(array, sparse).joules(10)[10] for array in (MACROS, fixed, flexible)]
    assert joules == pytest.approx([10 * 8 * rows * 64e-12 for rows in (256, 128, 64)])


def test_a_mix_of_patterns_is_counted_by_layers() -> None:
    mix = product(10, 8, 256, count=4, sparsity=Sparsity(layers_frac={"1:4": 0.25, "2:4": 0.5}))
    flexible = MACROS.model_copy(update={"num_sub_macros": 4})
    assert on_macros(flexible, mix).total_tiles() == 1 * 2 + 2 * 4 + 1 * 8


def test_experts_stacked_in_tiers_take_turns() -> None:
    """Eight experts of one tile each, all reached: side by side in eight tiles, one by one in the tiers of one."""
    grouped = Operator("experts_up", "gemm", m=64, n=16, k=16, dtype="int8", num_groups=8)

    def tiles(num_tiers: int) -> ArrayOperators:
        array = AnalogArray(
            num_tiles=8, rows=16, columns=16, num_tiers=num_tiers, integration="100 ns", adc_conversion="100 ns",
            adc_bits=8, energy_per_mvm="1 nJ", dtypes=("int8",), tile_area_mm2=1.0,
        )  # fmt: skip
        products = array_products([grouped], array, 64, num_experts=8, experts_per_token=8)
        return ArrayOperators(array, 1, products, ("experts_up",), 2.0, 1.0)

    side_by_side, in_turns = tiles(1).seconds(0, 64)[0], tiles(8).seconds(0, 64)[0]
    assert side_by_side == pytest.approx((8 + 1) * 100e-9)
    assert in_turns == pytest.approx((64 + 1) * 100e-9)


@pytest.mark.parametrize("tokens", [1, 7, 64, 500])
@pytest.mark.parametrize(("n", "k"), [(8, 64), (30, 100), (4096, 4096)])
def test_no_product_beats_the_roofline_of_the_array(tokens: int, n: int, k: int) -> None:
    for array in (MACROS, MACROS.model_copy(update={"power_limit_w": 0.05})):
        operators = on_macros(array, product(tokens, n, k))
        fastest_s = 2.0 * tokens * n * k / array.peak_flops_per_s("int8")
        assert operators.seconds(0, tokens)[0] >= fastest_s * (1 - 1e-12)
        assert (np.diff(operators.table(64).sum(axis=1)) > 0).all()
