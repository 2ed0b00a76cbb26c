"""A headless Chromium, and reports of three very different runs for it to open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from hermes_sim.run import simulate

BROWSERS = ("chromium", "google-chrome", "chrome")
RUNS = {"main job": ("a100x8", "rag"), "disaggregated": ("h100x32_racks", "long_prompts"), "cim": ("cim_edge", "chat")}
NUM_REQUESTS = 60


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium and chromedriver here (Debian: chromium chromium-driver): pages were not opened")
    options = Options()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.set_page_load_timeout(120)
    yield opened
    opened.quit()


@pytest.fixture(scope="session", params=sorted(RUNS))
def report(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chromium: webdriver.Chrome
) -> Path:
    """report.html of a saved run. The browser is asked for first, so that nothing is simulated without one."""
    cluster, workload = RUNS[request.param]
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_")) / "run"
    results = simulate(cluster, workload, overrides=[f"workload.traffic.num_requests={NUM_REQUESTS}"])
    return results.save(folder, report=True) / "report.html"


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for pictures that a person can look at: HERMES_SCREENSHOTS, or one that pytest keeps a while."""
    named = os.environ.get("HERMES_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
