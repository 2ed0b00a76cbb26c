"""Capacities in words: one configuration line by line, several as a table of 80 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from hermes_sim.analysis.human import count, digits, duration, percent, usd, with_prefix

if TYPE_CHECKING:
    from hermes_sim.explore.capacity.capacity import CapacityResults

WIDTH: Final = 80
LABEL_WIDTH: Final = 13
GAP: Final = "  "
AGREE_FACTOR: Final = 1.5
"""Seeds agree where their capacities differ by no more than so many times the tolerance."""


def capacity_words(results: CapacityResults) -> str:
    """What was found, the decision first."""
    setting = results.setting
    head = _wrapped(f"{setting['workload']} on {setting['cluster']} · SLO {setting['slo']}", "")
    table = results.table
    body = _one(table.iloc[0], results.criterion.tolerance) if len(table) == 1 else _several(results)
    return "\n".join([*head, *body])


def _one(row: pd.Series, tolerance: float) -> list[str]:
    """A line for each thing known."""
    status = row["status"]
    if status == "failed":
        return [*_line("failed", row["text"])]
    if status == "hopeless" and not row["capacity"] > 0:
        return [*_line("capacity", f"none: {row['text']}"), *_line("runs", runs_words(row))]
    lines = [("capacity", f"{capacity_number(row)} {row['unit']}{_certainty(row, tolerance)}")]
    if status == "hopeless":
        lines.append(("", "none under some seeds"))
    busy = f"{row['resource']} {percent(row['resource_frac'])}, busy {percent(row['utilization_frac'])}"
    price = usd(row["usd_per_million_output_tokens"])
    lines += [
        ("binds", _binding(row)),
        ("at the limit", _at_limit(row)),
        ("bottleneck", f"{row['engine']}, {busy}"),
        ("output", f"{digits(row['output_tokens_per_s'])} tokens/s · {price} per million"),
        ("per dollar", f"{digits(row['per_usd'])} {row['unit']} per $/h ({usd(row['rent_usd_per_h'])}/h)"),
        ("per watt", f"{digits(row['per_watt'] * 1e3)} {row['unit']} per kW ({with_prefix(row['power_w'], 'W')})"),
        ("per device", f"{digits(row['per_device'])} {row['unit']} ({count(row['num_devices'])} devices)"),
        (
            "in a backlog",
            "" if math.isnan(row["served_per_s"]) else f"{digits(row['served_per_s'])} {row['unit']} served",
        ),
        ("runs", runs_words(row)),
    ]
    text = [line for label, words in lines if words for line in _line(label, words)]
    return text + [line for note in _notes(row) for line in _line("note", note)]


def capacity_number(row: Mapping[str, Any] | pd.Series) -> str:
    """1.20; of clients 12, or 12.3 over seeds that differ."""
    value = float(row["capacity"])
    return f"{value:g}" if row["unit"] == "clients" and value.is_integer() else digits(value)


def _certainty(row: pd.Series, tolerance: float) -> str:
    """' (next tried: 1.22)', ' +- 0.02 (3 seeds from 1.18 to 1.22; not 1.24)'."""
    bracket = "" if math.isnan(row["high"]) else f"not {digits(row['high'])}"
    if row["num_seeds"] == 1:
        return f" ({bracket}; one seed)" if bracket else " (one seed)"
    agree = row["spread_frac"] <= AGREE_FACTOR * tolerance
    seeds = f"{count(row['num_seeds'])} seeds {'agree' if agree else 'differ'}: {digits(row['low'])} under all"
    return (
        f" ± {digits(row['half_width_95'], 2)} ({', '.join([seeds, f'{bracket} under any'] if bracket else [seeds])})"
    )


def _binding(row: pd.Series) -> str:
    if row["status"] == "open":
        return str(row["text"])
    text = str(row["text"])
    return f"saturation: {text}" if row["binding"] == "saturation" else text


def _at_limit(row: pd.Series) -> str:
    words = [] if row["at_limit"] in ("", "no objective") else [row["at_limit"]]
    if not math.isnan(row["ttft_p99_s"]) and not row["at_limit"].startswith("TTFT p99"):
        words.append(f"TTFT p99 {duration(row['ttft_p99_s'])}")
    if not math.isnan(row["e2e_p99_s"]):
        words.append(f"E2E p99 {duration(row['e2e_p99_s'])}")
    return " · ".join(words)


def runs_words(row: Mapping[str, Any] | pd.Series) -> str:
    """'12, 6 of them stopped early, in 3.1 s'."""
    reused = f", {count(row['num_reused'])} known from before" if row["num_reused"] else ""
    early = f", {count(row['num_stopped_early'])} of them stopped early" if row["num_stopped_early"] else ""
    return f"{count(row['num_runs'])}{early}{reused}, in {duration(row['wall_time_s'])}"


def _notes(row: pd.Series) -> list[str]:
    return [note for note in str(row.get("notes", "")).split("; ") if note and note != "nan"]


def _line(label: str, words: str) -> list[str]:
    return _wrapped(words, label.ljust(LABEL_WIDTH))


def _wrapped(words: str, label: str) -> list[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent=label, subsequent_indent=" " * max(len(label), 2), break_long_words=False
    ) or [label]


# ----- several configurations

Cell = Callable[[pd.Series], str]

COLUMNS: Final[tuple[tuple[str, Cell, int], ...]] = (
    ("{unit}", capacity_number, 0),
    ("±", lambda row: digits(row["half_width_95"], 2), 2),
    ("not", lambda row: digits(row["high"]), 4),
    ("binds", lambda row: str(row["binding"]), 1),
    ("bottleneck", lambda row: f"{str(row['engine']).partition('[')[0]} {row['resource']}", 3),
    ("busy", lambda row: percent(row["utilization_frac"]), 6),
    ("$/Mtoken", lambda row: digits(row["usd_per_million_output_tokens"]), 1),
    ("per $/h", lambda row: digits(row["per_usd"]), 1),
    ("per kW", lambda row: digits(row["per_watt"] * 1e3), 3),
    ("each", lambda row: digits(row["per_device"]), 5),
    ("runs", lambda row: count(row["num_runs"]), 6),
)
"""Title, cell, how dispensable: the most dispensable ones are left out where the table is wider than 80 columns."""


def _several(results: CapacityResults) -> list[str]:
    table = results.table
    borne = table[table["status"].isin(["done", "open", "hopeless"]) & (table["capacity"] > 0)]
    lines = [] if borne.empty else _aligned(results.axes, borne)
    lines += _told_apart(results.axes, borne)
    for _, row in table[~table.index.isin(borne.index)].iterrows():
        where = _point(results.axes, row)
        lines += _wrapped(f"{where}: {'failed' if row['status'] == 'failed' else 'none'}: {row['text']}", "")
    for _, row in borne.iterrows():
        lines += [line for note in _notes(row) for line in _wrapped(f"{_point(results.axes, row)}: {note}", "")]
    whole = table.fillna({"num_runs": 0, "num_stopped_early": 0, "num_reused": 0, "wall_time_s": 0.0})
    totals = {name: float(whole[name].sum()) for name in ("num_runs", "num_stopped_early", "num_reused", "wall_time_s")}
    return [*lines, *_wrapped(runs_words(totals), "runs ")]


def _told_apart(axes: Sequence[str], rows: pd.DataFrame) -> list[str]:
    """Which configurations may be as good as the first."""
    if len(rows) < 2 or rows["below_best"].iloc[1:].isna().all():
        return [] if len(rows) < 2 else _wrapped("one seed: what is chance is not known", "")
    same = [_point(axes, row) for _, row in rows.iloc[1:].iterrows() if row["below_best"] == 0.0]
    seeds = f"{count(rows['num_seeds'].iloc[0])} seeds, 95%"
    if not same:
        return _wrapped(f"the first is ahead of all others ({seeds})", "")
    return _wrapped(f"not told apart from the first ({seeds}): {'; '.join(same)}", "")


def _aligned(axes: Sequence[str], rows: pd.DataFrame) -> list[str]:
    units = list(dict.fromkeys(rows["unit"]))
    unit = units[0] if len(units) == 1 else "load"
    kept = [*COLUMNS]
    while True:
        titles = [*axes, *(title.format(unit=unit) for title, _, _ in kept)]
        cells = [[*_names(axes, row), *(cell(row) for _, cell, _ in kept)] for _, row in rows.iterrows()]
        widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
        if sum(widths) + len(GAP) * (len(widths) - 1) <= WIDTH or len(kept) == 1:
            break
        kept.remove(max(kept, key=lambda column: column[2]))
    texts = {len(axes) + place for place, (title, _, _) in enumerate(kept) if title in ("binds", "bottleneck")}
    texts |= set(range(len(axes)))

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if place in texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return GAP.join(padded).rstrip()

    return [line(titles), *(line(row) for row in cells)]


def _names(axes: Sequence[str], row: pd.Series) -> list[str]:
    return ["-" if row[axis] is None or row[axis] != row[axis] else str(row[axis]) for axis in axes]


def _point(axes: Sequence[str], row: pd.Series) -> str:
    named = zip(axes, _names(axes, row), strict=True)
    return ", ".join(f"{axis} {name}" for axis, name in named) or "it"
