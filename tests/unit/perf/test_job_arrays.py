"""Jobs on compute-in-memory devices: one product by hand, shares of workers, what stays, and what stands beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hermes_sim.hardware.cim_array import AnalogArray, ArrayOperand
from hermes_sim.hardware.device import Companion, Device, beside_the_array
from hermes_sim.models.forward import encoder_operators
from hermes_sim.models.operator import Operator
from hermes_sim.perf.job_arrays import array_share, multiplies_weights, needed_tiles, on_arrays, product_weight_bytes
from hermes_sim.perf.job_cost import active_joules, batch_seconds, build_job_curve, job_operator_costs, moved
from hermes_sim.perf.operator_table import operator_costs
from hermes_sim.perf.step_cost import StepBatch
from hermes_sim.perf.unit import Unit, UnitPlacement
from hermes_sim.perf.worker import COMPUTE, MEMORY, Worker
from tests.stage_examples import EXAMPLES, MODELS, example
from tests.unit.perf.engines import plain_device, tiny_model
from tests.unit.perf.test_placed_operators import MACROS, cost_of, everything_on

UP = Operator("up", "gemm", m=10, n=8, k=128, dtype="int8")


def card(**array: Any) -> Device:
    """Sixteen macros beside the units of a plain device."""
    plain = plain_device()
    companion = Companion(peak={"bf16": "100 TFLOP/s", "fp32": "10 TFLOP/s"})
    return plain.model_copy(update={"array": MACROS.model_copy(update=array), "companion": companion})


def worker_of(device: Device, *passes: tuple[Operator, ...], num_cores: int | None = None) -> Worker:
    return on_arrays(Worker(device, num_cores or device.num_cores, 1), passes or [(UP,)])


def test_product_by_hand() -> None:
    """As of a language model: 10 vectors of 8 cycles, 6 of the tree, 1 to add two macros; no kernel is launched."""
    worker = worker_of(card())
    assert worker.weights_stay_frac == 1.0
    seconds = batch_seconds((UP,), worker)
    assert seconds[COMPUTE] == pytest.approx(87e-9)
    assert seconds.sum() == pytest.approx(87e-9)
    assert active_joules((UP,), worker) == pytest.approx(10 * 8 * 128 * 64e-12)
    assert moved(UP, worker) == pytest.approx(10 * (8 + 128))
    (line,) = job_operator_costs((UP,), worker)
    assert (line.seconds, line.bound) == (pytest.approx(87e-9), "compute")


def test_what_does_not_fit_is_written_again_for_every_batch() -> None:
    """Networks of 64 macros on 16: three quarters of 8 x 128 bytes at 1 GB/s."""
    device = card(residency="reload")
    worker = worker_of(device, (UP,), (replace(UP, count=15),))
    assert needed_tiles([(UP,), (replace(UP, count=15),)], MACROS) == 64
    assert worker.weights_stay_frac == 0.25
    seconds = batch_seconds((UP,), worker)
    write_s = 0.75 * 8 * 128 / min(1e9, device.memory.bandwidth_bytes_per_s)
    assert seconds[MEMORY] == pytest.approx(write_s + 87e-9)
    written_j = 0.75 * 8 * 128 * 8 * 2e-12
    assert active_joules((UP,), worker) == pytest.approx(10 * 8 * 128 * 64e-12 + written_j)
    assert moved(UP, worker) == pytest.approx(10 * (8 + 128) + 0.75 * 8 * 128)


def test_a_worker_has_its_share_of_macros_ports_and_power() -> None:
    device = card(power_limit_w=8.0)
    half = array_share(device, device.num_cores // 2)
    assert half is not None
    assert (half.num_macros, half.power_limit_w) == (8, 4.0)
    assert half.write_bytes_per_s == 0.5e9
    twice = array_share(device, 2 * device.num_cores)
    assert twice is not None
    assert twice.num_macros == 32
    assert array_share(device, device.num_cores) is device.array
    tiles = AnalogArray(
        num_tiles=8, rows=16, columns=16, num_tiers=4, integration="100 ns", adc_conversion="100 ns", adc_bits=8,
        energy_per_mvm="1 nJ", dtypes=("int8",), tile_area_mm2=1.0,
    )  # fmt: skip
    part = array_share(device.model_copy(update={"array": tiles}), device.num_cores // 4)
    assert part is not None
    assert (part.num_macros, part.num_tiers) == (2, 4)


def test_everything_without_weights_is_the_companions() -> None:
    """Norms, attention and searches cost what they do on the device beside the array."""
    stage = example("flat")
    attention = [one for one in encoder_operators(tiny_model(), 64, 64) if one.kind != "gemm"]
    device = card()
    beside = Worker(beside_the_array(device), device.num_cores, 1)
    for operators in (tuple(attention), stage.work(4.0, 1.0, MODELS)):
        assert batch_seconds(operators, worker_of(device)) == pytest.approx(batch_seconds(operators, beside))
    seconds = batch_seconds(tuple(attention), worker_of(device))
    power = device.power
    above_w = np.maximum(power.tdp_w * np.array([power.compute_bound_frac, power.memory_bound_frac]) - power.idle_w, 0)
    drawn_j = float(seconds[:2] @ above_w)
    assert active_joules(tuple(attention), worker_of(device)) == pytest.approx(drawn_j)


def test_a_device_without_an_array_is_as_it_was() -> None:
    worker = Worker(plain_device(), 1, 1)
    assert on_arrays(worker, [(UP,)]) is worker
    assert active_joules((UP,), worker) == 0.0
    assert not build_job_curve(lambda units: (UP,), worker, max_units=3).active_j.any()


def test_a_pass_costs_what_a_prompt_of_a_language_model_does() -> None:
    """The same products in the same array: equal seconds, one by one."""
    model = tiny_model()
    device = card(num_macros=1_000_000, operands={"bf16": ArrayOperand(bits=12)})
    prompt = StepBatch(num_tokens=64, num_sampled=1, num_prefill=1, prefill_token_pairs=2080, prefill_context_sum=64)
    cost = cost_of(UnitPlacement((Unit("cim", device, 1),), everything_on(0), {}), model)
    of_prompt = {line.operator: line.seconds for line in operator_costs(cost, prompt)}
    operators = encoder_operators(model, 64, 64)
    of_pass = {line.operator: line.seconds for line in job_operator_costs(operators, worker_of(device, operators))}
    for name in ("qkv", "out", "up", "down", "norm", "act"):
        assert of_pass[name] == pytest.approx(of_prompt[name], rel=1e-12)


def test_experts_are_reached_as_their_rows_choose_them() -> None:
    """Eight experts of a macro each, 64 rows: all work side by side on 8 rows each."""
    grouped = Operator("experts_up", "gemm", m=64, n=4, k=64, dtype="int8", num_groups=8)
    worker = worker_of(card(), (grouped,))
    assert needed_tiles([(grouped,)], MACROS) == 8
    assert batch_seconds((grouped,), worker)[COMPUTE] == pytest.approx((8 * 8 + 6) * 1e-9, rel=1e-3)
    assert product_weight_bytes([(grouped,)]) == 8 * 4 * 64


@pytest.mark.parametrize("name", [name for name in EXAMPLES if example(name).runs_on == "jobs"])
def test_weights_of_one_pass_are_those_of_the_stage(name: str) -> None:
    """Embeddings and norms are the rest; layers that share their weights (ALBERT) and pictures' steps count once."""
    stage = example(name)
    products = product_weight_bytes([stage.one_pass(MODELS)])
    if any(multiplies_weights(one) for one in stage.one_pass(MODELS)):
        assert 0.3 * stage.resident_bytes(MODELS) < products <= 1.01 * stage.resident_bytes(MODELS)
    else:
        assert products == 0.0
