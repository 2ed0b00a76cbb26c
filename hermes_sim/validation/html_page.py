"""The report as one HTML file that needs nothing else: bars, plots, errors, worst rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from hermes_sim.validation.bars import SHARE_INSIDE, asked
from hermes_sim.validation.pictures import COLORS, SIDE_WORDS, Points, scatter

MARKS: Final = {"met": "\N{CHECK MARK}", "not met": "\N{MULTIPLICATION X}", "no data": "\N{EN DASH}"}
LONGEST_METER: Final = 0.5
"""Mean error whose meter fills its cell."""
METER_OF_BAR: Final = 2.0
"""A bar's meter ends at so many times what is asked."""
_ERROR_COLUMNS: Final = ("num_rows", "mean_frac", "median_frac", "p90_frac", "bias_frac", "in_band_frac")
_ERROR_HEADS: Final = ("side", "rows", "mean", "median", "p90", "bias", "in band")
_NOT_KEYS: Final = frozenset({*_ERROR_COLUMNS, "side", "num_in_bands"})


def page(report: Mapping[str, Any]) -> str:
    """Text of the HTML file of a JSON report."""
    kernels, serving = report.get("kernels"), report.get("serving")
    parts = [f"<header><h1>Accuracy</h1><p>{_asked_for(report)}</p></header>", _bars(report["bars"])]
    if kernels is not None and kernels["by_operator"]:
        rows = kernels["rows"]
        counted = f"{rows['present']:,} rows in {kernels['files']} files, {rows['predicted']:,} of them predicted."
        parts.append(f'<section id="kernels"><h2>Kernels</h2><p>{counted}</p>')
        parts.append(_plots(kernels.get("points", {}).items(), "seconds", _kernel_points))
        parts += [_errors(name, records) for name, records in kernels.items() if name.startswith("by_")]
        parts.append(_errors("devices as if never measured", report.get("unseen", ())))
        parts.append(_errors("layers of models", report.get("layers", ())))
        parts += [_reasons(kernels["unexpressed"]), _worst(kernels["worst"]), "</section>"]
    if serving is not None and serving["by_experiment"]:
        parts.append('<section id="serving"><h2>Served runs</h2>')
        parts.append(f"<p>{serving['rows']['compared']:,} numbers compared.</p>")
        parts.append(_plots(_by_metric(serving.get("runs", ())).items(), "seconds or tokens per second", dict))
        parts += [_errors(name, records) for name, records in serving.items() if name.startswith("by_")]
        parts += [_reasons(serving["unexpressed"]), _worst(serving["worst"]), "</section>"]
    if report["problems"]:
        items = "".join(f"<li>{escape(problem)}</li>" for problem in report["problems"])
        heading = f"Malformed files and rows ({report['num_problems']:,})"
        parts.append(f'<section id="problems"><h2>{heading}</h2><ul>{items}</ul></section>')
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>hermes-sim accuracy</title><style>{_style()}</style>'
    )
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _style() -> str:
    sides = (f".legend .{side}::before {{ background: {color}; }}\n" for side, color in COLORS.items())
    return (files("hermes_sim.validation") / "page.css").read_text(encoding="utf-8") + "".join(sides)


def _asked_for(report: Mapping[str, Any]) -> str:
    folder, only = report.get("folder"), report["only"]
    found = f"hermes-sim {escape(report['version'])} beside the measurements"
    found += f" in <code>{escape(folder)}</code>" if folder else ""
    return found + (f", only <code>{escape(only)}</code>." if only else ".")


def _bars(bars: Sequence[Mapping[str, Any]]) -> str:
    judged = [bar for bar in bars if bar["status"] != "no data"]
    if not bars:
        return ""
    num_met = sum(bar["status"] == "met" for bar in judged)
    rows = []
    for bar in bars:
        kind, status = bar["status"].replace(" ", "-"), bar["status"]
        reached = "-" if bar["value"] is None else f"{bar['value']:.1%}"
        cells = [
            f'<th scope="row">{escape(bar["what"])}<small>{bar["statistic"]} of {bar["rows"]:,} rows</small></th>',
            f'<td class="status"><span aria-hidden="true">{MARKS[status]}</span> {status}</td>',
            f'<td class="number">{reached}</td>',
            f'<td class="number asked">{escape(asked(bar))}</td>',
            f'<td class="meter">{_meter(bar)}</td>',
            f'<td class="reason">{escape(bar["reason"])}</td>',
        ]
        rows.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    heads = {"rows that fitted nothing": "", "verdict": "", "reached": "number", "asked": "number"}
    heads |= {"against asked": "", "where the error sits": ""}
    table = f'<table class="bars"><thead>{_heads(heads)}</thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<section id="bars"><h2>Bars: {num_met} of {len(judged)} met</h2>{table}</section>'


