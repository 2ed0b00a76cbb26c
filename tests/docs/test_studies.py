"""Every shipped study runs in its small version, and says something of each of its findings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hermes_sim.explore.study.figure import draw
from hermes_sim.explore.study.findings import NOTHING_FOUND
from hermes_sim.explore.study.study import StudyResults, load_study, run_study
from hermes_sim.scenario.axis import number_of
from hermes_sim.scenario.check import check_file
from tests.docs.blocks import REPOSITORY, blocks

STUDIES = sorted((REPOSITORY / "workloads" / "studies").glob("*.yaml"))
PAGE = REPOSITORY / "docs" / "studies.md"


def check(results: StudyResults) -> None:
    """No run has failed, every figure can be drawn, every finding has numbers."""
    assert results.failures["error"].tolist() == []
    assert (results.runs["finished_frac"] > 0).all()
    for figure in results.study.figures:
        drawn = draw(results.study, figure, results.runs)
        assert len(drawn.axes) >= len(figure.y)
    for finding in results.findings:
        assert NOTHING_FOUND not in finding
        assert any(number_of(word.strip("(,;.")) is not None for word in finding.split()), finding


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study(path: Path) -> None:
    assert check_file(path) == []
    study = load_study(path.stem)
    assert study.name == path.stem
    assert study.figures
    check(run_study(study, quick=True, jobs=1))


def test_the_example_of_the_page_runs(tmp_path: Path) -> None:
    (block,) = blocks(PAGE, "yaml")
    path = tmp_path / "two_batchings.yaml"
    path.write_text(block.text)
    assert yaml.safe_load(block.text)["name"] == path.stem
    check(run_study(load_study(path), quick=True, jobs=1))
