"""The report as one HTML file that needs nothing else: bars, plots, errors, worst rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from hermes_sim.validation.accuracy import Accuracy
from hermes_sim.validation.pictures import error_bars, scatter

_STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #1b1f24; }
table { border-collapse: collapse; margin: .8em 0; font-size: 13px; }
th, td { padding: .15em .7em .15em 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #888; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.met td.status { color: #11703a; } tr.not-met td.status { color: #b3261e; }
details { margin: .6em 0; } summary { cursor: pointer; }
svg { max-width: 100%; height: auto; }
"""
_ERROR_COLUMNS: Final = ("side", "num_rows", "mean_frac", "median_frac", "p90_frac", "bias_frac", "in_band_frac")
_GROUPS: Final = (
    ("by_operator", ("operator",)), ("by_device", ("operator", "device")),
    ("by_dtype", ("operator", "device", "dtype")),
    ("by_model", ("operator", "model")), ("by_engine", ("operator", "engine")), ("by_table", ("table", "operator")),
)  # fmt: skip


def page(accuracy: Accuracy) -> str:
    """Text of the HTML file."""
    report = accuracy.as_dict()
    parts = [f"<h1>Accuracy on {escape(accuracy.folder)}</h1>", _bars(report["bars"])]
    if accuracy.kernels is not None and len(accuracy.kernels.scored):
        kernels = report["kernels"]
        rows = kernels["rows"]
        parts.append(f"<h2>Kernels</h2><p>{rows['present']:,} rows, {rows['predicted']:,} predicted.</p>")
        parts.append(_legend())
        parts.append(scatter(accuracy.kernels.scored, "operator"))
        shown = [record for record in kernels["by_device"] if record["side"] != "fitted"]
        parts.append(error_bars(shown, ("operator", "device")))
        parts += [_errors(name, keys, kernels[name], is_open=name == "by_operator") for name, keys in _GROUPS]
        if report.get("unseen"):
            parts.append(
                _errors("devices never seen", ("operator", "device", "donor_device", "donor"), report["unseen"])
            )
        if report.get("layers"):
            parts.append(_errors("layers", ("device", "model", "timing"), report["layers"]))
        parts.append(_reasons(kernels["unexpressed"]))
        parts.append(_worst(kernels["worst"]))
    if accuracy.serving is not None and len(accuracy.serving.scored):
        serving = report["serving"]
        parts.append(f"<h2>Serving</h2><p>{serving['rows']['compared']:,} numbers compared.</p>")
        parts.append(_legend())
        parts.append(scatter(accuracy.serving.scored, "metric"))
        for name, records in serving.items():
            if name.startswith("by_"):
                keys = tuple(key for key in (records[0] if records else {}) if key not in _NOT_KEYS)
                parts.append(_errors(name, keys, records, is_open=name == "by_experiment"))
        parts.append(_reasons(serving["unexpressed"]))
        parts.append(_worst(serving["worst"]))
    if report["problems"]:
        items = "".join(f"<li>{escape(problem)}</li>" for problem in report["problems"])
        parts.append(f"<h2>Malformed files and rows ({report['num_problems']})</h2><ul>{items}</ul>")
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>hermes-sim accuracy</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


_NOT_KEYS: Final = frozenset({*_ERROR_COLUMNS, "num_in_bands"})


def _legend() -> str:
    return "<p>grey: fitted; blue: kept out of every fit; orange: devices that no fit has seen.</p>"


def _bars(records: Sequence[dict[str, Any]]) -> str:
    rows = []
    for bar in records:
        reached = "-" if bar["value"] is None else f"{bar['value']:.1%}"
        cells = [
            _cell(bar["what"]), _cell(bar["statistic"]), _cell(f"{bar['rows']:,}", "number"), _cell(reached, "number"),
            _cell(f"{bar['limit']:.1%}", "number"), _cell(bar["status"], "status"), _cell(bar["reason"]),
        ]  # fmt: skip
        rows.append(f'<tr class="{bar["status"].replace(" ", "-")}">{"".join(cells)}</tr>')
    return _table(("bar", "statistic", "rows", "reached", "asked", "", "why not"), rows)


def _errors(title: str, keys: Sequence[str], records: Iterable[dict[str, Any]], *, is_open: bool = False) -> str:
    rows = []
    for record in records:
        cells = [_cell(str(record[key])) for key in keys]
        for name in _ERROR_COLUMNS:
            value = record.get(name)
            text = "" if value is None else f"{value:.1%}" if isinstance(value, float) else str(value)
            cells.append(_cell(text, "" if name == "side" else "number"))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = (*keys, "side", "rows", "mean", "median", "p90", "bias", "in band")
    opened = " open" if is_open else ""
    return f"<details{opened}><summary>{escape(title.replace('_', ' '))}</summary>{_table(heads, rows)}</details>"


def _reasons(records: Iterable[dict[str, Any]]) -> str:
    rows = [
        f"<tr>{_cell(str(one.get('operator', one.get('experiment'))))}{_cell(one['reason'])}"
        f"{_cell(format(one['rows'], ','), 'number')}</tr>"
        for one in records
    ]
    return f"<details><summary>rows in no mean, and why</summary>{_table(('', 'reason', 'rows'), rows)}</details>"


def _worst(records: Iterable[dict[str, Any]]) -> str:
    rows = []
    for one in records:
        shape = one.get("shape") or one.get("labels") or {}
        what = ", ".join(f"{name} {value}" for name, value in shape.items())
        where = f"{one['table']} row {one['row']}"
        name = str(one.get("operator", f"{one.get('experiment')} {one.get('metric')}"))
        facts = "; ".join(one.get("special", ()))
        cells = [_cell(name), _cell(where), _cell(what), _cell(f"{one['error_frac']:+.1%}", "number"), _cell(facts)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ("", "row", "shape", "error", "what is special")
    return f"<details><summary>worst rows</summary>{_table(heads, rows)}</details>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _cell(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<td{attribute}>{escape(text)}</td>"
