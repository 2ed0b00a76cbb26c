"""Hook of the docs site (mkdocs.yml): README.md is its first page, and links to files of the repository name them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """README.md as index.md."""
    from mkdocs.structure.files import File

    content = within_docs((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "index.md", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Files that are no pages are named, not linked: the site stands alone."""
    return LINK.sub(_named, markdown)


def within_docs(readme: str) -> str:
    """Its links as they are from within docs/."""

    def moved(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target or target.startswith("#"):
            return found[0]
        inside = target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
        return f"{found['image']}[{found['text']}]({inside})"

    return LINK.sub(moved, readme)


def _named(found: re.Match[str]) -> str:
    target = found["target"]
    if not target.startswith("../"):
        return found[0]
    return f"{found['text']} (`{target.removeprefix('../')}`)"
