"""The page of a sweep as a browser shows it: chosen, sorted, clicked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from hermes_sim.core.whole_file import write_whole
from hermes_sim.explore.sweep import sweep
from tests.browser.looking import LONGEST_WAIT_S, THEMES, WIDTHS, faint_texts, open_page, whole_picture

pytestmark = pytest.mark.browser

SWEEP = {
    "name": "small",
    "base": {"cluster": "a100x8", "workload": "chat", "set": {"workload.traffic.num_requests": 20}},
    "axes": [
        {"name": "batching", "key": "cluster.engines.llm.batching.kind", "values": ["continuous", "chunked_prefill"]},
        {"name": "rate", "key": "workload.traffic.arrivals.rate", "values": ["1 /s", "4 /s", "16 /s"]},
    ],
}
DATA = "return JSON.parse(document.getElementById('data').textContent)"
TRACES = "return document.getElementById('scatter').data.map(one => [one.name, one.mode, one.x.length])"


@pytest.fixture(scope="module")
def page(chromium: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "report.html"
    write_whole(path, sweep(SWEEP, jobs=1).report_html())
    return path


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_drawn_without_errors_or_a_network(
    chromium: webdriver.Chrome, page: Path, screenshots: Path, width: str, theme: str
) -> None:
    open_page(chromium, page, width=WIDTHS[width], theme=theme)
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
    assert chromium.find_elements(By.CSS_SELECTOR, "#scatter svg.main-svg")
    sizes = chromium.execute_script(
        "return [document.scrollingElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert sizes[0] <= sizes[1], "the page is wider than the screen"
    assert faint_texts(chromium) == []
    whole_picture(chromium, screenshots / f"sweep-{width}-{theme}.png")


def test_choosing_draws_other_columns(chromium: webdriver.Chrome, page: Path) -> None:
    open_page(chromium, page)
    Select(chromium.find_element(By.ID, "x")).select_by_value("rate")
    Select(chromium.find_element(By.ID, "color")).select_by_value("batching")
    traces = chromium.execute_script(TRACES)
    assert {name: num for name, _, num in traces} == {"continuous": 3, "chunked_prefill": 3}, "an axis has no front"
    title = chromium.execute_script("return document.getElementById('scatter').layout.xaxis.title.text")
    assert title == "rate"


def test_the_front_is_that_of_the_numbers(chromium: webdriver.Chrome, page: Path) -> None:
    open_page(chromium, page)
    Select(chromium.find_element(By.ID, "x")).select_by_value("ttft_p99_s")
    Select(chromium.find_element(By.ID, "y")).select_by_value("output_tokens_per_s")
    columns = {one["name"]: one["values"] for one in chromium.execute_script(DATA)["columns"]}
    points = list(zip(columns["ttft_p99_s"], columns["output_tokens_per_s"], strict=True))
    front = {
        one for one in points if not any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)
    }
    drawn = chromium.execute_script(
        "const front = document.getElementById('scatter').data.find(one => one.name === 'Pareto front');"
        "return [front.x, front.y]"
    )
    assert set(zip(*drawn, strict=True)) == front


def test_a_click_sorts_the_table_and_chooses_a_point(chromium: webdriver.Chrome, page: Path) -> None:
    open_page(chromium, page)
    button = chromium.find_element(By.CSS_SELECTOR, "th button[data-name=rate]")
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    place = [cell.text for cell in chromium.find_elements(By.CSS_SELECTOR, "#rows th")].index("rate ↑")
    rates = [
        row.find_elements(By.TAG_NAME, "td")[place].text
        for row in chromium.find_elements(By.CSS_SELECTOR, "#rows tbody tr")
    ]
    assert rates == ["1", "1", "4", "4", "16", "16"]
    row = chromium.find_element(By.CSS_SELECTOR, "#rows tbody tr")
    row.click()
    WebDriverWait(chromium, LONGEST_WAIT_S).until(lambda _: chromium.find_element(By.ID, "chosen").text)
    chosen = chromium.find_element(By.ID, "chosen").get_property("textContent")
    column = next(one for one in chromium.execute_script(DATA)["columns"] if one["name"] == "e2e_p50_s")
    first = column["values"][int(str(row.get_attribute("data-place")))]
    assert json.dumps(float(f"{first:.4g}")).rstrip("0").rstrip(".") in str(chosen)
