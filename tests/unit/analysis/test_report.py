"""The HTML page of a run: whole, alone, the same again."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hermes_sim.analysis.report.chart import PART_COLORS, PART_PATTERNS, numbers
from hermes_sim.analysis.report.page import SECTIONS
from hermes_sim.analysis.results import Results
from hermes_sim.run import simulate

VOID = frozenset({"meta"})
PAIRS = {
    "h100x8_kv_stores": "kv_retrieval",
    "h100x32_racks": "long_prompts",
    "cim_edge": "chat",
    "a100x8": "rag",
}


class Structure(HTMLParser):
    """Tags in the order in which they are open; what a browser would have to fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "href") and value and not value.startswith("#"):
                self.fetched.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.fixture(scope="module", params=sorted(PAIRS))
def results(request: pytest.FixtureRequest) -> Results:
    return simulate(request.param, PAIRS[request.param], overrides=["workload.traffic.num_requests=20"])


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return results.report_html()


def test_the_page_is_well_formed_and_needs_nothing_else(page: str) -> None:
    found = Structure()
    found.feed(page)
    assert found.open == []
    assert found.fetched == []
    assert set(SECTIONS) <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)


def test_charts_hold_the_numbers_of_the_tables(page: str, results: Results) -> None:
    charts = {
        name: json.loads(content.replace("<\\/", "</"))
        for name, content in re.findall(
            r'<figure class="chart" id="([^"]+)">.*?<script type="application/json">(.*?)</script>', page, re.DOTALL
        )
    }
    e2e_s = results.measured_requests["e2e_s"].dropna()
    assert charts["cdf-e2e"]["data"][0]["x"][-1] == pytest.approx(e2e_s.max(), rel=1e-4)
    busy = {trace["name"]: trace["x"] for trace in charts["busy"]["data"]}
    per_engine = [sum(parts) for parts in zip(*busy.values(), strict=True)]
    shown = results.engines.set_index("engine").loc[charts["busy"]["data"][0]["y"], "utilization_frac"]
    assert per_engine == pytest.approx(shown.tolist(), abs=1e-4)
    assert any(name.startswith("roofline-") for name in charts)


def test_the_same_run_gives_the_same_page(results: Results, page: str) -> None:
    assert results.report_html() == page


def test_a_saved_run_draws_the_same_page(results: Results, page: str, tmp_path: Path) -> None:
    results.save(tmp_path / "run", report=True)
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == page
    assert Results.load(tmp_path / "run").report_html() == page


def test_parts_are_told_apart_without_colour() -> None:
    assert len(set(PART_PATTERNS.values())) == len(PART_PATTERNS)
    assert set(PART_PATTERNS) == set(PART_COLORS)


def test_what_is_no_number_is_left_out() -> None:
    assert numbers([1.0, float("nan"), 123456.7]) == [1.0, None, 123460.0]
