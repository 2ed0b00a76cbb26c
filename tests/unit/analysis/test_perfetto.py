"""Traces of runs: read by a reader of the format, held against the tables."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from hermes_sim import cli
from hermes_sim.analysis.perfetto import trace_json
from hermes_sim.analysis.results import Results
from hermes_sim.core.tables import RunTables
from hermes_sim.run import run_scenario
from hermes_sim.scenario.load import load_scenario
from tests import scenarios
from tests.trace_event_format import Trace, read_trace
from tests.unit.analysis.test_results import results_of

MICROSECONDS = 1e6


@pytest.fixture(scope="module")
def recorded() -> Results:
    """Two stages before the model, steps recorded."""
    cluster = scenarios.cluster(scenarios.llm(replicas=2), scenarios.workers(["embed", "retrieve"]))
    return run_scenario(load_scenario(cluster, scenarios.workload(*scenarios.RAG)), steps=True)


@pytest.fixture(scope="module")
def trace(recorded: Results) -> Trace:
    return read_trace("".join(trace_json(recorded)))


def test_every_step_is_a_slice_with_its_batch(recorded: Results, trace: Trace) -> None:
    assert recorded.steps is not None
    for engine in ("llm[0]", "llm[1]"):
        steps = recorded.steps[recorded.steps["engine"] == engine]
        slices = trace.track(f"{engine} steps")
        assert np.allclose([one.start for one in slices], steps["start_s"] * MICROSECONDS, atol=1e-3)
        assert np.allclose([one.end for one in slices], steps["end_s"] * MICROSECONDS, atol=2e-3)
        assert [one.args["num_decode"] for one in slices] == steps["num_decode"].tolist()
        assert {one.name for one in slices} <= {"prefill", "decode", "mixed"}


def test_a_flow_leads_each_request_through_its_visits(recorded: Results, trace: Trace) -> None:
    placed = recorded.visits[recorded.visits["engine"] != ""]
    stages = placed.groupby("request")["stage"].apply(list)
    assert len(trace.flows) == len(stages)
    for (_, _, number), slices in trace.flows.items():
        request = int(number, 16)
        assert {one.args["request"] for one in slices} == {request}
        assert [one.name for one in slices] == [f"{stage} {request}" for stage in stages[request]]


def test_counters_are_the_numbers_of_visits(recorded: Results, trace: Trace) -> None:
    visits = recorded.visits[recorded.visits["engine"] == "llm[0]"]
    waited_s = float((visits["start_s"] - visits["arrival_s"]).sum())
    values = trace.counters[trace.process("llm"), "llm[0] visits waiting"]
    assert integral(values) == pytest.approx(waited_s, abs=1e-6)
    served_s = float((visits["finish_s"] - visits["start_s"]).sum())
    assert integral(trace.counters[trace.process("llm"), "llm[0] visits running"]) == pytest.approx(served_s)
    assert all(0 <= value <= 100 for _, value in trace.counters[trace.process("llm"), "llm[0] KV used percent"])


def integral(values: list[tuple[float, float]]) -> float:
    """Of a curve that stands at each value until the next; it ends at 0."""
    assert values[-1][1] == 0
    times = np.array([time for time, _ in values]) / MICROSECONDS
    return float(np.diff(times) @ np.array([value for _, value in values])[:-1])


def test_every_request_is_a_span(recorded: Results, trace: Trace) -> None:
    spans = [found[0] for (process, _, _), found in trace.spans.items() if process == trace.process("requests")]
    by_request = {one.args["request"]: one for one in spans}
    assert len(by_request) == len(recorded.requests)
    for _, row in recorded.requests.iterrows():
        length_s = (by_request[row["request"]].end - by_request[row["request"]].start) / MICROSECONDS
        assert length_s == pytest.approx(row["e2e_s"], abs=2e-9)


def test_without_recorded_steps_the_intervals_are_drawn(tables: RunTables) -> None:
    results = results_of(tables)
    trace = read_trace("".join(trace_json(results)))
    intervals = trace.track("llm[0] busy, by limit")
    assert [(one.start / MICROSECONDS, one.name) for one in intervals] == [
        (0.0, "memory"), (2.0, "memory"), (6.0, "memory"), (8.0, "memory"),
    ]  # fmt: skip
    # Request 3 was rejected, request 2 has no decode, request 4 no retrieval.
    assert len(trace.spans[trace.process("requests"), "request", "0x3"]) == 1
    assert [one.name for one in trace.flows["request", "request", "0x4"]] == ["prefill 4", "decode 4"]
    assert trace.counters[trace.process("llm"), "llm[0] utilization percent"][0] == (0.0, 70.0)


def test_links_are_counters() -> None:
    prefill = scenarios.llm("prefill", serves=["prefill"])
    decode = scenarios.llm("decode", serves=["decode"])
    results = run_scenario(load_scenario(scenarios.cluster(prefill, decode), scenarios.workload()))
    trace = read_trace("".join(trace_json(results)))
    assert results.link_timeline is not None
    for link in results.links["link"]:
        values = trace.counters[trace.process("links"), f"{link} percent"]
        mean = integral(values) / 100.0 / results.duration_s
        known = float(results.links.set_index("link")["utilization_frac"][link])
        assert mean == pytest.approx(known, rel=1e-3)
    assert any(category == "transfer" for _, category, _ in trace.spans)


def test_a_window_shows_what_is_under_way_in_it(recorded: Results) -> None:
    trace = read_trace("".join(trace_json(recorded, 2.0, 3.0)))
    spans = [found[0] for (process, _, _), found in trace.spans.items() if process == trace.process("requests")]
    inside = recorded.requests[(recorded.requests["arrival_s"] <= 3.0) & (recorded.requests["finish_s"] >= 2.0)]
    assert len(spans) == len(inside) > 0
    assert all(one.start <= 3e6 and one.end >= 2e6 for found in trace.slices.values() for one in found)


def test_the_command_writes_what_the_run_would_have(
    tmp_path: Path, tables: RunTables, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of(tables)
    results.save(tmp_path / "run", perfetto=True)
    first = (tmp_path / "run" / "trace.json.gz").read_bytes()
    assert command("trace", str(tmp_path / "run")) == 0
    assert "trace.json.gz" in capsys.readouterr().out
    assert (tmp_path / "run" / "trace.json.gz").read_bytes() == first
    assert command("trace", str(tmp_path / "run"), "--out", str(tmp_path / "t.json"), "--from", "1", "--to", "2 s") == 0
    assert (tmp_path / "t.json").read_text() == "".join(trace_json(results, 1.0, 2.0))
    read_trace(gzip.decompress(first).decode())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "t.pftrace"), "a trace is a .json.gz or a .json file"),
        (("--from", "2 s", "--to", "1 s"), "--from 2 s is after --to 1 s"),
        (("--from", "2 GB"), "--from: 'GB' is not a unit of time"),
    ],
)
def test_wrong_arguments_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert command("trace", str(tmp_path), *arguments) == 2
    assert message in capsys.readouterr().err


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(ended.value.code or 0)
