"""The ladder of loads, and the search on it: always the same rung, in few attempts."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from hermes_sim.explore.capacity.bracket import Limit, Tried, find_limit
from hermes_sim.explore.capacity.grid import LoadLadder


class Threshold:
    """Passes up to a rung; the excess is a curve that is 0 half a rung above it."""

    def __init__(self, limit: int, *, power: float = 1.0, known: bool = True) -> None:
        self.limit = limit
        self.power = power
        self.known = known
        self.asked: list[int] = []

    def __call__(self, rung: int) -> Tried:
        self.asked.append(rung)
        distance = rung - (self.limit + 0.5)
        excess = math.copysign(abs(distance) ** self.power, distance)
        return Tried(rung <= self.limit, excess if self.known else math.nan)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
def test_finds_the_limit_wherever_it_begins(known: bool, power: float) -> None:
    rng = np.random.default_rng(1)
    most_attempts = 0
    for _ in range(300):
        limit, start, step = int(rng.integers(-200, 200)), int(rng.integers(-200, 200)), int(rng.integers(1, 30))
        curve = Threshold(limit, power=power, known=known)
        found = find_limit(curve, start=start, step=step, least=-300, most=300)
        assert (found.low, found.high) == (limit, limit + 1)
        assert len(curve.asked) == len(set(curve.asked)) == len(found.tried)
        assert found.contradictions == []
        most_attempts = max(most_attempts, len(curve.asked))
    assert most_attempts <= 24


def test_a_straight_excess_is_interpolated() -> None:
    """Two to enclose it, one where the line passes zero, at most two beside it; bisection takes log2(100)."""
    curve = Threshold(37)
    find_limit(curve, start=0, step=100, least=-300, most=None)
    assert len(curve.asked) <= 5
    bisecting = Threshold(37, known=False)
    find_limit(bisecting, start=0, step=100, least=-300, most=None)
    assert len(bisecting.asked) in (2 + 6, 2 + 7)


def test_a_good_guess_takes_few() -> None:
    for guess in (36, 37, 38):
        curve = Threshold(37, known=False)
        find_limit(curve, start=guess, step=1, least=-300, most=None)
        assert len(curve.asked) <= 4


def test_hopeless_is_said_at_once() -> None:
    curve = Threshold(-1000)
    found = find_limit(curve, start=0, step=5, least=-300, most=None)
    assert (found.low, found.high) == (None, -300)
    assert curve.asked == [0, -5, -300]


def test_the_ends_of_what_may_be_tried() -> None:
    assert find_limit(Threshold(1000), start=0, step=5, least=-10, most=20).low == 20
    assert find_limit(Threshold(1000), start=50, step=5, least=-10, most=20).high is None
    assert find_limit(Threshold(-1000), start=-10, step=5, least=-10, most=20) == Limit(
        None, -10, {-10: Tried(False, -10 - (-1000 + 0.5))}
    )


def test_contradictions_are_reported() -> None:
    def ragged(rung: int) -> Tried:
        return Tried(rung in (-300, 0, 1, 2, 3, 4, 8))

    found = find_limit(ragged, start=0, step=8, least=-300, most=None)
    assert found.low == 8
    found = find_limit(ragged, start=12, step=4, least=-300, most=None)
    assert (found.low, found.high) == (8, 9)
    assert found.contradictions == []
    assert Limit(8, 9, {6: Tried(False), 8: Tried(True), 9: Tried(False)}).contradictions == [(6, 8)]


def test_rates_of_the_ladder() -> None:
    ladder = LoadLadder("requests/s", 0.02)
    values = [ladder.value(rung) for rung in range(-400, 400)]
    steps = np.diff(np.log(values))
    assert steps.min() > 0.0
    assert steps.max() <= math.log(1.02) + 2e-3
    assert ladder.value(0) == 1.0
    assert all(ladder.below(value) == rung for rung, value in zip(range(-400, 400), values, strict=True))
    assert ladder.below(1.019) == 0
    assert all(float(f"{value:.4g}") == value for value in values)
    fine = LoadLadder("requests/s", 0.0005)
    assert np.diff([fine.value(rung) for rung in range(3000)]).min() > 0.0


def test_clients_of_the_ladder() -> None:
    ladder = LoadLadder("clients", 0.1)
    values = [ladder.value(rung) for rung in range(60)]
    assert values[:20] == list(range(1, 21))
    assert all(value.is_integer() for value in values)
    assert (np.diff(values) >= 1).all()
    assert max(late / early for early, late in pairwise(values[10:])) <= 1.1 + 1e-12
    assert ladder.below(12.7) == 11
    assert ladder.below(0.3) == 0
