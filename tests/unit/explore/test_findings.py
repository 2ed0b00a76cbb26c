"""Sentences of findings over tables made by hand: names and numbers are those of the table."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hermes_sim.explore.study.findings import crossing, study_findings
from hermes_sim.explore.study.page import run_words
from hermes_sim.explore.study.points import at_the_end
from tests.unit.explore.studies import grid_table, study, table


def found(values: dict[str, list[float]], metric: str, finding: dict[str, Any], **keys: Any) -> str:
    """The one sentence of a finding over a grid of batchings and rates."""
    one = study(findings=[finding], **keys)
    (sentence,) = study_findings(one, grid_table(one, metric, values))
    return sentence


def test_best_names_the_best_and_its_lead_over_the_next() -> None:
    values = {"chunked": [0.2, 0.2, 0.2], "whole": [0.1, 0.3, 0.8]}
    finding = {"kind": "best", "of": "batching", "by": "ttft_p99_s", "per": ["rate"]}
    assert found(values, "ttft_p99_s", finding) == (
        "TTFT p99: with rate 1 /s lowest with batching whole (100 ms), 2.00 x ahead of chunked (200 ms); "
        "with rate 2 /s lowest with batching chunked (200 ms), 1.50 x ahead of whole (300 ms); "
        "with rate 8 /s lowest with batching chunked (200 ms), 4.00 x ahead of whole (0.800 s)."
    )


def test_best_of_several_cases_counts_them() -> None:
    values = {"chunked": [0.2, 0.2, 0.2], "whole": [0.1, 0.3, 0.8]}
    finding = {"kind": "best", "of": "batching", "by": "ttft_p99_s"}
    assert found(values, "ttft_p99_s", finding) == (
        "TTFT p99: lowest of 3 cases by batching: chunked in 2, whole in 1; ahead of the next by 2.00 x in the median."
    )


def test_more_is_better_where_the_metric_says_so() -> None:
    finding = {"kind": "best", "of": "batching", "by": "requests_per_s", "where": {"rate": "8 /s"}}
    values = {"chunked": [1.0, 2.0, 6.0], "whole": [1.0, 2.0, 4.0]}
    sentence = found(values, "requests_per_s", finding)
    assert "highest with batching chunked (6.00 requests/s), 1.50 x ahead of whole (4.00 requests/s)" in sentence
    finding["where"] = {"rate": ["1 /s"]}
    assert "level with" in found(values, "requests_per_s", finding)


def test_ratio_pairs_points_that_are_equal_in_all_else() -> None:
    finding = {"kind": "ratio", "of": {"batching": "whole"}, "to": {"batching": "chunked"}, "by": "e2e_mean_s"}
    sentence = found({"chunked": [1.0, 2.0, 4.0], "whole": [2.0, 6.0, 16.0]}, "e2e_mean_s", finding)
    assert (
        sentence
        == "E2E mean: with batching whole 3.00 x that with batching chunked (median of 3 pairs, 2.00 to 4.00 x)."
    )


def test_crossover_lies_where_the_logarithms_meet() -> None:
    of, to = {"batching": "chunked"}, {"batching": "whole"}
    finding = {"kind": "crossover", "x": "rate", "by": "ttft_p99_s", "of": of, "to": to}
    # at 2 /s behind by a factor of 2, at 8 /s ahead by 2: halfway in the logarithm, at 4 /s
    sentence = found({"chunked": [0.4, 0.4, 0.4], "whole": [0.1, 0.2, 0.8]}, "ttft_p99_s", finding)
    assert "batching chunked overtakes batching whole at rate 4.00 (looked at from 1.00 to 8.00 rate)" in sentence
    sentence = found({"chunked": [0.1, 0.1, 0.1], "whole": [0.2, 0.3, 0.8]}, "ttft_p99_s", finding)
    assert "batching chunked is ahead of batching whole from 1.00 to 8.00 rate, by up to 8.00 x at 8.00" in sentence


@pytest.mark.parametrize(
    ("x0", "x1", "gain0", "gain1", "expected"),
    [(1.0, 100.0, -1.0, 1.0, 10.0), (0.0, 4.0, -1.0, 3.0, 1.0), (2.0, 8.0, 0.5, -0.5, 4.0)],
)
def test_crossing(x0: float, x1: float, gain0: float, gain1: float, expected: float) -> None:
    assert crossing(x0, x1, gain0, gain1) == pytest.approx(expected)


def test_trend_gives_the_power_of_x() -> None:
    finding = {"kind": "trend", "x": "rate", "by": "e2e_p50_s", "where": {"batching": "whole"}}
    sentence = found({"chunked": [9.0, 9.0, 9.0], "whole": [1.0, 4.0, 64.0]}, "e2e_p50_s", finding)
    assert "1.00 s at rate 1 /s, 64.0 s at 8 /s (64.0 x; as rate to the power 2.00)" in sentence
    sentence = found({"chunked": [9.0, 9.0, 9.0], "whole": [1.0, 4.0, 2.0]}, "e2e_p50_s", finding)
    assert "not steadily: least at 1 /s (1.00 s), most at 2 /s (4.00 s)" in sentence


TIERS = [{"name": "tight", "slo": {"ttft": {"p99": "1 s"}}}, {"name": "loose", "slo": {"ttft": {"p99": "9 s"}}}]


def test_the_best_points_of_a_tier_are_those_that_meet_it() -> None:
    """Chunked bears 2 /s tightly and 8 /s loosely, whole none and 2 /s."""
    one = study(
        tiers=TIERS,
        best={"over": ["rate"], "by": "requests_per_s"},
        findings=[{"kind": "rank", "table": "best", "of": "batching", "by": "requests_per_s", "per": "tier"}],
    )
    meets = {"chunked": {"1 /s": (1, 1), "2 /s": (1, 1), "8 /s": (0, 1)}, "whole": {"1 /s": (0, 1), "2 /s": (0, 1)}}
    rows = [
        {"batching": batching, "rate": rate, "requests_per_s": float(rate.split()[0]),
         "meets@tight": meets[batching].get(rate, (0, 0))[0], "meets@loose": meets[batching].get(rate, (0, 0))[1]}
        for batching in one.axes[0].names
        for rate in one.axes[1].names
    ]  # fmt: skip
    (sentence,) = study_findings(one, table(one, rows))
    assert sentence == (
        "throughput: at tier tight chunked (2.00 requests/s); never kept by whole; "
        "at tier loose chunked (8.00 requests/s) > whole (2.00 requests/s); "
        "the order changes with tier, the first is always chunked."
    )


def test_a_point_meets_a_tier_if_every_seed_does() -> None:
    one = study(
        tiers=TIERS[:1],
        best={"over": ["rate"], "by": "requests_per_s"},
        findings=[{"kind": "best", "table": "best", "of": "batching", "by": "requests_per_s", "per": ["tier"]}],
    )
    rows = [
        {"batching": batching, "rate": "1 /s", "seed": seed, "requests_per_s": speed, "meets@tight": meets}
        for batching, seed, speed, meets in (("chunked", 1, 3.0, 1), ("chunked", 2, 3.0, 0), ("whole", 1, 1.0, 1))
    ]
    (sentence,) = study_findings(one, table(one, rows))
    assert "with batching whole (1.00 requests/s)" in sentence


def test_failed_runs_and_missing_metrics_are_not_compared() -> None:
    finding = {"kind": "best", "of": "batching", "by": "ttfat_p50_s"}
    assert found({"chunked": [1.0] * 3}, "e2e_p50_s", finding) == "TTFAT p50: no points to compare."
    finding = {"kind": "best", "of": "batching", "by": "e2e_p50_s", "where": {"rate": "1 /s"}}
    sentence = found({"chunked": [math.nan, 1.0, 1.0], "whole": [2.0, 2.0, 2.0]}, "e2e_p50_s", finding)
    assert sentence == "E2E p50 (rate 1 /s): lowest with batching whole (2.00 s)."


def test_a_note_stands_behind_the_sentence() -> None:
    finding = {"kind": "best", "of": "batching", "by": "e2e_p50_s", "note": "Prompts wait for nobody."}
    assert found({"chunked": [1.0] * 3}, "e2e_p50_s", finding).endswith(". Prompts wait for nobody.")


def test_best_points_at_the_end_of_an_axis_are_counted() -> None:
    """Chunked is best at 8 /s, the largest rate; whole at 2 /s, though 8 /s was run; past 2 /s nothing else was."""
    one = study(best={"over": ["rate"], "by": "requests_per_s"})
    runs = grid_table(one, "requests_per_s", {"chunked": [1.0, 2.0, 6.0], "whole": [1.0, 3.0, 2.0]})
    assert at_the_end(one, runs) == (1, 2)
    assert at_the_end(one, runs[runs["rate"] != "8 /s"]) == (2, 2)
    words = run_words(one, runs)
    assert "1 of 2 best points lie at the end of rate" in words
