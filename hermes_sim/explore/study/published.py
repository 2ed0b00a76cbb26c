"""The findings in docs/studies.md are those of saved runs: `python -m hermes_sim.explore.study.published runs`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hermes_sim.analysis.picture import save_figure
from hermes_sim.core.errors import HermesError
from hermes_sim.core.whole_file import write_whole
from hermes_sim.explore.run_table import RUNS_FILE, read_table
from hermes_sim.explore.study.figure import draw
from hermes_sim.explore.study.findings import study_findings
from hermes_sim.explore.study.page import run_words
from hermes_sim.explore.study.study import load_study

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCREEN_DPI = 150
_BLOCK = re.compile(r"(<!-- findings of (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def marked(page: str) -> list[str]:
    """The studies that the page has a place for."""
    return [found["name"] for found in _BLOCK.finditer(page)]


def with_findings(page: str, name: str, lines: Sequence[str]) -> str:
    """The page with these lines between the marks of a study. Raises HermesError where it has none."""
    if name not in marked(page):
        raise HermesError(f"the page has no marks for the findings of {name!r}")
    text = "".join(f"{line}\n" for line in lines)
    return _BLOCK.sub(lambda found: f"{found[1]}{text}{found[3]}" if found["name"] == name else found[0], page)


def publish(folder: Path, docs: Path = DOCS) -> list[str]:
    """Findings and the first figure of all of the page's studies that `folder` holds as study-NAME; their names."""
    page_file = docs / "studies.md"
    page = page_file.read_text(encoding="utf-8")
    published = []
    for name in marked(page):
        table = folder / f"study-{name}" / RUNS_FILE
        if not table.is_file():
            continue
        study, runs = load_study(name), read_table(table)
        picture = docs / "images" / f"study-{name}.png"
        save_figure(draw(study, study.figures[0], runs), picture, dpi=SCREEN_DPI)
        findings = [f"- {finding}" for finding in study_findings(study, runs)]
        lines = [run_words(study, runs), "", *findings, "", f"![{study.title}](images/{picture.name})"]
        page = with_findings(page, name, lines)
        published.append(name)
    write_whole(page_file, page)
    return published


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in publish(Path(sys.argv[1]))))
