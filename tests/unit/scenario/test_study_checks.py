"""A wrong study file is told with line and near match, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.scenario.check import check_file

STUDY = """\
name: small
title: Small
question: Which?
base: {cluster: a100x8, workload: chat}
axes:
  - {name: batching, values: [{name: whole, set: {cluster.engines.llm.batching.kind: continuous}}]}
  - {name: rate, key: workload.traffic.arrivals.rate, values: [1 /s, 2 /s]}
tiers:
  - {name: p50, slo: {ttft: {p50: 2 x}}}
best: {over: [rate], by: requests_per_s}
figures:
  - {x: rate, series: batching, y: [ttft_p99_s, stage_prefill_s]}
findings:
  - {kind: trend, x: rate, by: e2e_p50_s}
  - {kind: rank, table: best, of: batching, by: requests_per_s, per: tier}
"""


def problems(tmp_path: Path, *change: str) -> list[str]:
    path = tmp_path / "small.yaml"
    text = STUDY.replace(*change) if change else STUDY
    assert not change or text != STUDY
    path.write_text(text)
    return [str(problem).removeprefix(str(tmp_path)) for problem in check_file(path)]


def test_a_sound_study(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ("x: rate, series", "x: rat, series",
         "small.yaml:12 figures[0].x: 'rat' is not an axis (batching, rate, tier). Did you mean 'rate'?"),
        ("by: e2e_p50_s", "by: e2e_p51_s", "small.yaml:14 findings[0].by: 'e2e_p51_s' is not a metric"),
        ("kind: trend", "kind: trent", "small.yaml:14 findings[0].kind: 'trent' is not a form of a finding"),
        ("over: [rate]", "over: [tier]", "small.yaml:10 best.over: 'tier' is not an axis (batching, rate)."),
        ("name: rate, key", "name: seed, key", "small.yaml:7 axes[1].name: 'seed' is a column of the table"),
        ("{cluster.engines.llm.batching.kind: continuous}", "{engines.llm.replicas: 2}",
         "small.yaml:6 axes[0].values[0].set.engines.llm.replicas: a key starts with 'cluster.' or 'workload.'"),
        ("key: workload.traffic.arrivals.rate, ", "", "small.yaml:7 axes[1].values[0]: '1 /s' changes nothing"),
        ("best: {over: [rate], by: requests_per_s}\n", "", "small.yaml:14 findings[1].table: the study has no `best`"),
        ("question: Which?", "question: Which?\nquick: {axes: {rate: 3 /s}}",
         "small.yaml:4 quick.axes.rate: '3 /s' is not a value of rate (1 /s, 2 /s)."),
        ("values: [1 /s, 2 /s]", "values: [1 /s, 1 /s]",
         "small.yaml:7 axes[1].values[1]: another value is called '1 /s'"),
        ("workload: chat}", "workload: chats}",
         "small.yaml:4 base.workload: no workload 'chats' here or in the library. Did you mean 'chat'?"),
        ("title: Small", "titel: Small", "unknown key. Did you mean 'title'?"),
    ],
)  # fmt: skip
def test_a_wrong_study(tmp_path: Path, was: str, becomes: str, problem: str) -> None:
    assert any(problem in found for found in problems(tmp_path, was, becomes)), problems(tmp_path, was, becomes)
