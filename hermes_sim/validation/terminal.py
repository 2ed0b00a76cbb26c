"""The report on a terminal: bars, errors by operator and experiment on both sides of the split, worst rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from hermes_sim.validation.bars import asked

WIDTH: Final = 100
MOST_REASONS: Final = 12
MOST_WORST: Final = 12
SIDE_WORDS: Final = {"fitted": "fitted", "held_out": "kept out", "unseen_device": "new device"}


def render(report: Mapping[str, Any], width: int = WIDTH, *, color: bool = False) -> str:
    """Text of a report, at most `width` columns."""
    out = StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, highlight=False, color_system="auto" if color else None
    )
    kernels, serving = report.get("kernels"), report.get("serving")
    if kernels is not None:
        rows = kernels["rows"]
        console.print(
            f"kernels: {rows['present']:,} rows in {kernels['files']} files, {rows['predicted']:,} predicted, "
            f"{rows['malformed']} malformed"
        )
        console.print(_errors("operator", "operator", kernels["by_operator"]))
        console.print(_errors("operator, device", ("operator", "device"), _kept_out(kernels["by_device"])))
        if report.get("unseen"):
            console.print(_errors("device never seen: coefficients of", _DONOR, report["unseen"]))
    if serving is not None:
        rows = serving["rows"]
        console.print(
            f"serving: {rows['compared']:,} numbers compared, {rows['left_out']:,} replayed but not counted, "
            f"{rows['not_replayed']:,} rows not replayed, {rows['malformed']} malformed"
        )
        console.print(_errors("experiment, metric", ("experiment", "metric"), serving["by_experiment"]))
    for part in (kernels, serving):
        if part is not None and part["unexpressed"]:
            console.print(_reasons(part["unexpressed"]))
    if kernels is not None and kernels["worst"]:
        console.print(_worst(kernels["worst"]))
    for problem in report["problems"][:MOST_REASONS]:
        console.print(f"problem  {problem}", soft_wrap=True)
    if report["num_problems"] > MOST_REASONS:
        console.print(f"... and {report['num_problems'] - MOST_REASONS} more problems (--json has them)")
    if report["bars"]:
        console.print(_bars(report["bars"]))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


_DONOR: Final = ("operator", "device", "donor_device", "donor")


def _kept_out(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["side"] != "fitted"]


def _errors(title: str, keys: str | Sequence[str], records: Iterable[dict[str, Any]]) -> Table:
    keys = (keys,) if isinstance(keys, str) else keys
    table = _table()
    table.add_column(title, overflow="fold")
    for name in ("side", "rows", "mean", "median", "p90", "bias", "in band"):
        table.add_column(name, justify="left" if name == "side" else "right", no_wrap=True)
    for record in records:
        band = record["in_band_frac"]
        table.add_row(
            " ".join(str(record[key]) for key in keys),
            SIDE_WORDS.get(str(record.get("side", "unseen_device")), ""),
            f"{record['num_rows']:,}",
            *(f"{record[name]:.1%}" for name in ("mean_frac", "median_frac", "p90_frac")),
            f"{record['bias_frac']:+.1%}",
            "-" if band is None else f"{band:.0%}",
        )
    return table


def _reasons(records: Sequence[dict[str, Any]]) -> Table:
    table = _table()
    table.add_column("rows without a prediction, or not counted", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    for record in records[:MOST_REASONS]:
        table.add_row(f"{record.get('operator', record.get('experiment'))}: {record['reason']}", f"{record['rows']:,}")
    rest = records[MOST_REASONS:]
    if rest:
        table.add_row(f"{len(rest)} more reasons (--json has them)", f"{sum(record['rows'] for record in rest):,}")
    return table


def _worst(records: Sequence[dict[str, Any]]) -> Table:
    table = _table()
    table.add_column("worst kernels", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("what is special", overflow="fold")
    first: dict[str, dict[str, Any]] = {}
    for record in records:
        first.setdefault(record["operator"], record)
    for record in list(first.values())[:MOST_WORST]:
        shape = ", ".join(f"{name} {value}" for name, value in list(record["shape"].items())[:4])
        where = f"{record['operator']} {record['device']} {record['dtype']}: {shape} (row {record['row']})"
        table.add_row(where, f"{record['error_frac']:+.0%}", "; ".join(record["special"][:3]))
    return table


def _bars(bars: Sequence[dict[str, Any]]) -> Table:
    table = _table()
    table.add_column("bar (rows that fitted nothing)", overflow="fold")
    for name in ("rows", "reached", "bar", ""):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why not", overflow="fold")
    for bar in bars:
        reached = "-" if bar["value"] is None else f"{bar['value']:.1%}"
        table.add_row(bar["what"], f"{bar['rows']:,}", reached, asked(bar), bar["status"], bar["reason"])
    return table


def _table() -> Table:
    from rich import box

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
