"""The real traces exactly as published."""

from __future__ import annotations

import csv
import gzip
import time
from pathlib import Path

import numpy as np
import pytest

from hermes_sim.workload.statistics import markdown_row, prefix_hit_tokens, traffic_statistics
from tests.unit.workload.laws import read_trace

pytestmark = pytest.mark.data

PUBLISHED = {
    "azure2023_conv": ("azure", "AzureLLMInferenceTrace_conv.csv.gz"),
    "azure2023_code": ("azure", "AzureLLMInferenceTrace_code.csv.gz"),
    "mooncake_conversation": ("mooncake", "conversation_trace.jsonl.gz"),
    "mooncake_synthetic": ("mooncake", "synthetic_trace.jsonl.gz"),
}
PAGE = Path(__file__).resolve().parents[3] / "docs" / "traces.md"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_shows_their_numbers(name: str, data_folder: Path) -> None:
    format, file = PUBLISHED[name]
    table = read_trace(format, data_folder / "requests" / "original" / file)
    assert markdown_row(name, traffic_statistics(table)) in PAGE.read_text(encoding="utf-8")
    assert table.num_bad_rows == 0
    assert table.notes == ()


@pytest.mark.parametrize(
    ("name", "prepared", "per_second"),
    [
        ("azure2023_conv", "azure2023_conv.csv.gz", 1.0),
        ("azure2023_code", "azure2023_code.csv.gz", 1.0),
        ("mooncake_conversation", "mooncake_fast25_conversation.csv.gz", 1000.0),
        ("mooncake_synthetic", "mooncake_fast25_synthetic.csv.gz", 1000.0),
    ],
)
def test_they_agree_with_another_reading(name: str, prepared: str, per_second: float, data_folder: Path) -> None:
    """Times (recorded to a microsecond there), lengths, hash ids and the hits of an unlimited cache, row by row."""
    format, file = PUBLISHED[name]
    table = read_trace(format, data_folder / "requests" / "original" / file)
    with gzip.open(data_folder / "requests" / prepared, "rt") as lines:
        rows = list(csv.DictReader(lines))
    time_column = "arrival_s" if per_second == 1.0 else "arrival_ms"
    assert table.arrival_s == pytest.approx([float(row[time_column]) / per_second for row in rows], abs=2e-6)
    assert table.num_prompt_tokens.tolist() == [int(row["input_tokens"]) for row in rows]
    assert table.num_output_tokens.tolist() == [int(row["output_tokens"]) for row in rows]
    if format == "mooncake":
        assert table.hash_ids.tolist() == [int(block) for row in rows for block in row["hash_ids"].split()]
        hits = np.array([int(row["prefix_hit_blocks_infinite_cache"]) for row in rows])
        assert np.array_equal(prefix_hit_tokens(table), np.minimum(hits * 512, table.num_prompt_tokens))


def test_published_medians(data_folder: Path) -> None:
    """Splitwise (ISCA 2024), section III: median outputs of 129 (conversation) and 13 (coding) tokens, prompts of
    1,020 and 1,500."""
    medians = {}
    for name in ("azure2023_conv", "azure2023_code"):
        format, file = PUBLISHED[name]
        table = read_trace(format, data_folder / "requests" / "original" / file)
        medians[name] = (np.median(table.num_prompt_tokens), np.median(table.num_output_tokens))
    assert medians["azure2023_conv"] == (1020.0, 129.0)
    assert medians["azure2023_code"] == (pytest.approx(1500, rel=0.03), 13.0)


@pytest.mark.parametrize(("name", "limit_s"), [("azure2023_conv", 0.15), ("mooncake_conversation", 0.5)])
def test_reading_is_fast(name: str, limit_s: float, data_folder: Path) -> None:
    format, file = PUBLISHED[name]
    took_s = []
    for _ in range(3):
        started_s = time.process_time()
        read_trace(format, data_folder / "requests" / "original" / file)
        took_s.append(time.process_time() - started_s)
    assert min(took_s) < limit_s


def test_servegen_totals_keep_rate_and_lengths(data_folder: Path) -> None:
    """Ten minutes of the m-large service: the recorded rate, and the mean of its length histograms by hand."""
    path = data_folder / "requests" / "servegen_m-large_rate.csv.gz"
    table = read_trace("servegen", path, window=["600 s", "1200 s"])
    assert table.num_requests == pytest.approx(179.698 * 600, abs=1)
    with gzip.open(data_folder / "requests" / "servegen_m-large_length_pmf.csv.gz", "rt") as lines:
        rows = [{key: float(cell) for key, cell in row.items()} for row in csv.DictReader(lines)]
    lowest = np.array([row["bin_lower_tokens"] for row in rows])
    middle = (lowest + np.append(lowest[1:], 2 * lowest[-1] - lowest[-2]) - 1) / 2
    for drawn, column in (
        (table.num_prompt_tokens, "input_tokens_prob"),
        (table.num_output_tokens, "output_tokens_prob"),
    ):
        assert drawn.mean() == pytest.approx(float(middle @ [row[column] for row in rows]), rel=0.03)
    assert (table.num_output_tokens == 1).mean() == pytest.approx(rows[0]["output_tokens_prob"], abs=0.005)
