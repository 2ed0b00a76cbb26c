"""Sequence parallelism and communication beside compute: laws, and a pass by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.perf.operator_rows import COMPUTE, MEMORY, NETWORK
from hermes_sim.perf.operator_table import StepBatch, operator_costs
from hermes_sim.perf.operators.collective import all_gather_seconds
from hermes_sim.perf.step_cost import LlmCost
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine, plain_device, tiny_model

COUNTS = (1, 16, 256, 2048)


def llama(**changes: Any) -> LlmCost:
    return engine(models()["llama_3_8b"], devices()["h100_sxm"], tp=4, **changes)


@pytest.mark.parametrize("overlap_frac", [0.0, 0.3, 0.9, 1.0])
def test_overlap_hides_no_more_than_its_share_and_no_more_than_there_is_work(overlap_frac: float) -> None:
    """max(device, network) <= time <= device + network; the device's own time stays."""
    plain, beside = llama(), llama(comm_overlap_frac=overlap_frac)
    device_s = plain.linear[:, COMPUTE] + plain.linear[:, MEMORY]
    network_s = plain.linear[:, NETWORK]
    total_s = beside.linear.sum(axis=1)
    np.testing.assert_array_equal(beside.linear[:, [COMPUTE, MEMORY]], plain.linear[:, [COMPUTE, MEMORY]])
    assert np.all(total_s >= np.maximum(device_s, network_s) * (1.0 - 1e-12))
    hidden_s = np.minimum(overlap_frac * network_s, device_s)
    np.testing.assert_allclose(total_s, plain.linear.sum(axis=1) - hidden_s, rtol=1e-12)


def test_slow_network_shows_what_work_cannot_hide() -> None:
    """A network of 1 MB/s: hidden for as long as the device works, and no longer."""
    slow = {"tp_bandwidth_bytes_per_s": 1e6}
    plain, beside = llama(**slow), llama(**slow, comm_overlap_frac=1.0)
    device_s = plain.linear[256, COMPUTE] + plain.linear[256, MEMORY]
    assert beside.linear[256, NETWORK] == pytest.approx(plain.linear[256, NETWORK] - device_s, rel=1e-12)


@pytest.mark.parametrize("changes", [{"comm_overlap_frac": 0.5}, {"sequence_parallel": True}])
def test_the_operators_add_up_to_the_step(changes: dict[str, Any]) -> None:
    cost = llama(**changes)
    batch = StepBatch(num_tokens=512, num_sampled=1, num_prefill=1, prefill_token_pairs=131328, prefill_context_sum=512)
    table = operator_costs(cost, batch)
    assert sum(row.seconds for row in table) == pytest.approx(float(cost.seconds(batch).sum()), rel=1e-9)


def test_sequence_parallel_pass_by_hand() -> None:
    """Two exchanges of (p - 1) / p bytes for each all-reduce; norms on a quarter of the tokens, weights apart."""
    model, device = tiny_model(), plain_device()
    plain, split = (engine(model, device, tp=4, sequence_parallel=on) for on in (False, True))
    names = split.token_operators.names
    assert "all_reduce" not in names
    for num_tokens in COUNTS:
        exchange_s = all_gather_seconds(
            num_tokens * 1024 * 2.0,
            4,
            split.token_operators.settings[1],
            split.token_operators.settings[2],
        )
        for name in ("reduce_scatter", "all_gather"):
            seconds, resource = split.token_operators.seconds(names.index(name), num_tokens)
            assert resource == NETWORK
            assert seconds == pytest.approx((1 + 2 * model.num_layers) * exchange_s, rel=1e-12)
    norm = [cost.token_operators.seconds(cost.token_operators.names.index("norm"), 4096)[0] for cost in (plain, split)]
    launches_s = plain.token_operators.rows[plain.token_operators.names.index("norm"), 1] * 1e-6
    assert (norm[0] - launches_s) / (norm[1] - launches_s) == pytest.approx(4.0, rel=1e-6)
    assert split.token_operators.num_kernels == plain.token_operators.num_kernels + 1 + 2 * model.num_layers


def test_sequence_parallel_of_one_device_is_none() -> None:
    plain, split = (engine(tiny_model(), plain_device(), sequence_parallel=on) for on in (False, True))
    np.testing.assert_array_equal(plain.linear, split.linear)
