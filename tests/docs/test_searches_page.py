"""Every shipped search runs, small; the example of the page is a right file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_sim.explore.search.search import search
from hermes_sim.explore.search.words import WIDTH, result_lines
from hermes_sim.scenario.check import check_file
from tests.docs.blocks import REPOSITORY, blocks

SEARCHES = sorted((REPOSITORY / "workloads" / "searches").glob("*.yaml"))
PAGE = REPOSITORY / "docs" / "search.md"
SMALL = {"workload.traffic.num_requests": 24}


def runs(what: str | Path) -> None:
    results = search(what, trials=3, overrides=SMALL, jobs=1)
    assert results.trials["status"].isin(["done", "stopped", "infeasible"]).all()
    assert (results.trials["status"] == "done").any()
    assert all(len(line) <= WIDTH for line in result_lines(results))


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_search(path: Path) -> None:
    assert check_file(path) == []
    runs(path.stem)
    assert f"`{path.stem}`" in PAGE.read_text()


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    (block,) = blocks(PAGE, "yaml")
    path = tmp_path / "my_search.yaml"
    path.write_text(block.text)
    assert check_file(path) == []
    runs(path)
