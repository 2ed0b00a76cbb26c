"""One function over many items in processes: order, errors, reports, and that nothing is left running."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from hermes_sim import processes
from hermes_sim.core.errors import SimulationError, TraceError
from hermes_sim.processes import Report, map_in_processes

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "fork" and not processes.can_fork():
        pytest.skip("processes cannot be forked here")
    monkeypatch.setattr(processes, "can_fork", lambda: request.param == "fork")
    return str(request.param)


def square_slowest_first(number: int, report: Report) -> int:
    time.sleep(0.02 * max(3 - number, 0))
    report(number)
    return number * number


def fail_at_two(number: int, report: Report) -> int:
    if number == 2:
        raise TraceError(f"row {number}")
    time.sleep(0.05)
    return number


def die_at_one(number: int, report: Report) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class UnpicklableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def fail_unpicklably(number: int, report: Report) -> int:
    raise UnpicklableError("one", "two")


def test_outcomes_come_in_the_order_of_the_items(start_method: str) -> None:
    reports: list[tuple[Any, ...]] = []
    outcomes = map_in_processes(
        square_slowest_first, range(7), jobs=3, on_report=lambda *values: reports.append(values)
    )
    assert list(outcomes) == [0, 1, 4, 9, 16, 25, 36]
    assert sorted(reports) == [(number, number) for number in range(7)]
    assert multiprocessing.active_children() == []


def test_no_items() -> None:
    assert list(map_in_processes(square_slowest_first, [], jobs=2)) == []


def test_an_error_is_raised_at_its_turn(start_method: str) -> None:
    outcomes = map_in_processes(fail_at_two, range(9), jobs=3)
    assert [next(outcomes), next(outcomes)] == [0, 1]
    with pytest.raises(TraceError, match="row 2") as raised:
        next(outcomes)
    assert "in fail_at_two" in raised.value.__notes__[0]
    assert multiprocessing.active_children() == []


def test_an_error_that_cannot_be_sent_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="UnpicklableError: onetwo"):
        list(map_in_processes(fail_unpicklably, range(2), jobs=2))


def test_a_killed_worker_is_an_error_not_a_hang(start_method: str) -> None:
    with pytest.raises(SimulationError, match=r"ended while it ran item 1 \(signal 9\); memory may have run out"):
        list(map_in_processes(die_at_one, range(4), jobs=2))
    assert multiprocessing.active_children() == []


def test_stopping_early_ends_the_workers() -> None:
    outcomes = map_in_processes(square_slowest_first, range(1000), jobs=2)
    assert next(outcomes) == 0
    outcomes.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(sent: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group, once; a killed parent cannot tell its workers anything."""
    program = textwrap.dedent(f"""
        import os, signal, sys, time
        sys.path.insert(0, {str(REPOSITORY)!r})
        from hermes_sim.processes import map_in_processes

        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background have it ignored

        def wait(number, report):
            open({str(tmp_path)!r} + f"/{{os.getpid()}}", "w").close()
            time.sleep(0.5)
            return number

        if __name__ == "__main__":
            list(map_in_processes(wait, range(100), jobs=2))
    """)
    script = tmp_path / "script.py"
    script.write_text(program)
    parent = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    workers: list[int] = []
    deadline = time.monotonic() + 20.0
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        workers = [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()]
    assert len(workers) == 2
    if sent == signal.SIGINT:
        os.killpg(parent.pid, sent)
    else:
        parent.kill()
    _, errors = parent.communicate(timeout=20)
    assert errors.count("KeyboardInterrupt") <= 1
    assert "in _work" not in errors
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
