"""How the tests look at a page."""

from __future__ import annotations

import base64
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

LONGEST_WAIT_S = 120
WIDTHS = {"wide": 1280, "narrow": 380}
THEMES = ("light", "dark")
FEWEST_TEXTS = 30
LEAST_CONTRAST = 4.5
"""Of text to its background: WCAG 2.1, level AA."""

TEXTS = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const color = rgb(getComputedStyle(one).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
  }
  return [255, 255, 255];
};
const named = 'h1,h2,h3,p,td,th,small,dt,dd,li,nav a,figcaption,summary,.tile b,.tile span,svg.main-svg text';
return [...document.querySelectorAll(named)]
  .filter((one) => one.textContent.trim() && one.getClientRects().length)
  .map((one) => [one.tagName + ': ' + one.textContent.trim().slice(0, 40),
                 rgb(one instanceof SVGElement ? getComputedStyle(one).fill : getComputedStyle(one).color).slice(0, 3),
                 behind(one.closest('.plot') || one)]);
"""


def open_page(browser: webdriver.Chrome, page: Path, *, width: int = 1280, theme: str = "light") -> None:
    """The page from its top, every chart drawn."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    browser.get(page.as_uri())
    for figure in browser.find_elements(By.CSS_SELECTOR, "figure.chart"):
        browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", figure)
        WebDriverWait(browser, LONGEST_WAIT_S).until(
            lambda _, one=figure: one.find_elements(By.CSS_SELECTOR, "svg.main-svg")
        )
    browser.execute_script("scrollTo({top: 0, behavior: 'instant'})")


def whole_picture(browser: webdriver.Chrome, path: Path) -> None:
    size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))


def faint_texts(browser: webdriver.Chrome) -> list[tuple[str, float]]:
    """Texts whose contrast to what is behind them is too low, each with it."""
    texts = browser.execute_script(TEXTS)
    assert len(texts) > FEWEST_TEXTS
    contrasts = [(text, round(contrast(ink, paper), 2)) for text, ink, paper in texts]
    return [(text, ratio) for text, ratio in contrasts if ratio < LEAST_CONTRAST]


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2.1: ratio of the relative luminances."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(rgb: list[float]) -> float:
    linear = [c / 12.92 if (c := part / 255) <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
