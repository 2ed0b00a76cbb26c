"""A wrong sweep file is told with line and near match, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.scenario.check import check_file

SWEEP = """\
name: small
base: {cluster: a100x8, workload: chat}
axes:
  - {name: batching, values: [{name: whole, set: {cluster.engines.llm.batching.kind: continuous}}, chunked]}
  - {name: tp, key: [cluster.engines.llm.parallel.tp, cluster.engines.llm.placement.gpu], values: [2, 4]}
  - {name: rate, key: workload.traffic.arrivals.rate, range: {from: 1 /s, to: 2 /s}}
  - {name: budget, key: cluster.engines.llm.batching.max_num_seqs, values: [512, 2048], when: {batching: whole}}
sampling: {kind: sobol, num: 8}
constraints:
  - tp * cluster.engines.llm.replicas <= 8
  - {require: rent_usd_per_h <= 100, because: the budget}
by: [ttft_p99_s]
""".replace(", chunked]", ", {name: chunked, set: {cluster.engines.llm.batching.kind: chunked_prefill}}]")


def problems(tmp_path: Path, *change: str) -> list[str]:
    path = tmp_path / "small.yaml"
    text = SWEEP.replace(*change) if change else SWEEP
    assert not change or text != SWEEP
    path.write_text(text)
    return [str(problem).removeprefix(str(tmp_path)) for problem in check_file(path)]


def test_a_sound_sweep(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ("tp * cluster", "tpp * cluster",
         "small.yaml:10 constraints[0]: 'tpp' is neither an axis nor a fact (batching, tp, rate, budget, num_devices,"),
        ("tp * cluster", "tpp * cluster", "Did you mean 'tp'?"),
        ("rent_usd_per_h <=", "rent_usd_per_hour <=", "Did you mean 'rent_usd_per_h'?"),
        ("<= 8", "<= whole", "Text needs quotes."),
        ("<= 8", "<=", "small.yaml:10 constraints[0].require: 'tp * cluster.engines.llm.replicas <=' is not an"),
        ("cluster.engines.llm.replicas <=", "clusters.engines.llm.replicas <=", "Did you mean 'cluster'?"),
        ("kind: sobol, num: 8", "kind: sobol", "small.yaml:8 sampling: sobol sampling needs num"),
        ("kind: sobol, num: 8", "kind: grid, num: 8", "num and axes are for random and sobol sampling, not for grid"),
        ("kind: sobol, num: 8", "kind: grid", "small.yaml:6 axes[2].range: needs num or step"),
        ("num: 8", "num: 8, axes: [rat]", "small.yaml:8 sampling.axes: 'rat' is not an axis"),
        ("when: {batching: whole}", "when: {batching: hole}",
         "small.yaml:7 axes[3].when.batching: 'hole' is not a value of batching (whole, chunked)."),
        ("when: {batching: whole}", "when: {batchin: whole}", "'batchin' is not an axis"),
        ("values: [2, 4]}", "values: [2, 4], when: {budget: 512}}", "'budget' must stand before 'tp'"),
        ("by: [ttft_p99_s]", "by: [ttft_p98_s]", "small.yaml:12 by[0]: 'ttft_p98_s' is not a metric"),
        ("by: [", "zipped: [[tp, rate]]\nby: [", "small.yaml:12 zipped[0]: 'rate' is drawn: it cannot move"),
        ("by: [", "zipped: [[tp, budget]]\nby: [", "'budget' is not everywhere (when)"),
        ("name: tp,", "name: num_devices,", "small.yaml:5 axes[1].name: 'num_devices' is a fact of every scenario"),
        ("range: {from: 1 /s, to: 2 /s}", "range: {from: 3 /s, to: 2 /s}", "from must be below to"),
        ("key: workload.traffic.arrivals.rate, range", "range", "needs the key that the numbers of its range"),
        ("key: workload.traffic", "key: traffic", "small.yaml:6 axes[2].key: a key starts with 'cluster.' or"),
        ("values: [2, 4]", "valuess: [2, 4]", "Did you mean 'values'?"),
        ("sampling: {kind: sobol", "sampling: {kind: sobel", "Did you mean 'sobol'?"),
    ],
)  # fmt: skip
def test_a_wrong_sweep(tmp_path: Path, was: str, becomes: str, problem: str) -> None:
    assert any(problem in found for found in problems(tmp_path, was, becomes)), problems(tmp_path, was, becomes)


def test_zipped_axes_have_as_many_values(tmp_path: Path) -> None:
    text = SWEEP.replace("when: {batching: whole}", "values: [1, 2, 3]").replace("values: [512, 2048], ", "")
    (tmp_path / "small.yaml").write_text(text + "zipped: [[tp, budget]]\n")
    assert "tp 2, budget 3" in str(check_file(tmp_path / "small.yaml")[0])
