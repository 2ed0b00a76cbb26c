"""The benchmarks run, and docs/performance.md describes them as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import real_traces, speed
from hermes_sim import HermesError
from tests.docs.blocks import REPOSITORY

PAGE = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("benchmark", speed.BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_a_short_run(benchmark: speed.Benchmark) -> None:
    """All requests come out, with and without an event per step in the same number of steps."""
    fast, exact = (speed.time_run(benchmark.scenario(exact_steps=flag, limit=30)).tables for flag in (False, True))
    for tables in (fast, exact):
        assert tables.requests["status"].tolist() == ["finished"] * 30
    assert fast.num_steps == exact.num_steps > 30


@pytest.mark.parametrize("benchmark", speed.BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_page_says_what_they_are(benchmark: speed.Benchmark) -> None:
    """Requests and replicas in the column of the benchmark."""
    scenario = benchmark.scenario(exact_steps=False)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    column = next(row for row in rows if row[:2] == ["", "W1"]).index(benchmark.name.split()[0])
    shown = {row[0]: row[column] for row in rows if len(row) == 5}
    (engine,) = scenario.cluster.engines
    assert shown["requests"] == f"{scenario.workload.traffic.num_requests:,}"
    assert shown["replicas"] == str(engine.replicas)
    (model,) = scenario.models.values()
    assert shown["model"].partition(",")[0].lower().replace("-", "_") == model.name


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--only", "W3", "--repeats", "1"])
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["requests/s", "per"]
    assert row.split()[0] == "W3"
    assert len(head) == len(row)


def test_the_numbers_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--only", "W3", "--repeats", "1", "--json"])
    (figures,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert figures["num_requests"] == 5000
    assert figures["num_output_tokens"] == 5000 * 128
    assert figures["requests_per_s"] > 1000


def test_an_unknown_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(["--only", "W9"])
    assert "no benchmark 'W9' (W1, W2 rr" in capsys.readouterr().err


def test_a_missing_trace(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match=r"holds no AzureLLMInferenceTrace_conv\.csv, plain or gzip"):
        real_traces.RUNS[0].run(tmp_path)
