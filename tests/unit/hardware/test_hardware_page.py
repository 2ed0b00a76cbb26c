"""docs/hardware.md shows the library as it is."""

from __future__ import annotations

from pathlib import Path

from hermes_sim.hardware.reference import class_table, device_table, link_table
from tests.unit.hardware.shipped import classes, devices, links

PAGE = Path(__file__).resolve().parents[3] / "docs" / "hardware.md"


def test_the_page_holds_the_tables_of_the_library() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for table in (
        device_table(devices().values()),
        link_table(links().values()),
        class_table(classes().values()),
    ):
        assert table in page, f"put this table into docs/hardware.md:\n\n{table}"
