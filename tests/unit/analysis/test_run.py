"""The whole way from files to results, on the real simulator."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hermes_sim.analysis.critical_path import ttft_parts
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.unloaded import reference_s
from hermes_sim.run import run_scenario, simulate
from tests import scenarios

CLUSTER = scenarios.cluster(scenarios.llm(), scenarios.workers(["embed", "retrieve"]))
SLO = {"ttft": {"p99": "6 x"}, "tpot": {"p50": "1.25 x"}, "itl": {"p99": "5 x"}}


@cache
def rag() -> Results:
    return simulate(CLUSTER, scenarios.workload(*scenarios.RAG, slo=SLO))


def test_every_request_is_answered_and_metrics_agree_with_the_tables() -> None:
    results = rag()
    requests, summary = results.requests, results.summary
    assert summary["requests"]["num_finished"] == len(requests) == 60
    assert summary["throughput"]["requests_per_s"] == pytest.approx(60 / results.duration_s)
    assert summary["throughput"]["output_tokens_per_s"] == pytest.approx(
        requests["num_output_tokens"].sum() / results.duration_s
    )
    assert summary["latency"]["itl"]["num"] == (requests["num_output_tokens"] - 1).clip(lower=0).sum()
    assert summary["latency"]["ttft"]["mean_s"] == pytest.approx(requests["ttft_s"].mean())


def test_parts_of_ttft_cover_it_without_a_rest() -> None:
    results = rag()
    parts = ttft_parts(results.requests, results.visits)
    np.testing.assert_allclose(parts.sum(axis=1), results.requests["ttft_s"].dropna(), rtol=1e-9)
    assert parts["other"].abs().max() < 1e-9
    assert parts.min().min() > -1e-9


def test_no_request_is_faster_in_company_than_alone() -> None:
    results = rag()
    assert results.unloaded is not None
    assert len(results.unloaded) == len(results.requests)
    for latency in ("ttft", "tpot", "e2e"):
        alone_s = reference_s(results.requests, results.unloaded, latency)
        with_company_s = floats(results.requests, f"{latency}_s")
        exists = ~np.isnan(with_company_s)
        assert (with_company_s[exists] >= alone_s[exists] * (1 - 1e-6)).all()
    assert all(line["observed_multiple"] >= 1.0 - 1e-6 for line in results.summary["slo"]["objectives"])


def test_equal_scenarios_give_equal_bytes(tmp_path: Path) -> None:
    first = rag().save(tmp_path / "first")
    second = run_scenario(Results.load(first).scenario).save(tmp_path / "second")
    different = [path.name for path in first.iterdir() if path.read_bytes() != (second / path.name).read_bytes()]
    assert different in ([], ["run_info.json"])


def test_replications_differ_by_seed_and_keep_the_first() -> None:
    results = simulate(CLUSTER, scenarios.workload(), replications=3)
    assert results.replications is not None
    assert list(results.replications["seed"]) == [1, 2, 3]
    assert results.replications["ttft_mean_s"].nunique() == 3
    assert results.replications["ttft_mean_s"][0] == results.summary["latency"]["ttft"]["mean_s"]
    interval = results.summary["replications"]["metrics"]["ttft_mean_s"]
    assert interval["half_width_95"] > 0


def test_an_overload_is_named() -> None:
    traffic = scenarios.traffic(rate="500 /s", num_requests=600)
    results = simulate(CLUSTER, scenarios.workload(traffic=traffic))
    assert "saturated" in {warning["kind"] for warning in results.summary["warnings"]}
    assert results.summary["bottleneck"]["part"] == "queue"


def test_progress_ends_with_all_requests() -> None:
    reports: list[tuple[float, int, int]] = []
    scenario = rag().scenario
    run_scenario(scenario, progress=lambda *report: reports.append(report))
    assert reports[-1][1:] == (60, 60)
    assert [report[0] for report in reports] == sorted(report[0] for report in reports)
