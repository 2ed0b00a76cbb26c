"""The public format: a table that has the columns of an operator already, as people bring them and `profile` writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from hermes_sim.measured.columns import OPERATORS, Column, columns_of
from hermes_sim.measured.files import sound_rows
from hermes_sim.measured.layout import Layout, Part, Source


def _rows(source: Source) -> Iterator[Part]:
    """One file may hold rows of several operators: cells of the others' columns stay empty."""
    table = source.table
    operators = table["operator"].astype("str").str.strip()
    known = operators.isin(list(OPERATORS))
    bad = operators[~known]
    if len(bad):
        wanted = f"needs one of {', '.join(OPERATORS)}"
        source.log.rows(source.name, bad.index.tolist(), [f"{wanted}, got {text!r}" for text in bad], "operator")
    for operator in dict.fromkeys(operators[known]):
        columns = columns_of(operator)
        rows = table[operators == operator]
        missing = [column.name for column in columns if column.default is None and column.name not in rows]
        if missing:
            why = f"rows of {operator} need the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
            source.log.problem(source.name, why, num_rows=len(rows))
            continue
        rows = _filled(rows, columns)
        numbers = {column.name: column.least for column in columns if column.kind != "text" and column.name in rows}
        whole = [column.name for column in columns if column.kind == "count" and column.name in rows]
        rows = sound_rows(rows, source.name, source.log, numbers=numbers, whole=whole, flags=())
        if len(rows):
            devices = rows["device"].astype("str").str.strip().map(source.names.device)
            yield operator, rows.assign(device=devices)


def _filled(rows: pd.DataFrame, columns: tuple[Column, ...]) -> pd.DataFrame:
    """Empty cells get their default before they are checked; without one of its own, the column is left to the end."""
    update = {}
    drop = []
    for column in columns:
        if column.name not in rows or column.default is None or column.kind == "text":
            continue
        if isinstance(column.default, float) and np.isnan(column.default):
            if column.name == "max_context_tokens":
                update[column.name] = rows[column.name].fillna(rows["context_tokens"])
            elif column.least > -np.inf and rows[column.name].isna().any():
                drop.append(column.name)
        else:
            update[column.name] = rows[column.name].fillna(column.default)
    return rows.assign(**update).drop(columns=drop)


LAYOUTS: Final[tuple[Layout, ...]] = (
    Layout(
        "public format",
        frozenset(OPERATORS),
        _rows,
        {"measured_s": 0.0},
        texts=frozenset({"operator", "device"}),
        states_device=True,
    ),
)
