"""Every shipped workload and every shipped cluster runs, cut to twenty requests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from hermes_sim import Results, simulate
from hermes_sim.analysis.critical_path import PARTS
from hermes_sim.analysis.explanation import measured_path
from hermes_sim.analysis.render import header, run_line
from hermes_sim.scenario.visited import visited_stages
from tests.docs.blocks import REPOSITORY
from tests.docs.small_traces import write_trace
from tests.shipped_pairs import CLUSTER_OF, WORKLOAD_OF

WORKLOADS = sorted((REPOSITORY / "workloads").glob("*.yaml"))
CLUSTERS = sorted((REPOSITORY / "hardware_profiles" / "clusters").glob("*.yaml"))
LIMIT = "workload.traffic.num_requests=20"


def check_laws(results: Results) -> None:
    """All twenty came out, in order of time; energy and money were spent."""
    requests = results.requests
    assert len(requests) == 20
    assert (requests["status"] == "finished").all()
    answered = requests[requests["num_passes"] > 0]  # the client reads tokens
    assert (answered["arrival_s"] < answered["first_token_s"]).all()
    assert (answered["first_token_s"] <= answered["finish_s"]).all()
    others = requests[requests["num_passes"] == 0]
    assert ((others["num_drawn_images"] > 0) | (others["num_refusals"] > 0)).all()
    assert (requests["arrival_s"] < requests["finish_s"]).all()
    assert results.duration_s >= requests["finish_s"].max()
    check_screen(results)
    totals = results.summary["energy_and_cost"]
    assert totals["device_energy_j"] > 0
    assert totals["cost_usd"] > 0


def check_paths(results: Results) -> None:
    """Every request's time is told to the last bit of rounding, none of it below zero; on a screen of 80 columns."""
    path = measured_path(results)
    columns = [f"{part}_s" for part in PARTS]
    told_s = path.groupby("request")[columns].sum().sum(axis=1)
    requests = results.measured_requests.set_index("request")
    pd.testing.assert_series_equal(told_s, requests["e2e_s"], check_names=False, rtol=1e-9)
    assert (path[columns].to_numpy() >= 0.0).all()
    slowest = int(requests["e2e_s"].idxmax())
    text = f"{results.explain()}\n{results.explain(slowest)}"
    assert max(len(line) for line in text.splitlines()) <= 80, text


def check_screen(results: Results) -> None:
    """What is printed fits eighty columns."""
    summary = results.summary
    printed = [header(summary["scenario"]), run_line(summary, 12.3), repr(results)]
    assert [line for text in printed for line in text.splitlines() if len(line) > 80] == []


def run_both_ways(cluster: str, workload: str, overrides: list[str]) -> Results:
    """With many steps a call, and with one event a step: the same to the last bit."""
    results = simulate(cluster, workload, overrides=overrides)
    exact = simulate(cluster, workload, overrides=overrides, exact_steps=True)
    for table in ("requests", "visits", "engines", "links"):
        pd.testing.assert_frame_equal(getattr(results, table), getattr(exact, table), check_exact=True)
    return results


def check_books(results: Results) -> None:
    """What the requests were charged is what engines and links have used and cost."""
    requests, engines = results.requests, results.engines
    used_j = float(engines["energy_j"].sum() + results.links["energy_j"].sum())
    charged_j = float(requests[["energy_j", "idle_energy_j", "link_energy_j"]].sum().sum())
    assert charged_j == pytest.approx(used_j, rel=1e-9)
    assert float(requests["cost_usd"].sum()) == pytest.approx(float(engines["cost_usd"].sum()), rel=1e-9)
    emitted_g = float(engines["carbon_g"].sum() + results.links["carbon_g"].sum())
    assert float(requests["carbon_g"].sum()) == pytest.approx(emitted_g, rel=1e-9)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda path: path.stem)
def test_workload(workload: Path, tmp_path: Path) -> None:
    """On the node its rate is made for; those that wait for a trace get one of twenty rows."""
    trace = yaml.safe_load(workload.read_text(encoding="utf-8"))["traffic"].get("trace")
    override = LIMIT
    if trace is not None:
        write_trace(trace["format"], tmp_path / "trace")
        override = f"workload.traffic.trace.path={tmp_path / 'trace'}"
    results = run_both_ways(CLUSTER_OF.get(workload.stem, "a100x8"), workload.stem, [override])
    check_laws(results)
    check_books(results)
    check_paths(results)
    stages = {one.name for pipeline in results.scenario.workload.pipelines for one in visited_stages(pipeline)}
    assert set(results.visits["stage"]) == stages
    if trace is not None and trace["format"] == "mooncake":
        assert 0 < results.summary["requests"]["prefix_hit_frac"] <= 0.5 * 1024 / 1200


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda path: path.stem)
def test_cluster(cluster: Path) -> None:
    """Each has a language model and cores for retrieval; the index is one that fits the smallest."""
    overrides = [LIMIT, "workload.pipelines.rag.stages.retrieve.index.num_vectors=1e7"]
    workload = WORKLOAD_OF.get(cluster.stem)
    results = run_both_ways(cluster.stem, workload or "rag", [LIMIT] if workload else overrides)
    check_laws(results)
    check_books(results)
    check_paths(results)
    stores = {store.name for store in results.scenario.cluster.kv_stores}
    used = set(results.visits["engine"].str.partition("[")[0]) - {""} - stores
    wanted = {engine.name for engine in results.scenario.cluster.engines}
    assert used == wanted - ({"retriever"} if workload else set())
