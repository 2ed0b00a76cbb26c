"""Measures and writes the tables of docs/performance.md anew: `python -m benchmarks.page`, some minutes.

Each table stands between `<!-- NAME -->` and `<!-- /NAME -->`; the words around them are written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks import scaling, startup
from benchmarks.machine import simpy_timeouts_per_s
from benchmarks.speed import Figures, measure
from benchmarks.twins import Twin, measure_twins
from benchmarks.workloads import BENCHMARKS, per_kilotick

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def figure(value: float) -> str:
    """Three digits."""
    return f"{float(f'{value:.3g}'):,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def speed_table(all_figures: Sequence[Figures], timeouts_per_s: float) -> str:
    """Requests per CPU second beside the bars."""
    bars = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    rows = [
        [
            figures.name,
            figure(figures.requests_per_s),
            figure(per_kilotick(figures.requests_per_s, timeouts_per_s)),
            figure(bars[figures.name].bar_per_kilotick),
            f"{figures.loop_s:.3g} s",
            f"{1e3 * figures.tables_s:.3g} ms",
            f"{figures.num_steps:,}",
            f"{figures.us_per_step:.3g}",
            f"{figures.us_per_output_token:.3g}",
        ]
        for figures in all_figures
    ]
    head = (
        "", "requests/s", "per kilotick", "bar", "event loop", "tables", "steps", "us per step", "us per output token",
    )  # fmt: skip
    machine = (
        f"A kilotick took {1e6 / timeouts_per_s:.2f} ms: {timeouts_per_s / 1e6:.2f} million timeouts per CPU second."
    )
    return f"{table(head, rows)}\n\n{machine}"


def twin_table(twins: Sequence[tuple[str, Twin]]) -> str:
    """The slow ways to the same answer: us per request, and how many times production's on the same requests."""
    names = list(dict.fromkeys(twin.name for _, twin in twins))
    rows = []
    for benchmark in (one for one in BENCHMARKS if one.has_twins):
        mine = {twin.name: twin for name, twin in twins if name == benchmark.name}
        cells = [
            f"{figure(mine[name].us_per_request)} us, {figure(mine[name].times_slower)}x" if name in mine else "-"
            for name in names
        ]
        rows.append([benchmark.name, *cells])
    return table(("us per request, times production's", *names), rows)


def write(name: str, text: str) -> None:
    """Put a table between its marks. Raises ValueError if the page has none of that name."""
    page = PAGE.read_text(encoding="utf-8")
    changed, number = re.subn(
        f"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
        lambda marks: f"{marks[1]}{text}\n{marks[2]}",
        page,
        flags=re.DOTALL,
    )
    if number != 1:
        raise ValueError(f"{PAGE.name} has {number} tables named {name!r}")
    PAGE.write_text(changed, encoding="utf-8")


def main() -> None:
    """All tables."""
    write("start-up", startup.render(startup.measure()))
    timeouts_per_s = simpy_timeouts_per_s()
    write("speed", speed_table([measure(benchmark, repeats=3) for benchmark in BENCHMARKS], timeouts_per_s))
    write("twins", twin_table([(one.name, twin) for one in BENCHMARKS if one.has_twins for twin in measure_twins(one)]))
    timeouts_per_s = simpy_timeouts_per_s()
    points = [scaling.measure(curve, value) for curve in scaling.CURVES for value in curve.values]
    write("scaling", scaling.render(points, timeouts_per_s))


if __name__ == "__main__":
    main()
