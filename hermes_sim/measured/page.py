"""docs/measured-tables.md and docs/measured-tables.schema.json: the public format of measured kernels.

`python -m hermes_sim.measured.page` writes both.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from hermes_sim.measured.columns import COMMON, FORMS, OPERATORS, Column, columns_of

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "measured-tables.md"
SCHEMA: Final = DOCS / "measured-tables.schema.json"

_INTRODUCTION: Final = """\
# Measured tables of kernels

Generated from the columns that the readers check: `python -m hermes_sim.measured.page`.

One row is one measurement: the median over repeats of one shape under one setting, in seconds and bytes. A file is CSV
(plain or `.csv.gz`) or Parquet, under any name, and may hold rows of several operators; cells of columns that a row's
operator does not have stay empty. `hermes-sim profile` writes this format, `hermes-sim validate --data FOLDER` compares
every such table under the folder with the cost models, and `hermes-sim calibrate --device my_chip.yaml --measured
table.csv` fits a device to one. [measured-tables.schema.json](measured-tables.schema.json) is the JSON Schema of a row.

    operator,device,measured_s,dtype,m,n,k
    gemm,my_chip,2.31e-5,bf16,64,4096,4096
    gemm,my_chip,2.95e-5,bf16,256,4096,4096

From Python:

    from hermes_sim.measured import read_kernels

    tables = read_kernels("folder", operators=["gemm"], devices=["h100_sxm"])
    tables["gemm"]        # a pandas table; tables.problems and tables.skipped say what is not in it

A row that breaks a rule below is named with its file, its number (0-based, the header not counted) and its column, and
left out; the rest of the file is read. A file that lacks a column, or is cut off, is named. `device` and `model` are
names or aliases of the library, whatever their case and separators; another text is kept, and its rows are counted as
not predicted until a device file has that name.

Other layouts are known by their columns too: those of aiconfigurator's collector, of Vidur's profiler, of both of
LLMServingSim's profilers and of LLMCompass. What their columns do not say (device, model, tensor-parallel degree) is
read off the name of the file, or off a `meta.json` beside it. Two facts about LLMServingSim's older attention tables
follow from the times in them: tables with head counts count the cache of the whole batch, new tokens included, and
tables without them (TPU) that of each sequence, new tokens excluded.
"""


def page_text() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## Columns of every operator\n", _table(COMMON)]
    for operator, columns in OPERATORS.items():
        parts += [f"## {operator}\n", FORMS[operator] + "\n", _table(columns)]
    return "\n".join(parts)


def schema_text() -> str:
    """JSON Schema of one row."""
    rows = [
        {
            "title": operator,
            "type": "object",
            "properties": {column.name: _property(column, operator) for column in columns_of(operator)},
            "required": [column.name for column in columns_of(operator) if column.default is None],
        }
        for operator in OPERATORS
    ]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One row of a table of measured kernels",
        "oneOf": rows,
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _table(columns: tuple[Column, ...]) -> str:
    rows = ["| column | holds | default | meaning |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {_holds(one)} | {_default(one)} | {one.meaning} |" for one in columns]
    return "\n".join(rows) + "\n"


def _holds(column: Column) -> str:
    if column.kind == "text":
        return "text"
    noun = "whole number" if column.kind == "count" else "number"
    if column.name == "measured_s":
        return f"{noun} above 0"
    return f"{noun} from {max(column.least, 0.0):g}"


def _default(column: Column) -> str:
    if column.default is None:
        return "needed"
    if isinstance(column.default, float):
        return "" if math.isnan(column.default) else f"{column.default:g}"
    return f"`{column.default}`" if column.default else "empty"


def _property(column: Column, operator: str) -> dict[str, Any]:
    if column.name == "operator":
        return {"const": operator, "description": column.meaning}
    if column.kind == "text":
        found: dict[str, Any] = {"type": "string"}
    elif column.name == "measured_s":
        found = {"type": "number", "exclusiveMinimum": 0}
    else:
        found = {"type": "integer" if column.kind == "count" else "number", "minimum": max(column.least, 0.0)}
    has_default = column.default is not None and not (isinstance(column.default, float) and math.isnan(column.default))
    return {**found, **({"default": column.default} if has_default else {}), "description": column.meaning}


def write() -> None:
    """Both files."""
    PAGE.write_text(page_text(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write()
