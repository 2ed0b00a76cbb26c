"""The same requests at another load: lengths stay, gaps are scaled, clients are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import HermesError
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.load import all_at_once, at_load, offered_load
from hermes_sim.workload.traffic import Traffic

LENGTHS = {"kind": "lognormal", "prompt": {"mean": 600, "cv": 1}, "output": {"mean": 80, "cv": 1}}
OPEN: dict[str, dict[str, Any]] = {
    "poisson": {"kind": "poisson", "rate": "4 /s"},
    "gamma": {"kind": "gamma", "rate": "4 /s", "cv": 2},
    "on_off": {"kind": "on_off", "rate": "12 /s", "on_time": "10 s", "off_time": "20 s"},
    "diurnal": {"kind": "diurnal", "rate": "4 /s", "period": "100 s"},
}


def traffic_of(**keys: Any) -> Traffic:
    return Traffic.model_validate({"lengths": LENGTHS, **keys})


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("end", [{"num_requests": 500}, {"duration": "100 s"}])
def test_rates(name: str, end: dict[str, Any]) -> None:
    traffic = traffic_of(arrivals=OPEN[name], **end)
    base = offered_load(traffic, 1)
    own = generate_requests(traffic, 1)
    assert (base.unit, base.value, base.most_requests) == ("requests/s", pytest.approx(4.0), None)
    assert base.num_requests == own.num_requests
    faster = generate_requests(at_load(traffic, base, 6.0, base.num_requests), 1)
    assert faster.num_requests == own.num_requests
    assert np.array_equal(faster.num_prompt_tokens, own.num_prompt_tokens)
    assert np.array_equal(faster.num_output_tokens, own.num_output_tokens)
    assert (faster.arrival_s[1:] < own.arrival_s[1:]).all()
    longer = generate_requests(at_load(traffic, base, 4.0, 2 * base.num_requests), 1)
    assert longer.num_requests == 2 * own.num_requests
    assert longer.arrival_s[: own.num_requests] == pytest.approx(own.arrival_s)
    if name in ("poisson", "gamma"):
        assert own.arrival_s == pytest.approx(1.5 * faster.arrival_s)


def test_clients() -> None:
    traffic = traffic_of(closed_loop={"concurrency": 8, "think_time": "1 s", "think_time_cv": 1}, num_requests=100)
    base = offered_load(traffic, 1)
    assert (base.unit, base.value) == ("clients", 8.0)
    more = at_load(traffic, base, 12.0, 100)
    assert more.closed_loop is not None
    assert more.closed_loop.concurrency == 12
    own, others = generate_requests(traffic, 1), generate_requests(more, 1)
    assert np.array_equal(own.num_prompt_tokens, others.num_prompt_tokens)
    assert own.closed_loop is not None
    assert others.closed_loop is not None
    assert np.array_equal(own.closed_loop.think_time_s[12:], others.closed_loop.think_time_s[12:])


def test_sessions_come_faster_and_think_as_long() -> None:
    sessions = {"mean_num_turns": 3, "think_time": "5 s"}
    traffic = traffic_of(arrivals=OPEN["poisson"], num_requests=300, sessions=sessions)
    base = offered_load(traffic, 1)
    assert (base.unit, base.value) == ("sessions/s", 4.0)
    own, faster = generate_requests(traffic, 1), generate_requests(at_load(traffic, base, 8.0, 300), 1)
    assert np.array_equal(own.think_s, faster.think_s)
    assert np.array_equal(own.session, faster.session)
    firsts = own.previous < 0
    assert own.arrival_s[firsts] == pytest.approx(2.0 * faster.arrival_s[firsts])


def test_a_trace_is_replayed_faster(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    rows = "".join(f"{0.5 * number},{100 + number},{10 + number}\n" for number in range(41))
    file.write_text(f"arrival_s,prompt_tokens,output_tokens\n{rows}", encoding="utf-8")
    columns = {"num_prompt_tokens": "prompt_tokens", "num_output_tokens": "output_tokens"}
    traffic = Traffic.model_validate({"trace": {"format": "table", "path": str(file), "columns": columns}})
    base = offered_load(traffic, 1)
    assert (base.unit, base.value, base.num_requests, base.most_requests) == ("requests/s", 2.0, 41, 41)
    faster = generate_requests(at_load(traffic, base, 8.0, 21), 1)
    assert faster.arrival_s == pytest.approx(0.125 * np.arange(21))
    assert faster.num_prompt_tokens.tolist() == list(range(100, 121))


def test_given_times() -> None:
    traffic = traffic_of(arrivals={"kind": "replay", "times": ["1 s", "2 s", "3 s", "5 s"]})
    base = offered_load(traffic, 1)
    assert (base.value, base.most_requests) == (0.75, 4)
    assert generate_requests(at_load(traffic, base, 1.5, 4), 1).arrival_s.tolist() == [0.5, 1.0, 1.5, 2.5]


@pytest.mark.parametrize("arrivals", [{"kind": "poisson", "rate": 0}, {"kind": "replay", "times": ["1 s", "1 s"]}])
def test_nothing_to_scale(arrivals: dict[str, Any]) -> None:
    with pytest.raises(HermesError, match="nothing arrives, or all at once"):
        offered_load(traffic_of(arrivals=arrivals, num_requests=10), 1)


def test_all_at_once() -> None:
    sessions = {"mean_num_turns": 3, "think_time": "5 s"}
    own = generate_requests(traffic_of(arrivals=OPEN["poisson"], num_requests=100, sessions=sessions), 1)
    together = all_at_once(own, 60)
    assert together.num_requests == 60
    assert np.array_equal(np.isnan(together.arrival_s), np.isnan(own.arrival_s[:60]))
    assert np.nansum(together.arrival_s) == 0.0
