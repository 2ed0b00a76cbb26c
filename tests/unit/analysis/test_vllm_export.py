"""The export reads as vLLM's own: keys, definitions, and back in as a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_sim import cli
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.token_times import message_times_s
from hermes_sim.core.errors import HermesError
from hermes_sim.core.tables import RunTables
from hermes_sim.run import run_scenario
from hermes_sim.scenario.load import load_scenario
from tests import scenarios
from tests.unit.analysis.test_results import results_of
from tests.unit.workload.laws import read_trace

STATISTICS = {"mean", "median", "std", "p50", "p90", "p95", "p99"}
DETAILS = {"input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"}
KEYS = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate",
    "burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
    "max_output_tokens_per_s", "max_concurrent_requests", *DETAILS,
    *(f"{statistic}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for statistic in STATISTICS),
}  # fmt: skip
"""What vLLM writes with --save-detailed and --percentile-metrics ttft,tpot,itl,e2el."""

HALVES = [scenarios.llm("prefill", serves=["prefill"]), scenarios.llm("decode", serves=["decode"])]
CLUSTERS = {
    "plain": scenarios.cluster(scenarios.llm()),
    "preempting": scenarios.cluster(scenarios.llm(kv_cache={"num_gpu_blocks": 260})),
    "two at once": scenarios.cluster(scenarios.llm(batching={"async_scheduling": True})),
    "disaggregated": scenarios.cluster(*HALVES),
    "first token with the KV": scenarios.cluster(*HALVES, kv_transfer={"first_token": "decode", "handshake": "5 ms"}),
}


@pytest.fixture(scope="module", params=list(CLUSTERS))
def recorded(request: pytest.FixtureRequest) -> Results:
    workload = scenarios.workload(traffic=scenarios.traffic(rate="20 /s", num_requests=60, prompt=500, output=40))
    scenario = load_scenario(CLUSTERS[request.param], workload)
    results = run_scenario(scenario, steps=True)
    if request.param == "preempting":
        assert results.engines["num_preemptions"].sum() > 0
    return results


@pytest.fixture(scope="module")
def exported(recorded: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = recorded.save_vllm_benchmark(tmp_path_factory.mktemp("vllm") / "result.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_keys_are_vllms(exported: dict[str, Any]) -> None:
    assert set(exported) == KEYS | {"simulator", "seed", "itls_source"}
    assert exported["itls_source"] == "recorded steps"
    assert {len(exported[name]) for name in DETAILS} == {60}


def test_gaps_of_each_request_are_those_of_the_engine(recorded: Results, exported: dict[str, Any]) -> None:
    """Held against the histogram that the engine counted on its own, bin by bin."""
    edges_s = np.append(recorded.itl["from_s"], recorded.itl["to_s"].iloc[-1])
    counted, _ = np.histogram(np.concatenate(exported["itls"]), edges_s)
    known = recorded.itl["num_gaps"].to_numpy()
    assert counted.sum() == known.sum()
    assert np.abs(np.cumsum(counted) - np.cumsum(known)).max() <= 0.002 * known.sum()  # rounding at edges of bins
    for ttft_s, itls_s, tokens, (_, row) in zip(
        exported["ttfts"], exported["itls"], exported["output_lens"], recorded.requests.iterrows(), strict=True
    ):
        assert len(itls_s) == tokens - 1
        assert ttft_s + sum(itls_s) == pytest.approx(row["e2e_s"], abs=1e-9)


def test_statistics_are_those_of_the_lists(recorded: Results, exported: dict[str, Any]) -> None:
    """Recomputed from the lists alone as vLLM's calculate_metrics does, and equal to the run's own."""
    latency_s = [ttft + sum(itls) for ttft, itls in zip(exported["ttfts"], exported["itls"], strict=True)]
    tpots_s = [
        (latency - ttft) / (tokens - 1)
        for latency, ttft, tokens in zip(latency_s, exported["ttfts"], exported["output_lens"], strict=True)
        if tokens > 1
    ]
    for name, values in (("ttft", exported["ttfts"]), ("tpot", tpots_s), ("e2el", latency_s)):
        assert exported[f"mean_{name}_ms"] == pytest.approx(1e3 * np.mean(values))
        assert exported[f"p99_{name}_ms"] == pytest.approx(1e3 * np.percentile(values, 99))
        assert exported[f"std_{name}_ms"] == pytest.approx(1e3 * np.std(values))
    own = recorded.summary["latency"]
    assert exported["p99_ttft_ms"] == pytest.approx(1e3 * own["ttft"]["p99_s"])
    assert exported["mean_itl_ms"] == pytest.approx(1e3 * own["itl"]["mean_s"])
    assert exported["p90_itl_ms"] == pytest.approx(1e3 * own["itl"]["p90_s"], rel=own["itl"]["bin_width_frac"])
    assert exported["request_throughput"] == pytest.approx(60 / recorded.duration_s)
    assert exported["total_output_tokens"] == sum(exported["output_lens"])
    starts, ends = exported["start_times"], np.array(exported["start_times"]) + latency_s
    most = max(sum(s <= at < e for s, e in zip(starts, ends, strict=True)) for at in starts)
    assert exported["max_concurrent_requests"] == most


def test_read_back_it_is_the_same_requests(recorded: Results, tmp_path: Path) -> None:
    path = recorded.save_vllm_benchmark(tmp_path / "result.json")
    table = read_trace("vllm_benchmark", path)
    assert table.num_prompt_tokens.tolist() == recorded.requests["num_prompt_tokens"].tolist()
    assert table.num_output_tokens.tolist() == recorded.requests["num_output_tokens"].tolist()
    arrival_s = recorded.requests["arrival_s"].to_numpy()
    assert table.arrival_s.tolist() == (arrival_s - arrival_s.min()).tolist()


def test_drafts_that_are_accepted_together_come_together() -> None:
    drafts = {
        "num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.7},
        "draft": {"kind": "heads", "layers_frac": 0.03},
    }  # fmt: skip
    cluster = scenarios.cluster(scenarios.llm(speculative=drafts))
    results = run_scenario(load_scenario(cluster, scenarios.workload()), steps=True)
    assert results.steps is not None
    assert results.decisions is not None
    assert results.engines["num_accepted_tokens"].sum() > 0
    found = message_times_s(results.requests, results.steps, results.decisions)
    assert len(found) == len(results.requests)
    for _, row in results.requests.iterrows():
        times_s = found[int(row["request"])]
        assert len(times_s) <= row["num_output_tokens"]
        assert times_s[-1] == pytest.approx(row["finish_s"])
    assert sum(map(len, found.values())) < 0.8 * results.requests["num_output_tokens"].sum()


def test_without_steps_gaps_are_left_out(tables: RunTables, tmp_path: Path) -> None:
    results = results_of(tables)
    content = json.loads(results.save_vllm_benchmark(tmp_path / "result.json").read_text())
    assert not {"itls", "max_output_tokens_per_s", "std_itl_ms"} & set(content)
    assert content["itls_source"].startswith("left out: steps were not recorded (--steps)")
    assert content["mean_itl_ms"] == pytest.approx(1e3 * 4 / 6)
    # Request 2 has finished without a token, request 3 was rejected: both have failed in vLLM's sense.
    assert (content["completed"], content["failed"]) == (3, 2)
    assert content["errors"] == ["", "", "no output tokens", "rejected", ""]
    assert content["output_lens"] == [5, 1, 0, 0, 3]
    assert content["ttfts"] == [1.0, 2.0, 0.0, 0.0, 4.0]
    assert content["request_goodput"] == pytest.approx(0.2)
    table = read_trace("vllm_benchmark", tmp_path / "result.json")
    assert table.num_output_tokens.tolist() == [5, 1, 3]
    drafted = {**tables.engines, "num_drafted_tokens": np.array([5, 0])}
    speculated = results_of(replace(tables, engines=drafted))
    content = json.loads(speculated.save_vllm_benchmark(tmp_path / "result.json").read_text())
    assert not any("itl_ms" in name for name in content)


def test_traffic_is_named_as_vllm_names_it(tables: RunTables, tmp_path: Path) -> None:
    def written(arrivals: dict[str, Any]) -> tuple[object, object]:
        traffic = {**scenarios.traffic(), "arrivals": arrivals}
        content = json.loads(results_of(tables, traffic=traffic).save_vllm_benchmark(tmp_path / "r.json").read_text())
        return content["request_rate"], content["burstiness"]

    assert written({"kind": "poisson", "rate": "8 /s"}) == (8.0, 1.0)
    assert written({"kind": "gamma", "rate": "8 /s", "cv": 2.0}) == (8.0, 0.25)
    assert written({"kind": "constant", "rate": "8 /s"}) == ("inf", 1.0)


def test_a_run_without_tokens_has_nothing_to_export(tables: RunTables, tmp_path: Path) -> None:
    none = {**tables.requests, "num_output_tokens": np.zeros(5, np.int64)}
    with pytest.raises(HermesError, match="no request of this run has output tokens"):
        results_of(replace(tables, requests=none)).save_vllm_benchmark(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_it(tables: RunTables, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results_of(tables).save(tmp_path / "run")
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", str(tmp_path / "run"), "--format", "vllm"])
    assert ended.value.code == 0
    assert "without itls: the run did not record its steps" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "vllm_benchmark.json").read_text())["completed"] == 3
    results_of(tables).save(tmp_path / "run")  # may be written again
