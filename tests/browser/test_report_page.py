"""The report as a browser shows it: drawn whole, clicked, in both themes, on a narrow screen, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from hermes_sim.analysis.human import duration
from hermes_sim.analysis.report.page import SECTIONS
from hermes_sim.scenario.load import read_scenario
from tests.browser.looking import LONGEST_WAIT_S, THEMES, WIDTHS, faint_texts, open_page, whole_picture

pytestmark = pytest.mark.browser

DRAWN = "return [...document.querySelectorAll('figure.chart')].map(f => !!f.querySelector('svg.main-svg'))"


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_drawn_whole_without_errors_or_a_network(
    chromium: webdriver.Chrome, report: Path, screenshots: Path, width: str, theme: str
) -> None:
    open_page(chromium, report, width=WIDTHS[width], theme=theme)
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
    assert len(drawn := chromium.execute_script(DRAWN)) >= 8
    assert all(drawn)
    sizes = chromium.execute_script(
        "return [document.scrollingElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert sizes[0] <= sizes[1], "the page is wider than the screen"
    whole_picture(chromium, screenshots / f"{report.parent.parent.name}-{width}-{theme}.png")


@pytest.mark.parametrize("theme", THEMES)
def test_text_stands_out_from_its_background(chromium: webdriver.Chrome, report: Path, theme: str) -> None:
    open_page(chromium, report, theme=theme)
    chromium.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert faint_texts(chromium) == []


def test_contents_lead_to_their_sections(chromium: webdriver.Chrome, report: Path) -> None:
    open_page(chromium, report)
    chromium.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    links = chromium.find_elements(By.CSS_SELECTOR, "nav a")
    assert [link.text for link in links] == list(SECTIONS.values())
    for link in links:
        link.click()
        target = chromium.find_element(By.ID, str(link.get_attribute("href")).rpartition("#")[2])
        top = chromium.execute_script("return arguments[0].getBoundingClientRect().top", target)
        nav_bottom = chromium.execute_script("return document.querySelector('nav').getBoundingClientRect().bottom")
        at_the_end = chromium.execute_script(
            "return scrollY + innerHeight >= document.scrollingElement.scrollHeight - 2"
        )
        assert top == pytest.approx(nav_bottom, abs=40) or at_the_end


def test_a_click_in_the_legend_hides_a_line(chromium: webdriver.Chrome, report: Path) -> None:
    open_page(chromium, report)
    figure = chromium.find_element(By.ID, "busy")
    entry = figure.find_element(By.CSS_SELECTOR, ".legendtoggle")
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", figure)
    visible = "return document.querySelector('#busy .plot').data.map(one => one.visible === 'legendonly')"
    assert not any(chromium.execute_script(visible))
    webdriver.ActionChains(chromium).move_to_element(entry).click().perform()
    WebDriverWait(chromium, LONGEST_WAIT_S).until(lambda _: any(chromium.execute_script(visible)))


def test_the_scenario_unfolds_and_is_that_of_the_run(chromium: webdriver.Chrome, report: Path) -> None:
    open_page(chromium, report)
    summary = chromium.find_element(By.CSS_SELECTOR, "#scenario summary")
    text = chromium.find_element(By.CSS_SELECTOR, "#scenario pre")
    assert not text.is_displayed()
    chromium.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", summary)
    summary.click()
    assert text.is_displayed()
    shown: Any = text.get_property("textContent")
    assert shown == (report.parent / "scenario.yaml").read_text(encoding="utf-8")
    assert read_scenario(report.parent).cluster.name in shown


def test_the_theme_reaches_what_is_drawn_already(chromium: webdriver.Chrome, report: Path) -> None:
    open_page(chromium, report, theme="light")
    ink = "return getComputedStyle(document.querySelector('svg.main-svg text')).fill"
    before = chromium.execute_script(ink)
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    WebDriverWait(chromium, LONGEST_WAIT_S).until(lambda _: chromium.execute_script(ink) != before)


def test_numbers_of_the_page_are_those_of_the_run(chromium: webdriver.Chrome, report: Path) -> None:
    open_page(chromium, report)
    summary = json.loads((report.parent / "summary.json").read_text(encoding="utf-8"))
    tiles = {
        tile.find_element(By.TAG_NAME, "span").text: tile.find_element(By.TAG_NAME, "b").text
        for tile in chromium.find_elements(By.CSS_SELECTOR, ".tile")
    }
    for name in ("ttft", "tpot", "e2e"):
        assert tiles[name.upper()] == duration(summary["latency"][name]["p50_s"])
