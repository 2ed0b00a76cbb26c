"""The page of studies has a place for each, and takes the findings of saved runs."""

from __future__ import annotations

import pytest

from hermes_sim.core.errors import HermesError
from hermes_sim.explore.run_table import RUNS_FILE
from hermes_sim.explore.study.published import DOCS, marked, publish, with_findings
from hermes_sim.explore.study.study import load_study, run_study
from hermes_sim.scenario.library import entries
from tests.unit.explore.conftest import Box

PAGE = "# Studies\n\n<!-- findings of one -->\nold\n<!-- end -->\n\n<!-- findings of two -->\nkept\n<!-- end -->\n"


def test_findings_are_put_between_the_marks_of_their_study() -> None:
    page = with_findings(PAGE, "one", ["new", "lines"])
    assert page == PAGE.replace("old\n", "new\nlines\n")
    with pytest.raises(HermesError, match="no marks for the findings of 'three'"):
        with_findings(PAGE, "three", [])


def test_pages_name_every_study_and_show_its_findings() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    studies = {entry.name for entry in entries("study")}
    assert all(f"`{name}`" in pages for name in studies)
    page = (DOCS / "studies.md").read_text(encoding="utf-8")
    assert set(marked(page)) == studies
    for name in marked(page):
        assert f"(images/study-{name}.png)" in page
        assert (DOCS / "images" / f"study-{name}.png").is_file()


def test_saved_runs_are_published(box: Box) -> None:
    name = "reasoning_paths"
    docs, runs = box.folder / "docs", box.folder / "runs" / f"study-{name}"
    (docs / "images").mkdir(parents=True)
    runs.mkdir(parents=True)
    (docs / "studies.md").write_text(PAGE.replace("one", name))
    run_study(load_study(name), quick=True, jobs=1, keep=runs / RUNS_FILE)
    assert publish(box.folder / "runs", docs) == [name]
    page = (docs / "studies.md").read_text()
    assert "old" not in page
    assert f"![{load_study(name).title}](images/study-{name}.png)" in page
    assert page.count("\n- ") == len(load_study(name).findings)
    assert (docs / "images" / f"study-{name}.png").is_file()
