"""How lines are laid out: labels, parts behind them, columns; nothing wider than the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

Summary = Mapping[str, Any]
Engine = Mapping[str, Any]

WIDTH: Final = 80
LABEL_WIDTH: Final = 19
LATENCY_NAMES: Final = {"ttft": "TTFT", "ttfat": "TTFAT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
RESOURCE_NAMES: Final = {
    "compute": "compute",
    "memory": "memory bandwidth",
    "network": "the network",
    "host": "the host",
}
MAX_ENGINES_SHOWN: Final = 8


def labelled(label: str, parts: Sequence[str]) -> Iterator[str]:
    """`label   part · part`, continued below itself where it is too long; a part that is too long is cut at a blank."""
    line = f"{label:<{LABEL_WIDTH}}"
    if len(line) > LABEL_WIDTH:
        yield from hanging(label, 0)
        line = " " * LABEL_WIDTH
    is_empty = True
    for part in parts:
        if not is_empty and len(line) + 3 + len(part) > WIDTH:
            yield line
            line, is_empty = " " * LABEL_WIDTH, True
        if is_empty and LABEL_WIDTH + len(part) > WIDTH:
            *whole, part = textwrap.wrap(part, WIDTH - LABEL_WIDTH)
            for one in whole:
                yield line + one
                line = " " * LABEL_WIDTH
        line += part if is_empty else f" · {part}"
        is_empty = False
    yield line


def paragraph(label: str, text: str) -> Iterator[str]:
    """Running text behind a label."""
    for index, line in enumerate(textwrap.wrap(text, WIDTH - LABEL_WIDTH)):
        yield f"{label if index == 0 else '':<{LABEL_WIDTH}}{line}"


def hanging(text: str, indent: int) -> list[str]:
    """Running text over the whole width, its later lines indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent)


def cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    """Right-aligned; a text that fills its column keeps a blank before it where there is one to spare."""
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def table(
    title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], widths: Sequence[int]
) -> Iterator[str]:
    """A header and a row for each name; a name that is too long has a line of its own above its row."""
    name_width = min(WIDTH - sum(widths), LABEL_WIDTH)
    yield f"{title:<{name_width}}{cells(heads, widths)}"
    for name, texts in rows:
        label = f"  {name}"
        if len(label) > name_width:
            yield from textwrap.wrap(label, WIDTH, initial_indent="  ", subsequent_indent="    ")
            label = ""
        yield f"{label:<{name_width}}{cells(texts, widths)}"


def engine_groups(engines: Sequence[Engine]) -> list[tuple[str, list[Engine]]]:
    """Each engine alone, or the replicas of a name together where there are many: `llm (16)`, means over them (batch:
    over their busy time)."""
    if len(engines) <= MAX_ENGINES_SHOWN:
        return [(str(engine["engine"]), [engine]) for engine in engines]
    grouped = [(name, list(group)) for name, group in groupby(engines, lambda engine: engine["engine"].split("[")[0])]
    return [(f"{name} ({len(group)})" if len(group) > 1 else name, group) for name, group in grouped]


def total(group: Sequence[Engine], key: str) -> float:
    return float(sum(engine[key] for engine in group))
