"""Which points a sweep has: grids, groups that move together, axes that are not everywhere, draws, constraints."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.explore.draws import draw_shares
from hermes_sim.explore.grid import sweep_points
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.scenario.sweep import SweepFile
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import RATE

REPLICAS = "cluster.engines.llm.replicas"
SEQS = "cluster.engines.llm.batching.max_num_seqs"


def axis(name: str, values: list[Any], **keys: Any) -> dict[str, Any]:
    return {"name": name, "key": SEQS, "values": values, **keys}


def sweep(*axes: dict[str, Any], **keys: Any) -> SweepFile:
    base = {"cluster": "box", "workload": "traffic"}
    return SweepFile.model_validate({"name": "small", "base": base, "axes": list(axes), **keys})


def rows(of: SweepFile) -> list[tuple[str, ...]]:
    return [tuple(point.values()) for point in sweep_points(of).points]


def test_zipped_axes_move_together_inside_a_grid() -> None:
    one = sweep(axis("a", [1, 2]), axis("b", ["x", "y", "z"]), axis("c", [8, 9]), zipped=[["a", "c"]])
    assert rows(one) == [
        ("1", "x", "8"), ("1", "y", "8"), ("1", "z", "8"), ("2", "x", "9"), ("2", "y", "9"), ("2", "z", "9"),
    ]  # fmt: skip


def test_zip_sampling_moves_all_axes_together() -> None:
    one = sweep(axis("a", [1, 2]), axis("b", ["x", "y"]), sampling={"kind": "zip"})
    assert rows(one) == [("1", "x"), ("2", "y")]


def test_an_axis_is_gone_through_only_where_it_is() -> None:
    one = sweep(axis("kind", ["one", "two"]), axis("ratio", [1, 2, 3], when={"kind": "two"}), axis("c", [7, 8]))
    assert [dict(point) for point in sweep_points(one).points if point["c"] == "7"] == [
        {"kind": "one", "c": "7"},
        *({"kind": "two", "ratio": ratio, "c": "7"} for ratio in ("1", "2", "3")),
    ]
    assert len(rows(one)) == 8


def test_draws_cross_the_axes_that_are_not_drawn() -> None:
    """The same draws at every value of the others: what differs between them is not the draw."""
    load = {"name": "rate", "key": RATE, "range": {"from": "1 /s", "to": "9 /s"}}
    one = sweep(axis("a", [1, 2]), load, sampling={"kind": "sobol", "num": 8, "seed": 3})
    found = rows(one)
    assert len(found) == 16
    assert [rate for a, rate in found if a == "1"] == [rate for a, rate in found if a == "2"]
    assert rows(one) == found
    other = one.model_copy(update={"sampling": one.sampling.model_copy(update={"seed": 4})})
    assert rows(other) != found


def test_all_axes_are_drawn_where_none_has_a_range_and_equal_points_are_run_once() -> None:
    one = sweep(axis("a", [1, 2]), axis("b", [3, 4]), sampling={"kind": "random", "num": 50})
    found = sweep_points(one)
    assert len(found.points) == 4
    assert found.num_twice == 46


def test_sobol_points_are_spread_evenly_whatever_the_seed() -> None:
    """Of 2^k points each of 2^k equal intervals of every axis has one, up to the shift that all points share."""
    for seed in (1, 2):
        shares = draw_shares("sobol", 64, 3, seed)
        for column in shares.T:
            gaps = [after - before for before, after in pairwise(sorted(column))]
            np.testing.assert_allclose(gaps, 1 / 64, atol=1e-12)
    assert draw_shares("sobol", 5, 2, 1).shape == (5, 2)


def test_what_a_constraint_leaves_out_is_counted() -> None:
    one = sweep(
        axis("a", [1, 2, 4]),
        axis("b", [1, 2, 4]),
        constraints=["a * b <= 8", {"require": "a >= b", "because": "wider first"}],
        skip=[{"when": {"a": 4, "b": 4}, "because": "never asked"}],
    )
    found = sweep_points(one)
    assert len(found.points) == 5
    assert found.left_out == {"a >= b (wider first)": 3, "never asked": 1}


def test_a_condition_on_an_axis_that_is_not_there_holds() -> None:
    one = sweep(axis("kind", ["one", "two"]), axis("n", [1, 9], when={"kind": "two"}), constraints=["n < 5"])
    assert rows(one) == [("one",), ("two", "1")]


def test_facts_and_keys_of_the_scenario_are_conditions_too(box: Box) -> None:
    replicas = {"name": "replicas", "key": REPLICAS, "values": [1, 2, 3, 4]}
    for condition in ("num_devices <= 2", f"{REPLICAS} <= 2", "num_llm_replicas < 3", "tdp_w <= 800"):
        plan = plan_sweep(sweep(replicas, constraints=[condition]))
        assert [run.point["replicas"] for run in plan.runs] == ["1", "2"], condition
        assert plan.left_out == {condition: 2}


def test_the_rent_is_that_of_the_runs_table(box: Box) -> None:
    one = plan_sweep(sweep({"name": "replicas", "key": REPLICAS, "values": [3]}))
    scenario = one.runs[0].scenario
    assert scenario is not None
    price = scenario.devices["a100_sxm_80gb"].usd_per_h
    replicas = {"name": "replicas", "key": REPLICAS, "values": [2, 3]}
    plan = plan_sweep(sweep(replicas, constraints=[f"rent_usd_per_h < {2.5 * price}"]))
    assert [run.point["replicas"] for run in plan.runs] == ["2"]


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("cluster.engines.lm.replicas < 3", "cluster.engines has no 'lm' (llm). Did you mean 'llm'?"),
        ("cluster.engines.llm.replica < 3", "Did you mean 'replicas'?"),
        ("cluster.engines < 3", "no single value"),
        ("a == 'x'", "constraints[0]: \"a == 'x'\" compares 1.0 with 'x', which are never equal (at a 1)"),
    ],
)
def test_a_condition_that_cannot_be_worked_out_is_an_error(box: Box, condition: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan_sweep(sweep(axis("a", [1, 2]), constraints=[condition]))
    assert problem in str(refused.value)


def test_a_sweep_without_a_point_is_an_error(box: Box) -> None:
    with pytest.raises(ConfigError, match="no point is left to run"):
        plan_sweep(sweep(axis("a", [1, 2]), constraints=["a > 2"]))
