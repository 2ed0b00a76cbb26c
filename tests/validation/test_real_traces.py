"""The public traces exactly as published, run whole; docs/traces.md shows the numbers."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.real_traces import HEAD, RUNS, TraceFigures, TraceRun, figures_of
from hermes_sim import Results, cli, simulate
from hermes_sim.scenario.library import find
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.statistics import prefix_hit_tokens

pytestmark = pytest.mark.data

OVERLOADED_S = 5.0
"""Median TTFT from which on a run is one of queues."""

PAGE = Path(__file__).resolve().parents[2] / "docs" / "traces.md"
each_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)


@pytest.fixture
def traces(data_folder: Path) -> Path:
    return data_folder / "requests" / "original"


@cache
def results_of(run: TraceRun, folder: Path) -> Results:
    """Once for all tests."""
    return run.run(folder)


@cache
def page_figures() -> dict[str, TraceFigures]:
    """Rows of the page's table by the name of their run."""
    head, _, rows = PAGE.read_text(encoding="utf-8").partition("\n".join(HEAD) + "\n")
    assert head
    assert rows, "the page has no table of runs"
    found = {}
    for line in rows.splitlines():
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numbers = [float(re.sub(r"[,%]| m?s$", "", cell)) for cell in cells[3:]]
        found[f"{cells[0]}-{cells[2]}"] = TraceFigures(
            num_requests=int(numbers[0]),
            num_finished=int(numbers[1]),
            ttft_p50_s=numbers[2],
            ttft_p99_s=numbers[3],
            tpot_p50_s=numbers[4] / 1e3,
            cached_frac=numbers[5] / 100,
            wall_time_s=numbers[6],
        )
    return found


def unlimited_hit_tokens(results: Results) -> Any:
    """[num_requests] prompt tokens that a cache without end, shared by all engines, would have."""
    return prefix_hit_tokens(generate_requests(results.scenario.workload.traffic, results.seed))


def test_the_page_shows_the_runs() -> None:
    assert list(page_figures()) == [run.name for run in RUNS]


@each_run
def test_the_page_shows_their_numbers(run: TraceRun, traces: Path) -> None:
    """Counts exactly; times and hits loosely, since refitted costs move them. `python -m benchmarks.real_traces`
    prints the table anew."""
    shown, figures = page_figures()[run.name], figures_of(results_of(run, traces))
    assert (figures.num_requests, figures.num_finished) == (shown.num_requests, shown.num_finished)
    assert figures.cached_frac == pytest.approx(shown.cached_frac, abs=0.02)
    if shown.ttft_p50_s > OVERLOADED_S:  # how long queues get is then decided by the last percent of a step
        assert figures.ttft_p50_s > 0.1 * shown.ttft_p50_s
        return
    assert figures.ttft_p50_s == pytest.approx(shown.ttft_p50_s, rel=0.25)
    assert figures.tpot_p50_s == pytest.approx(shown.tpot_p50_s, rel=0.25)
    assert figures.ttft_p99_s == pytest.approx(shown.ttft_p99_s, rel=0.5)


@each_run
def test_laws(run: TraceRun, traces: Path) -> None:
    """Every request of the file comes out, in order; what engines computed is what prompts hold beyond their hits."""
    results = results_of(run, traces)
    requests, engines, visits = results.requests, results.engines, results.visits
    trace = generate_requests(results.scenario.workload.traffic, results.seed)
    assert len(requests) == trace.num_requests
    assert (requests["status"] == "finished").all()
    assert np.array_equal(requests["arrival_s"], trace.arrival_s)
    assert np.array_equal(requests["num_prompt_tokens"] + requests["num_clipped_tokens"], trace.num_prompt_tokens)
    assert (requests["arrival_s"] < requests["first_token_s"]).all()
    assert (requests["first_token_s"] <= requests["finish_s"]).all()
    assert (visits["arrival_s"] <= visits["start_s"]).all()
    in_line_or_in_steps_s = visits["queue_s"] + visits["service_s"] + visits["preempted_s"]
    assert np.allclose(in_line_or_in_steps_s, visits["finish_s"] - visits["arrival_s"], rtol=1e-9, atol=1e-6)
    computed = int(engines["num_prompt_tokens"].sum())
    assert computed == int((requests["num_prompt_tokens"] - requests["num_cached_tokens"]).sum())
    assert int(engines["num_output_tokens"].sum()) == int(requests["num_output_tokens"].sum())
    assert (engines["utilization_frac"] <= 1).all()
    assert (engines["mfu_frac"] < 1).all()
    assert (engines["mbu_frac"] < 1).all()


