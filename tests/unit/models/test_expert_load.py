"""Shares of the experts, by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hermes_sim.models.expert_load import EXPERT_LOADS, GivenLoad, UniformLoad, ZipfLoad


def test_uniform_shares() -> None:
    assert UniformLoad().expert_shares(4) == (0.25,) * 4


def test_zipf_shares_fall_with_the_rank_and_are_scattered() -> None:
    shares = ZipfLoad(exponent=1.0).expert_shares(4)
    weights = [12 / 25, 6 / 25, 4 / 25, 3 / 25]  # 1, 1/2, 1/3, 1/4 of 25/12
    assert sorted(shares, reverse=True) == pytest.approx(weights, rel=1e-12)
    many = ZipfLoad(exponent=1.0).expert_shares(256)
    hottest = sorted(range(256), key=lambda expert: -many[expert])[:32]
    halves = [sum(expert // 32 == share for expert in hottest) for share in range(8)]
    assert max(halves) < 12, "the popular experts lie on many devices"
    assert many == ZipfLoad(exponent=1.0).expert_shares(256)
    assert ZipfLoad(exponent=0.0).expert_shares(8) == pytest.approx([1 / 8] * 8)


def test_given_shares_are_proportions_in_the_order_of_the_experts() -> None:
    assert GivenLoad(shares=(3.0, 0.0, 1.0)).expert_shares(3) == (0.75, 0.0, 0.25)
    with pytest.raises(ValueError, match="3 shares are given for 8 experts"):
        GivenLoad(shares=(3.0, 0.0, 1.0)).expert_shares(8)


@pytest.mark.parametrize("shares", [(), (0.0, 0.0), (1.0, -1.0)])
def test_shares_without_load_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        GivenLoad(shares=shares)


@pytest.mark.parametrize("kind", EXPERT_LOADS)
def test_every_kind_sums_to_one(kind: str) -> None:
    given = {"shares": [5.0, 1.0, 1.0, 3.0]} if kind == "given" else {}
    load = EXPERT_LOADS[kind].model_validate({"kind": kind, **given})
    assert sum(load.expert_shares(4)) == pytest.approx(1.0, rel=1e-12)
