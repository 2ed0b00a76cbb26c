"""Recorded steps as a person reads them, in the manner of a scheduler's log."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hermes_sim.analysis import human

WIDTH = 100
MOST_LISTED = 2
COLUMNS = ("step", "start", "took", "tokens", "decodes", "prompts", "run", "wait", "KV")
WIDTHS = (6, 10, 9, 8, 9, 10, 6, 6, 6)


def step_lines(steps: pd.DataFrame, num: int) -> list[str]:
    """A header, then one line for each of the first `num` steps.

    `prompts` is sequences:tokens. Behind it: who was admitted (+request:tokens found in the cache) and preempted
    (-request), how many ended, and drafts kept of those made.
    """
    first = steps.head(num)
    several = len(first["engine"].unique()) > 1
    name_width = max((len(str(name)) for name in first["engine"]), default=0) + 1 if several else 0
    lines = [" " * name_width + _cells(COLUMNS)]
    for _, row in first.iterrows():
        name = f"{row['engine']:<{name_width}}" if several else ""
        lines.append(_shortened(name + _cells(_row(row)) + _what_happened(row)))
    return lines


def _cells(texts: Sequence[str]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, WIDTHS, strict=True))


def _row(row: pd.Series) -> list[str]:
    took_s = float(row["end_s"] - row["start_s"])
    prompts = f"{row['num_prefill']}:{row['num_prefill_tokens']}" if row["num_prefill"] else human.NOTHING
    return [
        human.count(row["step"]),
        f"{row['start_s']:.4f} s",
        human.in_unit(took_s, human.time_unit([took_s])),
        human.count(row["num_tokens"]),
        human.count(row["num_decode"]),
        prompts,
        human.count(row["num_running"]),
        human.count(row["num_waiting"]),
        human.percent(row["kv_used_frac"]),
    ]


def _what_happened(row: pd.Series) -> str:
    said = [*_few("+", str(row["admitted"]).split()), *_few("-", str(row["preempted"]).split())]
    if row["num_finished"]:
        said.append(f"{row['num_finished']} ended")
    if row["num_drafted_tokens"]:
        said.append(f"{row['num_accepted_tokens']}/{row['num_drafted_tokens']} drafts")
    return "  " + " ".join(said) if said else ""


def _few(sign: str, texts: Sequence[str]) -> list[str]:
    listed = [sign + text for text in texts[:MOST_LISTED]]
    return listed if len(texts) <= MOST_LISTED else [*listed, f"({len(texts) - MOST_LISTED} more)"]


def _shortened(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."
