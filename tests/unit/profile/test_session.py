from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep

import pytest

from hermes_sim.profile.backend import Backend, Call
from hermes_sim.profile.case import MOST_BUFFERS, Case, interleave
from hermes_sim.profile.numpy_backend import NumpyBackend
from hermes_sim.profile.session import FAILURES_IN_A_ROW, Session


def case_of(m: int, call: Call, buffer_bytes: float = 1e9) -> Case:
    def prepare(backend: Backend, num_buffers: int) -> Sequence[Call]:
        return [call] * num_buffers

    return Case("gemm", "matmul", "fp32", {"m": m, "n": 8, "k": 8}, buffer_bytes, 0.0, prepare)


def session_in(folder: Path, budget_s: float = 10.0) -> Session:
    return Session(NumpyBackend(), folder, "a_cpu", perf_counter() + budget_s)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "gemm.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sleep_is_measured_as_long_as_it_is(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    session.run([case_of(1, lambda: sleep(0.004))])
    (row,) = rows_of(tmp_path)
    assert 0.004 <= float(row["fastest_s"]) <= float(row["measured_s"]) <= float(row["p90_s"])
    assert (row["device"], row["engine"], row["timing"], row["m"]) == ("a_cpu", "numpy", "eager", "1")


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    calls = [0, 0, 0]

    def count(place: int) -> Call:
        def call() -> None:
            calls[place] += 1
            if place == 1 and calls[1] == 1:
                raise KeyboardInterrupt

        return call

    cases = [case_of(place, count(place)) for place in range(3)]
    with pytest.raises(KeyboardInterrupt):
        session_in(tmp_path).run(cases)
    assert [row["m"] for row in rows_of(tmp_path)] == ["0"]
    first = calls[0]
    again = session_in(tmp_path)
    again.run(cases)
    assert [row["m"] for row in rows_of(tmp_path)] == ["0", "1", "2"]
    assert calls[0] == first
    assert (again.num_found, again.num_measured) == (1, 2)


def test_the_budget_ends_a_run_and_says_what_is_left(tmp_path: Path) -> None:
    session = session_in(tmp_path, budget_s=0.0)
    session.run([case_of(m, lambda: None) for m in range(4)])
    assert (session.num_measured, session.num_unreached) == (0, 4)


def test_failures_are_counted_with_their_reason(tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("no kernel for this shape\nand a long trace")

    session = session_in(tmp_path)
    session.run([case_of(m, fail) for m in range(FAILURES_IN_A_ROW + 3)])
    first, rest = session.not_measured
    assert (first.reason, first.num_shapes) == ("RuntimeError: no kernel for this shape", FAILURES_IN_A_ROW)
    assert first.first_shape == {"dtype": "fp32", "m": 0, "n": 8, "k": 8}
    assert rest.num_shapes == 3


def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    session = session_in(tmp_path)
    session.run([case_of(1, lambda: None, buffer_bytes=1e15)])
    assert [left.reason for left in session.not_measured] == ["does not fit into the free memory"]


@pytest.mark.parametrize("buffer_bytes", [1.0, 1e6, 3e7, 1e9])
def test_rotating_buffers_exceed_the_cache(buffer_bytes: float) -> None:
    cache_bytes = 32 * 2**20
    num_buffers = case_of(1, lambda: None, buffer_bytes).num_buffers(cache_bytes)
    assert num_buffers >= 2
    assert num_buffers * buffer_bytes >= 4 * cache_bytes or num_buffers == MOST_BUFFERS


def test_every_group_has_its_turn() -> None:
    groups = [[case_of(m, lambda: None) for m in range(start, start + 3)] for start in (0, 10)]
    order = [case.shape["m"] for case in interleave(groups)]
    assert sorted(order) == [0, 1, 2, 10, 11, 12]  # type: ignore[type-var]
    assert all((first < 10) != (second < 10) for first, second in zip(order[::2], order[1::2], strict=True))  # type: ignore[operator]
    assert order == [case.shape["m"] for case in interleave(groups)]