def _meter(bar: Mapping[str, Any]) -> str:
    """What is reached, as a length beside a tick where it should end."""
    if bar["value"] is None:
        return ""
    end = 1.0 if bar["statistic"] == SHARE_INSIDE else METER_OF_BAR * bar["limit"]
    reached, tick = (f"{100.0 * min(value / end, 1.0):.1f}%" for value in (bar["value"], bar["limit"]))
    return f'<div><i style="width:{reached}"></i><b style="left:{tick}"></b></div>'


def _plots(panels: Iterable[tuple[str, Any]], unit: str, points_of: Any) -> str:
    shown = [(name, points_of(found)) for name, found in panels]
    if not shown:
        return ""
    sides = {side for _, points in shown for side in points}
    legend = "".join(f'<span class="{side}">{word}</span>' for side, word in SIDE_WORDS.items() if side in sides)
    pictures = "".join(f"<figure>{scatter(name.replace('_', ' '), points)}</figure>" for name, points in shown)
    caption = f'<p class="legend">Predicted against measured, {unit}; the line is where both are the same. {legend}</p>'
    return f'{caption}<div class="plots">{pictures}</div>'


def _kernel_points(sides: Mapping[str, Mapping[str, Sequence[float]]]) -> Points:
    return {side: (found["measured_s"], found["predicted_s"]) for side, found in sides.items()}


def _by_metric(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Metric -> side -> measured, predicted of runs that count."""
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for run in runs:
        if "left_out" in run:
            continue
        for metric, (measured, predicted, *_) in run["metrics"].items():
            if measured and predicted:
                both = found.setdefault(metric, {}).setdefault(run["side"], ([], []))
                both[0].append(measured)
                both[1].append(predicted)
    return dict(sorted(found.items()))


def _errors(title: str, records: Sequence[Mapping[str, Any]]) -> str:
    """One table of errors; the first one of a part is open."""
    if not records:
        return ""
    keys = [key for key in records[0] if key not in _NOT_KEYS]
    rows = []
    for record in records:
        cells = [_cell(str(record[key])) for key in keys] + [_cell(SIDE_WORDS.get(record.get("side", ""), ""))]
        cells.append(_cell(f"{record['num_rows']:,}", "number"))
        mean = record["mean_frac"]
        width = f"{100.0 * min(mean / LONGEST_METER, 1.0):.0f}%"
        cells.append(f'<td class="number mean"><i style="width:{width}"></i><span>{mean:.1%}</span></td>')
        cells += [_cell(f"{record[name]:.1%}", "number") for name in ("median_frac", "p90_frac")]
        band = record["in_band_frac"]
        cells += [
            _cell(f"{record['bias_frac']:+.1%}", "number"),
            _cell("" if band is None else f"{band:.0%}", "number"),
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = _table((*keys, *_ERROR_HEADS), rows, num_texts=len(keys) + 1)
    return _folded(title, table, len(rows), is_open=title in ("by_operator", "by_experiment"))


def _reasons(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    rows = [
        f"<tr>{_cell(str(one.get('operator', one.get('experiment'))))}{_cell(one['reason'], 'long')}"
        f"{_cell(format(one['rows'], ','), 'number')}</tr>"
        for one in records
    ]
    table = _table(("of", "reason", "rows"), rows, num_texts=2)
    return _folded("rows in no mean, and why", table, len(rows))


def _worst(records: Iterable[Mapping[str, Any]]) -> str:
    rows = []
    for one in records:
        shape = one.get("shape") or one.get("labels") or {}
        what = ", ".join(f"{name} {value}" for name, value in shape.items())
        where = f"{one['table']} row {one['row']}"
        name = str(one.get("operator", f"{one.get('experiment')} {one.get('metric')}"))
        facts = "; ".join(one.get("special", ()))
        cells = [_cell(name), _cell(what, "long"), _cell(facts, "long"), _cell(where, "long")]
        rows.append(f"<tr>{''.join(cells)}{_cell(format(one['error_frac'], '+.1%'), 'number')}</tr>")
    table = _table(("of", "shape", "what is special", "row", "error"), rows, num_texts=4)
    return _folded("worst rows", table, len(rows))


def _folded(title: str, table: str, num_rows: int, *, is_open: bool = False) -> str:
    summary = f"<summary>{escape(title.replace('_', ' '))} <small>{num_rows:,}</small></summary>"
    return f"<details{' open' if is_open else ''}>{summary}{table}</details>"


def _table(heads: Sequence[str], rows: Sequence[str], num_texts: int) -> str:
    """Scrolls in a box of its own where the screen is narrow. num_texts: columns of text before those of numbers."""
    kinds = {name: "number" if place >= num_texts else "" for place, name in enumerate(heads)}
    return (
        f'<div class="scroll" tabindex="0"><table><thead>{_heads(kinds)}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heads(kinds: Mapping[str, str]) -> str:
    """Name of a column -> its class."""
    cells = (
        f'<th scope="col" class="{kind}">{escape(name.replace("_", " "))}</th>'
        if kind
        else f'<th scope="col">{escape(name.replace("_", " "))}</th>'
        for name, kind in kinds.items()
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<td{attribute}>{escape(text)}</td>"
