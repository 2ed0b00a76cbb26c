"""The page and the schema of the public format are those of the columns."""

from __future__ import annotations

import json

from hermes_sim.measured.columns import OPERATORS, columns_of
from hermes_sim.measured.page import PAGE, SCHEMA, page_text, schema_text


def test_files_are_as_generated() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_text()
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


def test_every_operator_states_what_it_needs() -> None:
    rows = {row["title"]: row for row in json.loads(schema_text())["oneOf"]}
    assert set(rows) == set(OPERATORS)
    for operator, row in rows.items():
        assert set(row["properties"]) == {column.name for column in columns_of(operator)}
        assert {"operator", "device", "measured_s"} <= set(row["required"])
        assert row["properties"]["operator"]["const"] == operator
