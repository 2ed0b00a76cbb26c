"""What has ended is kept whatever happens: a killed sweep goes on, one process writes at a time, rows are shared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hermes_sim.core.errors import HermesError
from hermes_sim.explore import row_cache, runner
from hermes_sim.explore.kept_rows import journal_of, kept_rows, known_rows
from hermes_sim.explore.row_cache import RowCache
from hermes_sim.explore.run_table import RUNS_FILE, read_table
from hermes_sim.explore.sweep import sweep
from hermes_sim.run import run_scenario
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import axes, study

REPOSITORY = Path(__file__).resolve().parents[3]
MANY: dict[str, Any] = {
    "name": "many",
    "base": {"cluster": "box", "workload": "traffic"},
    "axes": [{"name": "rate", "key": "workload.traffic.arrivals.rate", "values": [f"{n} /s" for n in range(1, 21)]}],
}


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="wall_time_s")


def row(number: int) -> dict[str, Any]:
    return {"rate": "1 /s", "seed": 1, "scenario": f"{number:016x}", "status": "done", "e2e_p50_s": 0.1 * number}


def test_lines_come_back_bit_for_bit_without_half_a_line(tmp_path: Path) -> None:
    table = tmp_path / RUNS_FILE
    with kept_rows(table) as kept:
        for number in range(3):
            kept.add(row(number) | {"j": float("nan")}, {"rate": ()})
    lines = journal_of(table).read_bytes()
    journal_of(table).write_bytes(lines[:-9])  # as if killed while it wrote the third
    assert list(known_rows(table)) == [f"{number:016x}" for number in range(2)]
    with kept_rows(table) as kept:
        kept.add(row(7), {"rate": ()})
    known = known_rows(table)
    assert list(known) == [f"{number:016x}" for number in (0, 1, 7)]
    assert known[f"{7:016x}"]["e2e_p50_s"] == 0.1 * 7
    assert "rate" not in known[f"{7:016x}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.jsonl"]


def test_nothing_is_left_of_no_rows(tmp_path: Path) -> None:
    with kept_rows(tmp_path / RUNS_FILE):
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def start(folder: Path, jobs: int = 2) -> subprocess.Popen[str]:
    (folder / "many.yaml").write_text(yaml.safe_dump(MANY))
    command = [sys.executable, "-m", "hermes_sim", "sweep", "many.yaml", "--jobs", str(jobs), "--out", "runs"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )


def num_lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


@pytest.mark.usefixtures("ends_in_time")
def test_a_killed_sweep_goes_on(box: Box) -> None:
    """Killed with all of its workers; what another one began is waited for, not written over."""
    table = box.folder / "runs" / RUNS_FILE
    process = start(box.folder)
    while num_lines(journal_of(table)) < 5 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    with pytest.raises(HermesError, match=rf"process {process.pid} on .* is writing its runs here: wait for it"):
        sweep(MANY, jobs=1, folder=table.parent)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    num_kept = num_lines(journal_of(table))
    assert 5 <= num_kept < 20
    assert not table.exists()
    again = sweep(MANY, jobs=1, folder=table.parent)
    assert again.num_reused == num_kept
    assert sorted(path.name for path in table.parent.iterdir()) == [RUNS_FILE]
    whole = sweep(MANY, jobs=1)
    pd.testing.assert_frame_equal(numbers(again.runs), numbers(whole.runs))
    pd.testing.assert_frame_equal(numbers(read_table(table)), numbers(whole.runs))


def test_an_interruption_before_the_first_run_costs_no_row(box: Box) -> None:
    described = {**MANY, "axes": [{**MANY["axes"][0], "values": ["1 /s", "2 /s", "8 /s"]}]}
    whole = sweep(described, jobs=1, folder="runs").runs

    def interrupted(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(described, jobs=1, folder="runs", progress=interrupted)
    pd.testing.assert_frame_equal(read_table(Path("runs") / RUNS_FILE), whole)


def test_one_at_a_time_in_a_process_too(tmp_path: Path) -> None:
    with (
        kept_rows(tmp_path / RUNS_FILE),
        pytest.raises(HermesError, match="this process is writing"),
        kept_rows(tmp_path / RUNS_FILE),
    ):
        pass
    with kept_rows(tmp_path / RUNS_FILE):
        pass


def test_another_sweep_finds_the_rows_of_equal_runs(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under other names of axes, and only what the same program has run."""
    ran: list[float] = []

    def counted(scenario: Any) -> Any:
        ran.append(scenario.workload.traffic.arrivals.rate_per_s)
        return run_scenario(scenario)

    monkeypatch.setattr(runner, "run_scenario", counted)
    path = box.folder / "cache" / "rows.sqlite"
    described = study(axes=axes()[1:]).model_dump(mode="json", by_alias=True)
    one = {key: described[key] for key in ("name", "base", "axes")}
    other = {**one, "axes": [{**one["axes"][0], "name": "arrivals"}]}
    with RowCache(path) as cache:
        first = sweep(one, jobs=1, cache=cache)
        assert ran == [1.0, 2.0, 8.0]
    with RowCache(path) as cache:
        second = sweep(other, jobs=1, cache=cache)
    assert len(ran) == 3
    pd.testing.assert_frame_equal(first.runs, second.runs.rename(columns={"arrivals": "rate"}))
    monkeypatch.setattr("hermes_sim.explore.run_key.program_hash", lambda: "edited")
    with RowCache(path) as cache:
        sweep(one, jobs=1, cache=cache)
    assert len(ran) == 6


def test_the_cache_gives_up_what_was_not_used_for_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "MAX_NUM_ROWS", 10)
    times = iter(range(1000))
    monkeypatch.setattr(row_cache.time, "time", lambda: next(times))
    with RowCache(tmp_path / "rows.sqlite") as cache:
        for number in range(10):
            cache.put(str(number), {"e2e_p50_s": float(number)})
    with RowCache(tmp_path / "rows.sqlite") as cache:
        assert cache.get("0") == {"e2e_p50_s": 0.0}
        cache.put("new", {})
    with RowCache(tmp_path / "rows.sqlite") as cache:
        kept = {key for key in [*map(str, range(10)), "new"] if cache.get(key) is not None}
    assert kept == {"0", *map(str, range(3, 10)), "new"}


def test_a_cache_is_open_to_others_while_runs_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_cache, "WAIT_S", 0.0)
    path = tmp_path / "rows.sqlite"
    with RowCache(path) as one, RowCache(path) as other:
        one.put("a", {"e2e_p50_s": 1.0})
        monkeypatch.setattr(row_cache, "SECONDS_BETWEEN_WRITES", -1.0)
        other.put("b", {"e2e_p50_s": 2.0})
        assert one.get("b") == {"e2e_p50_s": 2.0}
        assert one.get("a") == {"e2e_p50_s": 1.0}
    with RowCache(path) as cache:
        assert cache.get("a") == {"e2e_p50_s": 1.0}


def test_a_broken_cache_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "rows.sqlite"
    path.write_bytes(b"something else" * 100)
    with RowCache(path) as cache:
        cache.put("a", {"e2e_p50_s": 1.0})
        assert cache.get("a") is None
    assert path.read_bytes() == b"something else" * 100
