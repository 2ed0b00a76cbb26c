"""Axes: which points there are, and what a point's scenario is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.schema import Description
from hermes_sim.explore.grid import narrowed, point_scenario, sweep_points
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.scenario import files
from hermes_sim.scenario.document import Document
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import RATE, axes, study


def test_every_combination_is_a_point_but_those_skipped() -> None:
    one = study(skip=[{"when": {"batching": "whole", "rate": ["2 /s", "8 /s"]}, "because": "it falls behind"}])
    assert [tuple(point.values()) for point in sweep_points(one).points] == [
        ("chunked", "1 /s"), ("chunked", "2 /s"), ("chunked", "8 /s"), ("whole", "1 /s"),
    ]  # fmt: skip
    assert sweep_points(one).left_out == {"it falls behind": 2}


def test_narrowed_axes_keep_their_order() -> None:
    one = study()
    assert [axis.names for axis in narrowed(one.axes, {"rate": ("8 /s", "1 /s")})] == [
        ("chunked", "whole"),
        ("1 /s", "8 /s"),
    ]


def test_a_point_sets_what_its_values_say(box: Box) -> None:
    one = study()
    scenario = point_scenario(one.base, one.axes, {"batching": "whole", "rate": "2 /s"})
    assert scenario.cluster.engines[0].batching.kind == "continuous"
    assert scenario.workload.traffic.arrivals is not None
    assert scenario.workload.traffic.arrivals.rate_per_s == 2.0


def test_a_later_axis_wins_and_the_last_word_over_all(box: Box) -> None:
    twice = [*axes(), {"name": "again", "key": RATE, "values": ["5 /s"]}]
    one = study(axes=twice, base={"cluster": "box", "workload": "traffic", "set": {RATE: "9 /s"}})
    point = {"batching": "whole", "rate": "2 /s", "again": "5 /s"}
    for last, expected in (({}, 5.0), ({RATE: "7 /s"}, 7.0)):
        arrivals = point_scenario(one.base, one.axes, point, last=last).workload.traffic.arrivals
        assert arrivals is not None
        assert arrivals.rate_per_s == expected


def test_an_axis_takes_other_files(box: Box) -> None:
    box.write("long.yaml", box.workload(output=500))
    others = [
        {"name": "load", "values": [{"name": "short", "workload": "traffic"}, {"name": "long", "workload": "long"}]}
    ]
    one = study(axes=others)
    names = [point_scenario(one.base, one.axes, {"load": name}).workload.name for name in ("short", "long")]
    assert names == ["traffic", "long"]


def test_a_wrong_key_is_blamed_on_the_value_that_sets_it(box: Box) -> None:
    wrong = [{"name": "size", "values": [{"name": "big", "set": {"cluster.engines.llm.replica": 2}}]}]
    with pytest.raises(ConfigError, match=r"small size 'big' engines.*unknown key. Did you mean 'replicas'"):
        plan_sweep(study(axes=wrong))


def test_a_wrong_point_among_good_ones_is_planned_as_a_failure(box: Box) -> None:
    one = study(axes=[{"name": "tp", "key": "cluster.engines.llm.parallel.tp", "values": [1, 3]}])
    good, bad = plan_sweep(one).runs
    assert good.problem is None
    assert bad.scenario is None
    assert bad.problem is not None
    assert "needs 3" in bad.problem or "3 does not divide" in bad.problem or "tp" in bad.problem


def test_equal_runs_have_equal_hashes_and_others_have_not(box: Box) -> None:
    one = study(replications=2)
    first, again = ([run.key for run in plan_sweep(one).runs] for _ in range(2))
    assert first == again
    assert len(set(first)) == 12
    tiers = [{"name": "p50", "slo": {"ttft": {"p50": "2 x"}}}]
    assert not {run.key for run in plan_sweep(study(replications=2, tiers=tiers)).runs} & set(first)


def test_all_points_have_the_same_seeds(box: Box) -> None:
    planned = plan_sweep(study(replications=2)).runs
    assert [run.seed for run in planned] == [1, 2] * 6


def test_a_plan_reads_each_file_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is named at every point of the grid."""
    read: list[Path] = []
    whole = files.validate

    def counted(schema: type[Description], document: Document) -> Description:
        if document.path is not None:
            read.append(document.path)
        return whole(schema, document)

    monkeypatch.setattr(files, "validate", counted)
    plan_sweep(study())
    devices = [path for path in read if path.parent.name == "devices"]
    assert sorted(path.stem for path in devices) == ["a100_sxm_80gb", "epyc_7742"]
    plan_sweep(study())
    assert len([path for path in read if path.parent.name == "devices"]) == 4
