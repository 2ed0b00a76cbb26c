"""docs/results.md names every column of every table, in the section of its table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hermes_sim.analysis.run_folder import OPTIONAL_TABLES, TABLES
from hermes_sim.core.tables import RECORDED_SCHEMAS, SCHEMAS

PAGE = (Path(__file__).parents[3] / "docs" / "results.md").read_text(encoding="utf-8")
SECTIONS = {
    "requests": "Requests", "visits": "Visits", "engines": "Engines", "timeline": "Timeline",
    "links": "Links and operators", "operators": "Links and operators", "steps": "Steps and decisions",
    "decisions": "Steps and decisions", "kv_stores": "KV stores",
    "device_groups": "Device groups", "link_timeline": "Links and operators",
}  # fmt: skip


@pytest.mark.parametrize("table", [*SCHEMAS, *RECORDED_SCHEMAS])
def test_every_column_is_named_in_its_section(table: str) -> None:
    section = PAGE.split(f"\n## {SECTIONS[table]}\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section)) | set(re.findall(r"^    (\w+) +=", section, re.MULTILINE))
    assert set({**SCHEMAS, **RECORDED_SCHEMAS}[table]) <= named


def test_every_file_is_listed() -> None:
    head = PAGE.split("\n## ")[0]
    assert {f"`{name}`" for name in (*TABLES, *OPTIONAL_TABLES)} <= set(re.findall(r"`\w+`", head))
