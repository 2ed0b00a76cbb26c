"""The screen: aligned, narrow, plain."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hermes_sim.analysis.render import WIDTH, header, render, run_line
from hermes_sim.analysis.results import Results
from hermes_sim.core.tables import RunTables
from tests.unit.analysis.test_results import results_of


@pytest.fixture
def results(tables: RunTables) -> Results:
    return results_of(tables)


def line_of(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(label))


def test_every_line_fits_and_none_trails(results: Results) -> None:
    lines = render(results.with_replications([results.headlines]).summary).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert not any(line != line.rstrip() for line in lines)
    assert not re.search("[\u2500-\u257f\x1b]", "\n".join(lines))


def test_latencies_and_their_objectives_by_hand(results: Results) -> None:
    text = render(results.summary)
    assert line_of(text, "TTFT").endswith("  p50 <= 1.5 s missed 2.00-fold")
    assert "p99 <= 3 s\n" + " " * 53 + "missed by failed requests\n" in text, "below what was asked"
    assert line_of(text, "TPOT").split()[:9] == ["TPOT", "0.750", "s", "0.750", "s", "0.950", "s", "0.995", "s"]
    assert line_of(text, "TPOT").endswith("  p99 <= 2 s")


def test_columns_of_numbers_are_aligned(results: Results) -> None:
    head, *rows = [line for line in render(results.summary).splitlines()[:6] if not line.startswith("      ")]
    ends = [match.end() for match in re.finditer(r"mean|p50|p90|p99", head)]
    for row in rows:
        assert all(row[end - 1].isalpha() and row[end : end + 1] in ("", " ") for end in ends)


def test_lines_by_hand(results: Results) -> None:
    text = render(results.summary)
    assert line_of(text, "where TTFT goes").endswith("  queue 31% · retrieve 11% · prefill 26% · transfer 16%")
    assert line_of(text, "host 1%") == " " * 19 + "host 1% · other 14%"
    assert line_of(text, "throughput").endswith("0.400 requests/s · 0.900 output tokens/s")
    assert line_of(text, "goodput") == " " * 19 + "goodput 0.300 requests/s (60% met the SLO)"
    assert line_of(text, "prefill").split() == [
        "prefill", "4", "0.775", "s", "0.475", "s", "-", "0.100", "s", "0.0250", "s", "0.275", "s",
    ]  # fmt: skip
    assert line_of(text, "trust").endswith("  service time 52% measured · 23% interpolated from measurement")
    assert "\n" + " " * 19 + "8% analytic · 17% not itemised\n" in text
    assert line_of(text, "llm[0]").split() == ["llm[0]", "64%", "memory", "59%", "1.25", "20%", "10%", "30%", "14%"]
    assert line_of(text, "retriever[0]").split()[1:] == ["13%", "memory", "100%", "1.00", "-", "0%", "0%", "-"]
    assert line_of(text, "energy and cost").endswith("  1,200 J/output token (PUE 1.2)")
    assert line_of(text, "$3,000").strip().startswith("$3,000 per million output tokens")
    assert line_of(text, "most time goes to").endswith("  decode, limited by memory bandwidth: 32% of all request time")
    assert line_of(text, "llm[0] is busy") == " " * 19 + "llm[0] is busy 64%"
    assert "rejected: 1 of 5 requests" in text


def test_the_run_over_time_is_three_lines_at_most(results: Results) -> None:
    assert "over time" not in render(results.summary), "five intervals tell nothing"
    found = {
        "engine": "llm", "edges_s": [0.0, 1.0, 2.0, 3.0], "mean_batch": [0.0, 12.0, 24.0],
        "num_waiting": [0.0, 0.4, 0.1], "mean_kv_used_frac": [0.1, 0.4, 0.8],
        "num_up": [1.0, 1.0, 1.0],
    }  # fmt: skip
    text = render({**results.summary, "over_time": found})
    assert line_of(text, "llm over time") == "llm over time      batch   ·▅█ up to 24.0"
    assert line_of(text, "KV used ▂").strip() == "KV used ▂▅█ up to 80%"
    assert "waiting ·" not in text, "hardly anybody ever waited"


def test_speculation_is_told_where_there_is_any(results: Results) -> None:
    llm = {
        **results.summary["engines"][0], "num_drafted_tokens": 3000, "num_accepted_tokens": 1500,
        "tokens_per_decode": 2.5,
    }  # fmt: skip
    text = render({**results.summary, "engines": [llm]})
    assert line_of(text, "speculation").endswith("  llm[0]: 50% of the drafts accepted")
    assert "\n" + " " * 19 + "2.50 tokens per sequence and step\n" in text
    assert "speculation" not in render(results.summary)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("queue", "waiting for prefill: 40% of all request time"),
        ("transfer", "moving the input of prefill: 40% of all request time"),
        ("network", "prefill, limited by the network: 40% of all request time"),
    ],
)
def test_every_kind_of_bottleneck_has_words(results: Results, part: str, words: str) -> None:
    found = {**results.summary["bottleneck"], "stage": "prefill", "part": part, "share_frac": 0.4}
    line = line_of(render({**results.summary, "bottleneck": found}), "most time goes to")
    assert words in line


def test_multiples_show_what_was_observed(results: Results) -> None:
    objective = {
        "latency": "ttft", "service_class": None, "statistic": "p99", "limit_s": None, "limit_multiple": 6.0,
        "observed_s": None,
        "observed_multiple": 2.4142, "met": True, "excess_frac": -0.6, "attained_frac": 1.0,
    }  # fmt: skip
    text = render({**results.summary, "slo": {**results.summary["slo"], "objectives": [objective]}})
    assert line_of(text, "TTFT").endswith("  p99 <= 6 x unloaded")
    assert "\n" + " " * 53 + "met: 2.41 x\n" in text


def test_many_replicas_share_a_line(results: Results) -> None:
    summary: dict[str, Any] = dict(results.summary)
    llm, retriever = summary["engines"]
    summary["engines"] = [{**llm, "engine": f"llm[{index}]"} for index in range(16)] + [retriever]
    text = render(summary)
    assert line_of(text, "llm (16)").split()[2:4] == ["64%", "memory"]
    assert "llm[3]" not in text


def test_the_batch_of_replicas_leaves_idle_ones_out(results: Results) -> None:
    summary: dict[str, Any] = dict(results.summary)
    llm = summary["engines"][0]
    idle = {**llm, "busy_s": 0.0, "mean_batch": 0.0}
    busy = [{**llm, "mean_batch": 2.0}, {**llm, "busy_s": 3 * llm["busy_s"], "mean_batch": 6.0}]
    summary["engines"] = [{**one, "engine": f"llm[{index}]"} for index, one in enumerate([idle] * 7 + busy)]
    assert line_of(render(summary), "llm (9)").split()[5] == "5.00"


def test_small_times_beside_large_ones_keep_their_unit(results: Results) -> None:
    stage = {**results.summary["stages"][1], "compute_s": 0.608, "network_s": 97.9e-6, "host_s": 0.00535}
    cells = line_of(render({**results.summary, "stages": [stage]}), "prefill")
    assert "  0.608 s" in cells
    assert "  97.9 us" in cells
    assert "  5.35 ms" in cells, "in seconds it would fill its column with zeros"


def test_without_output_tokens_energy_and_cost_are_per_request(results: Results) -> None:
    numbers = {
        **results.summary["energy_and_cost"], "energy_per_output_token_j": None,
        "cost_per_million_output_tokens_usd": None, "facility_energy_j": 800.0, "cost_per_request_usd": 0.5,
    }  # fmt: skip
    line = line_of(render({**results.summary, "energy_and_cost": numbers}), "energy and cost")
    assert "200 J/request (PUE 1.2) · $0.500 per request" in line, "4 finished"


def test_estimates_behind_the_speed_are_named_and_prices_are_not(results: Results) -> None:
    lines = render(results.summary).split("estimates, not published or measured: ")[1].splitlines()
    words = " ".join(line.strip() for line in lines[:3])
    assert words.startswith("epyc_7742 (peak, kernels)")
    assert "a100" not in words


def test_header_and_run_line() -> None:
    setting = {"cluster": "a100x8", "hardware": "8 x A100", "workload": "rag", "traffic": "20 requests", "seed": 1}
    assert header(setting) == "a100x8 · 8 x A100" + " " * 23 + "rag · 20 requests, seed 1"
    long = header({**setting, "hardware": "8 x A100, " * 8})
    assert [len(line) <= WIDTH for line in long.splitlines()] == [True, True, True]
    longer = header({**setting, "traffic": "requests of every kind, " * 8})
    assert max(map(len, longer.splitlines())) <= WIDTH
    assert longer.splitlines()[2].startswith("  requests of every kind")
    summary = {"requests": {"num": 5, "num_finished": 4}, "run": {"duration_s": 501.0}}
    assert run_line(summary, 0.125) == "simulated          4 of 5 requests · 8 min 21 s in 125 ms"


def test_replications_show_mean_and_half_width(results: Results) -> None:
    text = render(results.with_replications([results.headlines, results.headlines]).summary)
    assert "over 3 seeds" in text
    assert "0.400 ± 0 requests/s" in text
    assert "share within the SLO 60% ± 0%" in text
    assert line_of(text.split("over 3 seeds")[1], "TTFT").split()[1:5] == ["2.33", "±", "0", "s"]


def test_nothing_is_wider_than_the_screen_however_long_names_and_numbers_are(results: Results) -> None:
    """Every text a name of forty letters, every number as wide as numbers get; alone and over seeds."""
    name = "a_name_of_forty_letters_without_a_blank_"
    summary = results.with_replications([results.headlines]).summary
    for number in (1.2345678e-9, 0.0123456, 0.9994, 12.3456, 98765.4321):
        stretched = stretch(summary, number)
        stretched["engines"] = [
            {**engine, "engine": f"{name}[{index}]"} for index, engine in enumerate(summary["engines"])
        ]
        stretched["stages"] = [{**stage, "stage": name, "draft_wait_s": number} for stage in stretched["stages"]]
        stretched["device_groups"] = [
            {"engine": name, "group": name, "operators": name, "utilization_frac": 0.5, "energy_j": number}
        ]
        for replications in (None, stretched["replications"]):
            lines = render({**stretched, "replications": replications}).splitlines()
            assert [line for line in lines if len(line) > WIDTH] == []


def stretch(part: Any, number: float) -> Any:
    """All its fractional numbers replaced."""
    if isinstance(part, dict):
        return {key: stretch(value, number) for key, value in part.items()}
    if isinstance(part, list):
        return [stretch(value, number) for value in part]
    return number if isinstance(part, float) else part


def test_how_well_a_run_is_known_is_told_unless_seeds_tell_it_better(results: Results) -> None:
    known = {"low": 2.0, "high": 2.4, "half_width_95": 0.2, "num_batches": 30, "is_correlated": False}
    confidence = {"ttft_mean_s": known, "ttft_p99_s": known, "e2e_mean_s": {**known, "is_correlated": True}}
    summary = {**results.summary, "confidence": confidence}
    text = render(summary)
    assert line_of(text, "confidence") == "confidence (95%)   mean TTFT ±8.6%", "0.2 of 2.33"
    assert line_of(text, "p99 TTFT") == " " * 19 + "p99 TTFT ±5.1%"
    assert line_of(text, "not known of E2E mean").endswith(": they swing too slowly for so short a")
    assert "confidence" not in render(results.summary), "five requests tell nothing"
    assert "confidence" not in render(
        {**summary, "replications": results.with_replications([]).summary["replications"]}
    )
    saturated = {**summary, "warnings": [{"kind": "saturated", "text": "saturated: ..."}]}
    assert line_of(render(saturated), "confidence").endswith("none: intervals from one run need a steady state")


def test_the_cut_of_an_automatic_warm_up_is_told(results: Results) -> None:
    def measured(**found: Any) -> str:
        warm_up = {"is_steady": True, "decided_by": None, "time_s": 0.0, **found}
        return render({**results.summary, "run": {**results.summary["run"], "warm_up": warm_up}})

    text = measured(num_requests=60, time_s=30.0, decided_by="TTFT")
    assert line_of(text, "measured") == "measured           5 requests · warm-up cut: 60 in 30.0 s (TTFT)"
    assert "settled from the start" in measured(num_requests=0)
    assert "\nmeasured" not in measured(num_requests=0, is_steady=False), "a warning tells that"
    assert "\nmeasured" not in render(results.summary)


def test_notebook_table(results: Results) -> None:
    table = results._repr_html_()
    assert table.startswith("<table>")
    assert "<td>TTFT</td><td>2.33 s</td>" in table
    assert "p50 &lt;= 1.5 s" in table
