"""The fenced blocks of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))

_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its text, the heading above it and where it stands."""

    language: str
    text: str
    heading: str
    page: Path
    line: int

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """Blocks of a page in these languages, in order; all of them if none is named."""
    content = page.read_text(encoding="utf-8")
    fenced = list(_FENCED.finditer(content))
    outside = [
        heading
        for heading in _HEADING.finditer(content)
        if not any(block.start() <= heading.start() < block.end() for block in fenced)
    ]
    found = []
    for match in fenced:
        above = [heading.group(1) for heading in outside if heading.start() < match.start()]
        line = content.count("\n", 0, match.start()) + 1
        found.append(Block(match.group(1), match.group(2), above[-1] if above else "", page, line))
    return [block for block in found if not languages or block.language in languages]
