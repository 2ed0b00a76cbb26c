"""Cost per request does not grow with the number of requests; every point of the curves can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import CURVES, Curve
from benchmarks.timing import time_run

REQUESTS = CURVES[0]


def us_per_request(num_requests: int) -> float:
    """Best of three: the rest is the machine's."""
    scenario = REQUESTS.scenario(num_requests)
    return min(1e6 * time_run(scenario).run_s / num_requests for _ in range(3))


def test_a_request_costs_the_same_among_many_as_among_few() -> None:
    """Five times the requests, at most 1.3 times the cost of each."""
    us_per_request(200)
    assert us_per_request(5_000) < 1.3 * us_per_request(1_000)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_the_ends_of_a_curve_are_scenarios(curve: Curve) -> None:
    first, *_, last = curve.values
    for value in (first, last):
        assert curve.scenario(value).workload.traffic.num_requests


def test_the_table_and_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scaling.png"
    scaling.main(["--only", "requests", "--largest", "1000", "--figure", str(file)])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "| requests, one replica | 1,000 |"
    assert rows[1].startswith("| us per request | ")
    assert file.read_bytes().startswith(b"\x89PNG")