@each_run
def test_prefix_hits(run: TraceRun, traces: Path) -> None:
    """No request finds more than a cache without end would hold; only traces with content find anything."""
    requests = results_of(run, traces).requests
    unlimited = unlimited_hit_tokens(results_of(run, traces))
    assert (requests["num_cached_tokens"] <= unlimited).all()
    assert (requests["num_cached_tokens"].sum() > 0) == run.trace.startswith("mooncake")


@pytest.mark.parametrize("trace", ["mooncake_conversation", "mooncake_synthetic"])
def test_routing_by_prefix_finds_more(trace: str, traces: Path) -> None:
    blind, aware = (results_of(run, traces) for run in RUNS if run.trace == trace)
    assert figures_of(aware).cached_frac > 2 * figures_of(blind).cached_frac
    assert figures_of(aware).ttft_p50_s < figures_of(blind).ttft_p50_s


@pytest.mark.parametrize(("name", "num_blocks"), [("conversation", 10_000_000), ("synthetic", 4_000_000)])
def test_a_cache_without_end(
    name: str, num_blocks: int, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More blocks than the trace ever fills, and time between arrivals: the hits are those counted from the hash ids,
    in whole blocks of 16 tokens and with at least one token left to compute. Only where requests arrive together may
    one miss what another is just computing."""
    monkeypatch.chdir(tmp_path)
    device = yaml.safe_load(find("device", "h200_sxm").read_text(encoding="utf-8"))
    Path("endless.yaml").write_text(
        yaml.safe_dump({**device, "name": "endless", "aliases": [], "memory": {**device["memory"], "capacity": "1 PB"}})
    )
    engine = {"name": "llm", "serves": ["prefill", "decode"], "model": "llama_3_1_8b", "placement": {"gpu": 1}}
    cluster = {
        "name": "endless",
        "nodes": [{"name": "box", "devices": {"gpu": {"profile": "endless"}}}],
        "engines": [{**engine, "kv_cache": {"num_gpu_blocks": num_blocks}}],
    }
    trace = {"format": "mooncake", "path": str(traces / f"{name}_trace.jsonl.gz"), "time_scale": 1000}
    results = simulate(cluster, {"name": name, "traffic": {"trace": trace}})
    requests = results.requests
    prompt, cached = (requests[f"num_{kind}_tokens"].to_numpy() for kind in ("prompt", "cached"))
    expected = np.minimum(np.minimum(unlimited_hit_tokens(results), prompt) // 16, (prompt - 1) // 16) * 16
    alone = requests["arrival_s"].to_numpy()[1:] >= np.maximum.accumulate(requests["finish_s"].to_numpy())[:-1]
    assert alone.sum() > 1000
    assert np.array_equal(cached[1:][alone], expected[1:][alone])
    assert (cached <= expected).all()
    assert (cached == expected).mean() > 0.999


def test_the_documented_command(traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 19,366 requests of Azure's conversation trace by the command of the README."""
    monkeypatch.chdir(tmp_path)
    path = traces / "AzureLLMInferenceTrace_conv.csv.gz"
    arguments = ["--cluster", "a100x8.yaml", "--workload", "azure2023_conv.yaml", "--quiet", "--out", "run"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--set", f"workload.traffic.trace.path={path}"])
    assert ended.value.code == 0
    summary = json.loads(Path("run/summary.json").read_text(encoding="utf-8"))["requests"]
    assert summary["num"] == summary["num_finished"] == 19_366
    assert len(pd.read_parquet("run/requests.parquet")) == 19_366
    assert Results.load("run").summary["requests"] == summary
