"""The benchmarks run, their load cannot move unseen, and the gate shuts where it should."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from benchmarks import speed
from benchmarks.timing import TimedRun, time_run
from benchmarks.twins import Twin, affine_cost, measure_twins, reference_steps, simpy_loop_steps
from benchmarks.workloads import BENCHMARKS, FOLDER, REFERENCE_TIMEOUTS_PER_S, Benchmark, per_kilotick
from hermes_sim.perf.step_cost import StepBatch

BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}
W1, W3, W4, W5 = (BY_NAME[name] for name in ("W1", "W3", "W4", "W5"))
FIGURES = speed.Figures(
    name="W1", requests_per_s=50_000, loop_s=0.038, tables_s=0.002, lowering_s=0.01, num_requests=2_000,
    num_steps=21_067, num_prompt_tokens=2_000_000, num_output_tokens=500_000, busy_frac=1.0, us_per_step=1.9,
    us_per_output_token=0.08, peak_memory_bytes=200 * 2**20,
)  # fmt: skip


def by_name(benchmark: Benchmark) -> str:
    return benchmark.name


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=by_name)
def test_a_short_run(benchmark: Benchmark) -> None:
    """All requests come out, with and without an event per step in the same number of steps."""
    runs = [time_run(benchmark.scenario(exact_steps=flag, limit=30)).tables for flag in (False, True)]
    for tables in runs:
        assert tables.requests["status"].tolist() == ["finished"] * 30
    fast, exact = runs
    assert fast.num_steps == exact.num_steps > 30


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=by_name)
def test_calibration_cannot_move_the_load(benchmark: Benchmark) -> None:
    """Devices, links, KV blocks and host times are the folder's own, not the library's or the program's defaults."""
    cluster = yaml.safe_load((FOLDER / f"{benchmark.files}_cluster.yaml").read_text(encoding="utf-8"))
    for node in cluster["nodes"]:
        profiles = [device["profile"] for device in node["devices"].values()]
        profiles += [link["profile"] for link in node.get("links", ())]
        profiles += [node["uplink"]] if "uplink" in node else []
        assert all((FOLDER / f"{profile}.yaml").is_file() for profile in profiles)
    for engine in (one for one in cluster["engines"] if "model" in one):
        assert engine["host"].keys() >= {"per_step", "per_sequence", "graph_capture", "max_captured_seqs"}
        assert engine["kv_cache"].keys() >= {"block_tokens", "num_gpu_blocks", "prefix_caching"}
        assert engine["batching"].keys() >= {"kind", "max_num_seqs", "max_num_batched_tokens"}


@pytest.mark.parametrize(
    ("benchmark", "decode_ms", "prompt_ms"),
    [(W1, 25.905, 94.167), (W3, 19.085, 31.973), (W4, 27.510, 170.376), (W5, 3.3578, 31.279)],
    ids=["W1", "W3", "W4", "W5"],
)
def test_steps_cost_what_they_did_when_the_rates_were_set(
    benchmark: Benchmark, decode_ms: float, prompt_ms: float
) -> None:
    """32 decodes with 1,000 tokens of context each; a prompt of the whole budget.

    If this fails, a change of the cost models has moved the load: change benchmark_gpu.yaml so that it holds again.
    """
    replica = time_run(benchmark.scenario(limit=1)).lowered.replicas[0]
    assert replica.cost is not None
    decode = StepBatch(32, 32, 32, decode_context_sum=32_000, decode_context_max=1_000)
    budget = replica.engine.batching.max_num_batched_tokens
    pairs = budget * (budget + 1) // 2
    prompt = StepBatch(budget, 1, num_prefill=1, prefill_token_pairs=pairs, prefill_context_sum=budget)
    assert 1e3 * replica.cost.seconds(decode).sum() == pytest.approx(decode_ms, rel=0.01)
    assert 1e3 * replica.cost.seconds(prompt).sum() == pytest.approx(prompt_ms, rel=0.01)


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


def test_the_gate_is_on_requests_per_kilotick_with_slack() -> None:
    """On the reference machine 25,000 requests/s are the bar of W1: 34.7 per kilotick, with slack 24.8."""
    assert W1.bar_per_kilotick == pytest.approx(25_000 / 720)
    assert per_kilotick(25_000, REFERENCE_TIMEOUTS_PER_S) == W1.bar_per_kilotick
    assert speed.misses(W1, FIGURES, 2_000_000) == []  # 25.0
    (missed,) = speed.misses(W1, FIGURES, 2_020_000)  # 24.75
    assert missed == "W1: 24.8 requests per kilotick, the bar is 34.7 / 1.4"


def test_the_gate_compares_a_pipeline_with_its_model_alone() -> None:
    rag = BY_NAME["W6 rag"]
    alone, half, less = (replace(FIGURES, requests_per_s=rate) for rate in (40_000, 20_000, 19_000))
    assert speed.behind(rag, {"W6 llm": alone, "W6 rag": half}) == []
    (missed,) = speed.behind(rag, {"W6 llm": alone, "W6 rag": less})
    assert missed == "W6 rag: 19,000 requests/s, less than 0.5 of 40,000 in W6 llm"
    assert speed.behind(rag, {"W6 rag": less}) == []
    assert speed.behind(W1, {"W1": less}) == []


def test_the_gate_notices_another_load_and_too_much_memory() -> None:
    (moved,) = speed.misses(W1, replace(FIGURES, busy_frac=0.9), 1_000_000)
    assert "busy 90.0% of the time, not 100.0%" in moved
    (large,) = speed.misses(W4, replace(FIGURES, busy_frac=W4.busy_frac, peak_memory_bytes=2.5e9), 1_000_000)
    assert large == "W4: 2.50 GB of memory, more than 2"


@pytest.fixture(scope="module")
def few() -> TimedRun:
    return time_run(W1.scenario(limit=25))


def test_the_simpy_loop_does_the_same_work(few: TimedRun) -> None:
    """Prices are simpler, so batches differ a little; rules are the same, so the number of steps is close."""
    assert simpy_loop_steps(few.lowered) == pytest.approx(few.tables.num_steps, rel=0.15)


def test_the_reference_engine_and_the_simpy_loop_take_the_same_steps(few: TimedRun) -> None:
    """Both price a step the same way, and nothing is preempted or found in the prefix cache."""
    assert reference_steps(few.lowered) == simpy_loop_steps(few.lowered)


def test_three_numbers_price_a_step_about_as_the_model_does(few: TimedRun) -> None:
    cost, model = affine_cost(few.lowered), few.lowered.replicas[0].cost
    assert model is not None
    batch = StepBatch(32, 32, 32, decode_context_sum=32_000, decode_context_max=1_000)
    expected_s = float(model.seconds(batch).sum())
    assert cost.step_s + 32 * cost.token_s + 32_000 * cost.context_token_s == pytest.approx(expected_s, rel=0.2)


def test_ratios_are_of_equal_work() -> None:
    small = replace(W3, num_exact=50, num_reference=2)
    twins = {twin.name: twin for twin in measure_twins(small)}
    assert {name: twin.num_requests for name, twin in twins.items()} == {
        "one event per step": 50, "SimPy loop": 50, "reference engine": 2,
    }  # fmt: skip
    assert twins["reference engine"].times_slower > 5.0
    assert Twin("slow", 10, 100, 30.0, 3.0).times_slower == 10.0
