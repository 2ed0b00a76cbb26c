"""The pages as a site: no warning, every page in its navigation, nothing fetched from anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import PAGES, REPOSITORY

pytest.importorskip("mkdocs", reason="the site needs pip install 'hermes-sim[docs]'")


def test_every_page_is_in_the_navigation() -> None:
    described = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    named = [page for entry in described["nav"] for page in named_in(entry)]
    assert sorted(named) == sorted(["index.md", *(page.name for page in PAGES if page.name != "README.md")])


def named_in(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    assert not isinstance(parts, int)
    return [page for part in parts for page in named_in(part)]  # type: ignore[attr-defined]


def test_the_site_is_built_without_a_warning_and_stands_alone(tmp_path: Path) -> None:
    """Links and anchors are checked by mkdocs (strict); scripts, styles, fonts and pictures lie in the site."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert len(pages) == len(PAGES) + 1  # 404.html
    for page in pages:
        content = page.read_text(encoding="utf-8")
        fetched = re.findall(r"""<(?:script|img|iframe)[^>]+src=["']?([^"' >]+)""", content)
        fetched += re.findall(r"""<link[^>]+rel=["']?(?:stylesheet|icon|preload)[^>]+href=["']?([^"' >]+)""", content)
        assert fetched, page.name
        assert [one for one in fetched if "//" in one] == [], page.name
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="results.html' in index
    assert "01_first_run.ipynb" in index
