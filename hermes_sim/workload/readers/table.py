"""Plain tables, CSV or Parquet: arrival_s, num_prompt_tokens, num_output_tokens, and what else is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, Literal, cast

from pydantic import Field, field_validator

from hermes_sim.core.errors import TraceError
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.workload.readers.rows import BadRows, csv_rows, lines, recorded, seconds, shown_cell, tokens
from hermes_sim.workload.readers.trace import Trace
from hermes_sim.workload.requests import RequestTable

_NEEDED: Final = ("arrival_s", "num_prompt_tokens", "num_output_tokens")
_OPTIONAL: Final = ("session", "prefix", "prefix_tokens", "priority", "pipeline", "client", "adapter")
_COLUMNS: Final = _NEEDED + _OPTIONAL

Row = tuple[int, list[object]]


class Table(Trace):
    """One request per row. Optional columns: session, prefix, client, adapter (all any text), prefix_tokens, priority,
    pipeline.

    arrival_s counts from the start of the run. Turns of a session arrive at their recorded times. Requests with the
    same prefix share their first prefix_tokens prompt tokens (all of the prompt if the column is missing).
    """

    published: ClassVar[str] = "A table has the columns arrival_s, num_prompt_tokens, num_output_tokens."
    format: Literal["table"] = "table"
    columns: dict[str, str] = Field(default={})
    """Names of the columns in the file where they differ: {num_prompt_tokens: input_tokens}."""

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in _COLUMNS:
                raise ValueError(f"{name!r} is not a column ({listed(_COLUMNS)}).{did_you_mean(name, _COLUMNS)}")
        return columns

    def read(self, path: Path, seed: int, num_rows: int | None) -> RequestTable:
        bad_rows = BadRows(path, self.on_bad_row)
        names = [self.columns.get(name, name) for name in _COLUMNS]
        rows = _parquet_rows(path, names) if _is_parquet(path) else _csv_rows(path, names)
        numbers: list[tuple[float, int, int, int, int]] = []
        labels: list[list[int]] = []
        known: list[dict[object, int]] = [{}, {}, {}, {}, {}]
        for line, cells in rows:
            if len(numbers) == num_rows:
                break
            arrival, prompt, output, session, prefix, prefix_tokens, priority, pipeline, client, adapter = cells
            try:
                num_prompt_tokens = tokens(prompt, names[1])
                shared = _shared_tokens(prefix, prefix_tokens, num_prompt_tokens)
                arrival_s, num_output_tokens = seconds(arrival, names[0]), tokens(output, names[2])
                row = (arrival_s, num_prompt_tokens, num_output_tokens, shared, _priority(priority))
            except ValueError as error:
                bad_rows.report(line, str(error))
                continue
            numbers.append(row)
            named = (session, prefix, pipeline, client, adapter)
            labels.append([_label(cell, ids) for cell, ids in zip(named, known, strict=True)])
        arrivals, prompts, outputs, shares, priorities = zip(*numbers, strict=True) if numbers else ((),) * 5
        sessions, prefixes, pipelines, clients, adapters = zip(*labels, strict=True) if labels else ((),) * 5
        pipeline_names = tuple(str(name) for name in known[2])
        return recorded(
            arrivals, cast("tuple[int, ...]", prompts), cast("tuple[int, ...]", outputs), bad_rows,
            session=sessions, prefix_group=prefixes, prefix_tokens=shares, priority=priorities,
            pipeline=pipelines if pipeline_names else None, pipeline_names=pipeline_names,
            client=clients if known[3] else None, adapter=adapters if known[4] else None,
        )  # fmt: skip


def _csv_rows(path: Path, names: list[str]) -> Iterator[Row]:
    for line, cells in csv_rows(path, names[: len(_NEEDED)], names[len(_NEEDED) :]):
        yield line, list(cells)


def _parquet_rows(path: Path, names: list[str]) -> Iterator[Row]:
    """Rows of a Parquet file, counted from 1."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        present = file.schema_arrow.names
        for name in names[: len(_NEEDED)]:
            if name not in present:
                near = did_you_mean(name, present)
                raise TraceError(f"{path}: no column '{name}' (columns: {', '.join(present)}).{near}")
        columns = file.read(columns=[name for name in names if name in present]).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise TraceError(f"{path}: {error}") from None
    num_rows = len(columns[names[0]])
    filled = [columns.get(name, [None] * num_rows) for name in names]
    for row, cells in enumerate(zip(*filled, strict=True), start=1):
        yield row, list(cells)


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        next(lines(path))  # says what is wrong with the file
        raise


def _shared_tokens(prefix: object, prefix_tokens: object, num_prompt_tokens: int) -> int:
    if _is_empty(prefix):
        if not _is_empty(prefix_tokens) and tokens(prefix_tokens, "prefix_tokens") > 0:
            raise ValueError(f"prefix_tokens is {shown_cell(prefix_tokens)}, but there is no prefix to share")
        return 0
    shared = num_prompt_tokens if _is_empty(prefix_tokens) else tokens(prefix_tokens, "prefix_tokens")
    if shared > num_prompt_tokens:
        raise ValueError(f"prefix_tokens {shared} exceeds the {num_prompt_tokens} prompt tokens")
    return shared


def _priority(cell: object) -> int:
    if _is_empty(cell):
        return 0
    try:
        return int(cast("str", cell))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"priority needs a whole number, got {shown_cell(cell)}") from None


def _label(cell: object, ids: dict[object, int]) -> int:
    """-1 for none, else a number per distinct text, in order of appearance."""
    return -1 if _is_empty(cell) else ids.setdefault(cell, len(ids))


def _is_empty(cell: object) -> bool:
    return cell is None or cell == "" or cell != cell  # noqa: PLR0124  (NaN of a Parquet file)
