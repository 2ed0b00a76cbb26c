"""What a search is made of: ranks and fronts, the Gaussian process, the coordinates of points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from hermes_sim.explore.search.ranking import front_of, goes_on, hypervolume, knee_of, ranks
from hermes_sim.explore.search.space import SearchSpace
from hermes_sim.explore.search.surrogate import _loss, _squares, fitted
from hermes_sim.explore.search.table import half_width
from hermes_sim.scenario.axis import Axis

WITHIN = np.zeros(5)
LOSSES = np.array([[1.0, 5.0], [2.0, 3.0], [3.0, 3.0], [4.0, 1.0], [5.0, 5.0]])


def test_the_front_holds_what_nothing_dominates() -> None:
    assert front_of(LOSSES, WITHIN).tolist() == [0, 1, 3]
    assert front_of(LOSSES, np.array([0, 0.1, 0, 0, 0])).tolist() == [0, 2, 3]
    assert front_of(LOSSES[:, :1], WITHIN).tolist() == [0]
    assert front_of(np.array([[2.0, 2.0], [2.0, 2.0], [np.inf, 1.0]]), np.zeros(3)).tolist() == [0]
    assert front_of(LOSSES, np.ones(5)).tolist() == []


def test_ranks_are_fronts_and_then_distance_from_the_limits() -> None:
    assert ranks(LOSSES, WITHIN).tolist() == [0, 0, 1, 0, 2]
    assert ranks(LOSSES, np.array([0, 0.3, 0, 0.1, 0.2])).tolist() == [0, 3, 0, 1, 2]


def test_one_of_three_goes_on() -> None:
    """Of nine different values each is last once: the three best go on, and whoever is first of all."""
    values = np.arange(9.0)
    went_on = [goes_on(np.append(np.delete(values, one), values[one])[:, None], np.zeros(9), 3.0) for one in range(9)]
    assert went_on == [True] * 3 + [False] * 6
    assert goes_on(np.array([[7.0]]), np.zeros(1), 3.0)
    assert not goes_on(np.array([[1.0], [7.0]]), np.zeros(2), 3.0)
    assert goes_on(np.array([[1.0, 7.0], [7.0, 1.0]]), np.zeros(2), 3.0)
    assert not goes_on(np.array([[7.0], [1.0]]), np.array([0.0, 0.2]), 3.0)


def test_the_knee_is_farthest_from_the_line_between_the_ends() -> None:
    front = np.array([[0.0, 10.0], [1.0, 4.0], [5.0, 3.0], [10.0, 0.0]])
    distances = (10.0 - front.sum(axis=1)) / np.sqrt(2)
    assert knee_of(front) == int(np.argmax(distances)) == 1
    assert knee_of(front * [1.0, 1000.0]) == 1


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4])
def test_hypervolume_is_the_volume_that_is_dominated(num_objectives: int) -> None:
    chance = np.random.default_rng(num_objectives)
    losses = chance.random((12, num_objectives))
    places = chance.random((40_000, num_objectives))
    dominated = (losses[:, None, :] <= places[None, :, :]).all(axis=2).any(axis=0).mean()
    assert hypervolume(losses, np.ones(num_objectives)) == pytest.approx(dominated, abs=0.01)


def test_hypervolume_by_hand() -> None:
    assert hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0])) == 3.0
    assert hypervolume(np.array([[4.0, 0.0]]), np.array([3.0, 3.0])) == 0.0


def test_the_process_goes_through_what_it_has_seen_and_is_unsure_elsewhere() -> None:
    chance = np.random.default_rng(1)
    features = chance.random((40, 3))
    values = np.sin(5 * features[:, 0]) + features[:, 1] ** 2
    model = fitted(features, values, np.arange(3))
    mean, spread = model.at(features)
    assert mean == pytest.approx(values, abs=0.02)
    other = chance.random((200, 3))
    mean_there, spread_there = model.at(other)
    errors = mean_there - np.sin(5 * other[:, 0]) - other[:, 1] ** 2
    assert np.abs(errors).max() < 0.25
    assert (np.abs(errors) < 4 * spread_there + 0.02).mean() > 0.97
    assert spread.mean() < 0.5 * spread_there.mean()
    assert model.lengths[2] > 3 * model.lengths[0]  # the third does not matter


def test_the_gradient_is_that_of_the_loss() -> None:
    chance = np.random.default_rng(2)
    features, targets = chance.random((15, 3)), chance.standard_normal(15)
    squares = _squares(features, features, np.array([0, 0, 1]), 2)
    logs = np.array([-0.3, 0.4, -4.0])
    assert _loss(logs, squares, targets)[1] == pytest.approx(
        approx_fprime(logs, lambda at: _loss(at, squares, targets)[0], 1e-7), rel=1e-3
    )


def test_believing_makes_surer_and_no_wiser() -> None:
    chance = np.random.default_rng(3)
    features = chance.random((20, 2))
    model = fitted(features, features.sum(axis=1) ** 2, np.arange(2))
    pending = np.array([[0.9, 0.1]])
    after = model.believing(pending)
    other = chance.random((30, 2))
    assert after.at(other)[0] == pytest.approx(model.at(other)[0], abs=1e-6)
    assert after.at(pending)[1] < 0.5 * model.at(pending)[1]


def test_coordinates_of_points() -> None:
    axes = [
        {"name": "kind", "values": [{"name": name, "set": {"workload.seed": 1}} for name in ("a", "b")]},
        {"name": "width", "key": "workload.seed", "values": [1, 2, 4, 8], "when": {"kind": "a"}},
        {"name": "few", "key": "workload.seed", "values": [10, 20, 30]},
        {"name": "any", "key": "workload.seed", "range": {"from": 1.0, "to": 100.0, "scale": "log"}},
    ]
    space = SearchSpace(tuple(Axis.model_validate(axis) for axis in axes))
    some = {"kind": "a", "width": 1, "few": 1, "any": 0.5}
    other = {"kind": "b", "few": 2, "any": 0.0}
    features = space.features([some, other])
    assert features == pytest.approx(np.array([[0.5**0.5, 0, 1 / 3, 0.5, 0.5], [0, 0.5**0.5, 0.5, 1.0, 0.0]]))
    assert space.groups.tolist() == [0, 0, 1, 2, 3]
    assert space.point(some) == {"kind": "a", "width": "2", "few": "20", "any": "10"}
    assert space.point(other) == {"kind": "b", "few": "30", "any": "1"}
    assert space.listed is None
    closed = SearchSpace(space.axes[:3])
    assert closed.listed is not None
    assert len(closed.listed) == closed.num_points == 3 * (4 + 1)
    chance = np.random.default_rng(0)
    for _ in range(200):
        one = space.changed(space.random(chance), chance)
        assert ("width" in one) == (one["kind"] == "a")
        assert 1 <= float(space.point(one)["any"]) <= 100


def test_half_width_of_three_seeds() -> None:
    """Student's t with two degrees of freedom: 4.303."""
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert np.isnan(half_width([1.0]))
    assert half_width([2.0, 2.0]) == 0
