"""The page of a sweep: whole, alone, with every point and metric of the table."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from hermes_sim.explore.runs_page import runs_page
from hermes_sim.explore.sweep import sweep
from hermes_sim.explore.sweep_results import SweepResults
from hermes_sim.scenario.study_metrics import metric_of

WIDTH_KEYS = [f"cluster.engines.llm.{key}" for key in ("parallel.tp", "placement.gpu")]
SWEEP = {
    "name": "small",
    "title": "Small <script>alert(1)</script>",
    "base": {"cluster": "a100x8", "workload": "chat", "set": {"workload.traffic.num_requests": 20}},
    "axes": [
        {"name": "tp", "key": WIDTH_KEYS, "values": [3, 4, 8]},
        {"name": "replicas", "key": "cluster.engines.llm.replicas", "values": [1]},
        {"name": "rate", "key": "workload.traffic.arrivals.rate", "values": ["1 /s", "8 /s"]},
    ],
    "replications": 2,
    "by": ["ttft_p99_s"],
}  # fmt: skip


@pytest.fixture(scope="module")
def results() -> SweepResults:
    return sweep(SWEEP, jobs=1)


@pytest.fixture(scope="module")
def page(results: SweepResults) -> str:
    return runs_page(results, ["output_tokens_per_s"])


@pytest.fixture(scope="module")
def data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    read: dict[str, Any] = json.loads(found[1].replace("<\\/", "</"))
    return read


def test_it_needs_nothing_else_and_names_are_text(page: str) -> None:
    assert not re.search(
        r'<[a-z]+ [^>]*(?:src|href)="(?!#)', re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    )
    assert "<script>alert(1)" not in page
    assert "Small &lt;script&gt;alert(1)" in page


def test_it_has_the_points_of_the_table(data: dict[str, Any], results: SweepResults) -> None:
    points = results.points
    columns = {column["name"]: column for column in data["columns"]}
    assert data["numRows"] == len(points) == 4, "of the width that divides no heads there is no point"
    assert data["seeds"] == 2
    assert columns["tp"]["values"] == points["tp"].tolist()
    for name, column in columns.items():
        if not column["axis"]:
            metric = metric_of(name)
            assert metric is not None
            expected = [None if np.isnan(value) else value / metric.per_unit for value in points[name]]
            assert column["values"] == pytest.approx(expected, rel=1e-5)
            assert column["better"] == metric.better


def test_it_opens_with_what_was_asked_for_and_says_what_failed(data: dict[str, Any], page: str) -> None:
    assert (data["start"]["y"], data["start"]["x"]) == ("output_tokens_per_s", "ttft_p99_s")
    assert data["start"]["color"] in ("tp", "rate"), "an axis of one value tells nothing apart"
    assert "divide" in page
