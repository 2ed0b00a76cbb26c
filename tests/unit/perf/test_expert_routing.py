"""Expected experts and rows of the busiest share, against routing drawn at random."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from hermes_sim.models.expert_load import GivenLoad, UniformLoad, ZipfLoad
from hermes_sim.perf.expert_routing import (
    busiest_rows,
    distinct_experts,
    expert_rates,
    mean_distinct_experts,
    skewed_experts,
)
from tests.unit.hardware.shipped import devices
from tests.unit.models.shipped_models import models
from tests.unit.perf.engines import engine

FloatArray = npt.NDArray[np.float64]


def shares_of(load: ZipfLoad | UniformLoad | GivenLoad, num_experts: int) -> FloatArray:
    return np.array(load.expert_shares(num_experts))


def route(rng: np.random.Generator, chances: FloatArray, num_tokens: int) -> npt.NDArray[np.int64]:
    """Rows of every expert: each token draws k different experts with the given chances (systematic sampling)."""
    rows = np.zeros(len(chances), np.int64)
    k = round(chances.sum())
    for _ in range(num_tokens):
        order = rng.permutation(len(chances))
        edges = np.concatenate([[0.0], np.cumsum(chances[order])])
        chosen = np.searchsorted(edges, rng.random() + np.arange(k), side="right") - 1
        rows[order[np.minimum(chosen, len(chances) - 1)]] += 1
    return rows


def test_chances_are_shares_times_experts_per_token_and_at_most_one() -> None:
    rates = expert_rates(np.array([0.7, 0.1, 0.1, 0.1]), 2, 2)
    # the first would be chosen 1.4 times: once for sure, and the rest is dealt to the others
    np.testing.assert_allclose(rates, [[1.0, 1 / 3], [1 / 3, 1 / 3]])


def test_shares_are_blocks_of_consecutive_experts_the_first_ones_larger() -> None:
    rates = expert_rates(np.arange(1, 11) / 55.0, 1, 4)
    np.testing.assert_allclose(rates * 55.0, [[1, 2, 3], [4, 5, 6], [7, 8, 0], [9, 10, 0]])


def test_load_on_too_few_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="chooses 2 experts, but only 1 get any load"):
        expert_rates(np.array([1.0, 0.0, 0.0]), 2, 1)


@pytest.mark.parametrize("ep", [1, 4, 16])
@pytest.mark.parametrize("num_tokens", [1.0, 7.0, 300.0, 8192.0])
def test_equal_rates_give_the_uniform_formulas(ep: int, num_tokens: float) -> None:
    rates = expert_rates(np.full(128, 1 / 128), 8, ep)
    num_rows, distinct = skewed_experts(rates, num_tokens)
    mean = num_tokens * 8 / ep
    assert num_rows == pytest.approx(min(busiest_rows(mean, ep), num_tokens * 8, num_tokens * 128 / ep), rel=1e-9)
    assert distinct == pytest.approx(distinct_experts(num_tokens, 128, 8) / ep, rel=1e-9)
    assert mean_distinct_experts(rates, num_tokens) == pytest.approx(distinct, rel=1e-9)


@pytest.mark.parametrize("load", [ZipfLoad(exponent=0.5), ZipfLoad(exponent=1.2), ZipfLoad(exponent=0.1)])
@pytest.mark.parametrize(("num_tokens", "num_draws", "too_high"), [(16, 400, 0.2), (256, 60, 0.05)])
def test_expectations_agree_with_routing_at_random(
    load: ZipfLoad, num_tokens: int, num_draws: int, too_high: float
) -> None:
    """Experts read within the error of the draws; rows of the busiest share no lower, and a little too high.

    A token's k different experts spread more evenly than rows thrown one by one, which the formula supposes.
    """
    ep, k, num_experts = 4, 4, 32
    rates = expert_rates(shares_of(load, num_experts), k, ep)
    rng = np.random.default_rng(5)
    drawn = np.array([route(rng, rates.reshape(-1), num_tokens) for _ in range(num_draws)])
    by_share = drawn.reshape(num_draws, ep, -1)
    num_rows, largest_distinct = skewed_experts(rates, float(num_tokens))
    distinct = (by_share > 0).sum(axis=2)
    assert mean_distinct_experts(rates, num_tokens) == pytest.approx(distinct.mean(), rel=0.02)
    assert largest_distinct == pytest.approx(distinct.mean(axis=0).max(), rel=0.03)
    busiest = by_share.sum(axis=2).max(axis=1).mean()
    assert 0.99 * busiest <= num_rows <= (1.0 + too_high) * busiest


def test_one_hot_share_gets_its_mean() -> None:
    """Half of all rows fall on two of 32 experts of the first share: no other comes near."""
    shares = np.full(32, 0.5 / 30)
    shares[:2] = 0.25
    rates = expert_rates(shares, 2, 4)
    mean = 4096 * rates[0].sum()
    assert skewed_experts(rates, 4096.0)[0] == pytest.approx(mean, rel=1e-4)


def test_no_share_gets_more_rows_than_there_are() -> None:
    rates = expert_rates(np.array([0.97, 0.01, 0.01, 0.01]), 1, 4)
    for num_tokens in (1.0, 2.0, 5.0):
        assert skewed_experts(rates, num_tokens)[0] <= num_tokens


def test_rows_and_experts_never_fall_with_tokens() -> None:
    rates = expert_rates(shares_of(ZipfLoad(exponent=0.8), 60), 6, 8)
    found = np.array([skewed_experts(rates, float(num_tokens)) for num_tokens in range(1, 400)])
    assert (np.diff(found, axis=0) > 0.0).all()


def test_uniform_load_is_what_an_engine_has_anyway() -> None:
    model, device = models()["qwen3_30b_a3b"], devices()["h100_sxm"]
    plain, stated = (engine(model, device, tp=4, ep=4, expert_load=load) for load in (None, UniformLoad()))
    np.testing.assert_array_equal(plain.linear, stated.linear)


def test_a_skewed_load_slows_large_batches_and_spares_small_ones() -> None:
    """Many tokens wait for the busiest device; few tokens on the same experts read fewer weights."""
    model, device = models()["qwen3_30b_a3b"], devices()["h100_sxm"]
    shares = [100.0] * 16 + [1.0] * 112
    even, skewed = (
        engine(model, device, tp=1, ep=1, max_tokens=4096, expert_load=load).linear.sum(axis=1)
        for load in (None, GivenLoad(shares=tuple(shares)))
    )
    assert skewed[16] < 0.8 * even[16]
    even, skewed = (
        engine(model, device, tp=4, ep=4, max_tokens=4096, expert_load=load).linear.sum(axis=1)
        for load in (None, GivenLoad(shares=tuple(shares)))
    )
    assert skewed[4096] > 1.2 * even[4096]


@pytest.mark.parametrize("exponent", [0.3, 1.0])
def test_more_tokens_never_take_less_time(exponent: float) -> None:
    for name in ("mixtral_8x7b", "deepseek_r1"):
        load = ZipfLoad(exponent=exponent)
        total = engine(models()[name], devices()["h100_sxm"], tp=8, ep=8, max_tokens=1500, expert_load=load)
        assert (np.diff(total.linear.sum(axis=1)) >= -1e-15).all()


def test_work_of_skewed_experts_is_that_of_the_mean_device() -> None:
    """Bytes of a step: the distinct experts of the load, on average over the devices."""
    model = models()["mixtral_8x7b"]
    load = GivenLoad(shares=(5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    costs = [engine(model, devices()["h100_sxm"], tp=2, ep=2, expert_load=each) for each in (None, load)]
    one = [cost.token_operators.bytes(1, 3) for cost in costs]
    expert_bytes = 3 * model.hidden_size * 14336 * 2 * model.num_layers
    chances = expert_rates(np.array(load.expert_shares(8)), 2, 1)[0]
    fewer = (1 - (1 - 2 / 8) ** 3) * 8 - sum(1 - (1 - chance) ** 3 for chance in chances)
    assert one[0] - one[1] == pytest.approx(fewer / 2 * expert_bytes, rel=1e-6)
    assert math.isclose(costs[0].token_operators.flops(3), costs[1].token_operators.flops(3))
