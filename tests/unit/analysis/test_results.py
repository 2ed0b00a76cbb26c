"""Results: from arrays to tables and summary, to a folder and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from hermes_sim import __version__
from hermes_sim.analysis import run_folder
from hermes_sim.analysis.replications import headline_metrics
from hermes_sim.analysis.results import Results
from hermes_sim.analysis.summary import row_summary
from hermes_sim.core.errors import HermesError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from tests import scenarios

SLO = {"ttft": {"p50": "1.5 s", "p99": "3 s"}, "tpot": {"p99": "2 s"}}


def results_of(tables: RunTables, wall_time_s: float = 0.1, **keys: object) -> Results:
    workload = scenarios.workload(*scenarios.RAG, **{"slo": SLO, **keys})
    cluster = scenarios.cluster(scenarios.llm(), scenarios.workers(["embed", "retrieve"]), pue=1.2)
    scenario = load_scenario(cluster, workload)
    return Results.from_tables(tables, scenario, version=__version__, wall_time_s=wall_time_s)


@pytest.fixture
def results(tables: RunTables) -> Results:
    return results_of(tables)


def test_requests_say_whether_they_met_the_slo(results: Results) -> None:
    assert list(results.requests["slo_met"]) == [True, True, True, False, False]
    assert results.requests["measured"].all()
    assert results.seed == 1


def test_a_warm_up_leaves_requests_out(tables: RunTables) -> None:
    results = results_of(tables, measure={"warm_up": "1.5 s"})
    assert list(results.requests["measured"]) == [False, False, True, True, True]
    assert list(results.measured_visits["request"].unique()) == [2, 4]
    assert results.summary["latency"]["e2e"]["mean_s"] == 4.0
    assert results.summary["run"]["measured_from_s"] == 2.0


def test_the_mean_gap_is_of_the_measured_requests(tables: RunTables) -> None:
    # Request 4 alone has gaps after the warm-up: two of one second.
    assert results_of(tables, measure={"warm_up": "1.5 s"}).summary["latency"]["itl"]["mean_s"] == 1.0


def test_notes_of_the_checks_and_of_the_run_are_shown(tables: RunTables) -> None:
    results = results_of(replace(tables, notes=("trace.csv: 3 malformed rows left out",)))
    results = replace(results, scenario=results.scenario.model_copy(update={"notes": ("fp8 runs in bf16 here",)}))
    notes = [warning["text"] for warning in results.summary["warnings"] if warning["kind"] == "note"]
    assert notes == ["fp8 runs in bf16 here", "trace.csv: 3 malformed rows left out"]
    again = replace(results, notes=("fp8 runs in bf16 here",))
    assert [warning["kind"] for warning in again.summary["warnings"]].count("note") == 1
    assert "\nnote               fp8 runs in bf16 here\n" in repr(results)


def test_summary_by_hand(results: Results) -> None:
    summary = results.summary
    assert summary["requests"]["num_finished"] == 4
    assert summary["requests"]["num_rejected"] == 1
    assert summary["latency"]["ttft"]["p50_s"] == 2.0
    assert summary["latency"]["itl"]["mean_s"] == pytest.approx(4 / 6)
    assert summary["throughput"]["requests_per_s"] == 0.4
    assert summary["throughput"]["goodput_per_s"] == pytest.approx(0.3)
    assert summary["slo"]["met_frac"] == pytest.approx(0.6)
    assert summary["slo"]["met"] is False
    assert summary["energy_and_cost"]["energy_per_output_token_j"] == pytest.approx(1200)
    # (0.2 + 1 + 1) s of queueing in TTFTs of 1, 2 and 4 s.
    assert summary["ttft_parts"]["queue"]["frac"] == pytest.approx(2.2 / 7)
    assert sum(part["frac"] for part in summary["ttft_parts"].values()) == pytest.approx(1.0)
    # 12 s of visits: 3.2 s of queueing, 1.1 s of transfer, 7.7 s of service, of which 3.8 s of decode by memory.
    assert summary["bottleneck"] == {
        "stage": "decode", "part": "memory", "share_frac": pytest.approx(3.8 / 12.0), "engine": "llm[0]",
        "utilization_frac": 0.64, "resource": "memory", "resource_frac": pytest.approx(3.8 / 6.4),
        "held_by": None, "held_frac": 0.0,
    }  # fmt: skip
    # Service: retrieval 1.3 s unstated, prefill 2.4 s (3/4 interpolated), decode 4 s measured.
    assert summary["trust"]["provenance_frac"] == pytest.approx(
        {"measured": 4 / 7.7, "interpolated": 1.8 / 7.7, "analytic": 0.6 / 7.7, "estimate": 0.0, "unstated": 1.3 / 7.7}
    )


def test_objectives_count_failures_as_late(results: Results) -> None:
    at_p50, at_p99, tpot = results.summary["slo"]["objectives"]
    # TTFT 1, 2, 4 and a rejected request: the median lies between 2 and 4.
    assert (at_p50["observed_s"], at_p50["met"]) == (3.0, False)
    assert at_p50["excess_frac"] == pytest.approx(1.0)
    assert (at_p99["observed_s"], at_p99["met"]) == (None, False)
    assert tpot["limit_s"] == 2.0


def test_the_summary_is_json(results: Results) -> None:
    assert json.loads(json.dumps(results.summary, allow_nan=False)) == results.summary


def test_warnings_are_named(results: Results) -> None:
    kinds = [warning["kind"] for warning in results.summary["warnings"]]
    assert kinds == ["too_short", "warm_up_included", "rejected"]


def test_saved_and_loaded_results_are_equal(results: Results, tmp_path: Path) -> None:
    folder = results.save(tmp_path / "runs" / "one")
    assert {path.name for path in folder.iterdir()} == {
        "requests.parquet", "visits.parquet", "engines.parquet", "links.parquet", "operators.parquet", "itl.parquet",
        "timeline.parquet", "summary.json", "scenario.yaml", "run_info.json",
    }  # fmt: skip
    loaded = Results.load(folder)
    for name in run_folder.TABLES:
        assert_frame_equal(getattr(loaded, name), getattr(results, name))
    assert loaded.scenario == results.scenario
    assert loaded.summary == results.summary
    assert loaded.wall_time_s == 0.1
    assert repr(loaded) == repr(results)


def test_optional_tables_are_saved_too(results: Results, tmp_path: Path) -> None:
    with_seeds = results.with_replications([results.headlines])
    loaded = Results.load(with_seeds.save(tmp_path / "one"))
    assert loaded.replications is not None
    assert_frame_equal(loaded.replications, with_seeds.replications)
    assert loaded.summary["replications"]["metrics"]["requests_per_s"] == {"mean": 0.4, "half_width_95": 0.0}


def test_equal_runs_give_equal_bytes_in_all_but_the_run_info(tables: RunTables, tmp_path: Path) -> None:
    first = results_of(tables, wall_time_s=0.1).save(tmp_path / "first")
    second = results_of(tables, wall_time_s=0.2).save(tmp_path / "second")
    different = [path.name for path in first.iterdir() if path.read_bytes() != (second / path.name).read_bytes()]
    assert different == ["run_info.json"]


def test_a_former_run_is_replaced(results: Results, tmp_path: Path) -> None:
    folder = results.with_replications([results.headlines]).save(tmp_path / "one")
    results.save(folder)
    assert not (folder / "replications.parquet").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_folder_with_other_things_is_refused(results: Results, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(HermesError, match=r"holds 'thesis\.tex', which is not part of a run"):
        results.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(results: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HermesError, match="exists and is not a folder"):
        results.save(tmp_path / "file")
    with pytest.raises(HermesError, match="cannot be written to"):
        results.save(tmp_path / "file" / "run")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_save_leaves_nothing_behind(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(run_folder, "_write_json", fail)
    with pytest.raises((KeyboardInterrupt, HermesError)):
        results.save(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_save_keeps_the_former_run(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = results.save(tmp_path / "one")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == folder and self.parent == tmp_path:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        results.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_what_is_not_a_run_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match=r"is not the folder of a run: requests\.parquet is missing"):
        Results.load(tmp_path)


def test_default_folders_are_numbered(tmp_path: Path) -> None:
    assert run_folder.next_folder("rag", tmp_path) == tmp_path / "rag-1"
    for name in ("rag-1", "rag-9", "rag-x", "ragged-77"):
        (tmp_path / name).mkdir()
    assert run_folder.next_folder("rag", tmp_path) == tmp_path / "rag-10"
    assert run_folder.next_folder("a/b c", tmp_path) == tmp_path / "a_b_c-1"


def test_an_empty_run_is_defined(tables: RunTables) -> None:
    empty = {
        name: {column: values[:0] for column, values in getattr(tables, name).items()}
        for name in ("requests", "visits", "links", "operators", "timeline")
    }
    nothing = RunTables(
        **empty, engines=tables.engines, itl_edges_s=tables.itl_edges_s, itl_counts=tables.itl_counts * 0,
        duration_s=0.0, num_events=0, num_steps=0,
    )  # fmt: skip
    results = results_of(nothing)
    assert results.summary["latency"]["ttft"]["p99_s"] is None
    assert results.summary["slo"]["met"] is None
    assert [warning["kind"] for warning in results.summary["warnings"]] == ["empty"]
    assert "empty: no request arrived" in repr(results)
    assert isinstance(results.requests, pd.DataFrame)


def test_the_summary_of_a_row_is_part_of_the_whole(results: Results) -> None:
    part = row_summary(results)
    assert part == {name: results.summary[name] for name in part}
    assert headline_metrics(part) == headline_metrics(results.summary)
