"""docs/performance.md describes the benchmarks as they are, and its tables can be written anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, startup
from benchmarks.speed import Figures
from benchmarks.twins import Twin
from benchmarks.workloads import BENCHMARKS, Benchmark

PAGE = page.PAGE.read_text(encoding="utf-8")
TABLES = ("speed", "twins", "scaling", "start-up")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_page_says_what_they_are(benchmark: Benchmark) -> None:
    """Requests, replicas and model in the column of the benchmark."""
    scenario = benchmark.scenario()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    first = next(number for number, row in enumerate(rows) if row[:3] == ["", "W1", "W2"])
    column = rows[first].index(benchmark.name.split()[0])
    shown = {row[0]: row[column] for row in rows[first + 2 : first + 8]}
    engines = [engine for engine in scenario.cluster.engines if engine.model is not None]
    assert shown["requests"] == f"{scenario.workload.traffic.num_requests:,}"
    assert shown["replicas"] == " + ".join(str(engine.replicas) for engine in engines)
    (name,) = {scenario.models[engine.model].name for engine in engines if engine.model is not None}
    assert shown["model"].partition(",")[0].lower().replace("-", "_").replace(".", "_") == name


@pytest.mark.parametrize("name", TABLES)
def test_tables_stand_in_the_page(name: str) -> None:
    _, _, after = PAGE.partition(f"<!-- {name} -->\n")
    table, mark, _ = after.partition(f"<!-- /{name} -->")
    assert mark
    assert table.startswith("| ")


def test_a_table_is_written_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "performance.md"
    file.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n")
    monkeypatch.setattr(page, "PAGE", file)
    page.write("speed", "| new |")
    page.write("speed", "| newer |")
    assert file.read_text() == "before\n<!-- speed -->\n| newer |\n<!-- /speed -->\nafter\n"
    with pytest.raises(ValueError, match=r"performance\.md has 0 tables named 'twins'"):
        page.write("twins", "")


def test_rows_of_the_tables() -> None:
    figures = Figures("W1", 41_234.5, 0.0482, 0.0021, 0.01, 2_000, 21_067, 10, 10, 1.0, 2.39, 0.12, 2**28)
    row = page.speed_table([figures], 1_440_000).splitlines()[2]
    assert row == "| W1 | 41,200 | 28.6 | 34.7 | 0.0482 s | 2.1 ms | 21,067 | 2.39 | 0.12 |"
    twins = [("W1", Twin("SimPy loop", 10, 100, 60.0, 4.0)), ("W3", Twin("one event per step", 10, 100, 90.0, 30.0))]
    head, _, first, *_ = page.twin_table(twins).splitlines()
    assert head == "| us per request, times production's | SimPy loop | one event per step |"
    assert first == "| W1 | 60.0 us, 15.0x | - |"


def test_start_up_is_measured_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = startup.seconds("-c", "import time; time.sleep(0.5)")
    assert 0.0 < idle.cpu_s < 0.5 < idle.wall_s
    with pytest.raises(RuntimeError, match="status 3"):
        startup.seconds("-c", "raise SystemExit(3)")
    shown = startup.render({"one": startup.Taken(1.234, 0.987)})
    assert shown == "| | wall, s | CPU, s |\n|---|---|---|\n| one | 1.23 | 0.99 |"
