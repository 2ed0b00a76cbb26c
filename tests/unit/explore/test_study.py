"""Studies that run: rows, failures, resuming, figures, the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hermes_sim import cli
from hermes_sim.core.errors import HermesError
from hermes_sim.explore import runner
from hermes_sim.explore.kept_rows import known_rows
from hermes_sim.explore.plan import plan_sweep
from hermes_sim.explore.run_table import RUNS_FILE, read_table
from hermes_sim.explore.study.figure import draw
from hermes_sim.explore.study.study import load_study, run_study, save_study
from hermes_sim.run import run_scenario
from tests.unit.explore.conftest import Box
from tests.unit.explore.studies import axes, study

TIERS = [{"name": "p90", "slo": {"ttft": {"p90": "3 x"}, "tpot": {"p90": "2 x"}}}]


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """All but what the runs took."""
    return table.drop(columns="wall_time_s")


def test_rows_are_the_metrics_of_the_runs_whatever_the_number_of_jobs(box: Box) -> None:
    one = study(axes=[axes()[0]], replications=2, tiers=TIERS, reference={"batching": "chunked"})
    alone, together = (run_study(one, jobs=jobs).runs for jobs in (1, 2))
    pd.testing.assert_frame_equal(numbers(alone), numbers(together))
    assert alone["seed"].tolist() == [1, 2, 1, 2]
    assert set(alone["status"]) == {"done"}
    row = alone.iloc[1]
    scenario = plan_sweep(one).runs[1].scenario
    assert scenario is not None
    summary = run_scenario(scenario).summary
    assert row["ttft_p99_s"] == summary["latency"]["ttft"]["p99_s"]
    rent_usd_per_s = summary["energy_and_cost"]["cost_usd"] / summary["run"]["duration_s"]
    assert row["output_tokens_per_usd"] == pytest.approx(summary["throughput"]["output_tokens_per_s"] / rent_usd_per_s)
    assert row["meets@p90"] in (0.0, 1.0)
    assert 0 <= row["slo_met_frac@p90"] <= 1
    assert row["utilization_llm_frac"] == pytest.approx(
        sum(engine["utilization_frac"] for engine in summary["engines"]) / 2
    )


def test_multiples_are_those_of_the_reference(box: Box) -> None:
    """A tier that a lone request on the point itself just keeps is missed where the reference has double the speed."""
    tiers = [{"name": "own", "slo": {"tpot": {"p50": "1.2 x"}}}]
    slow = {"name": "slow", "set": {"cluster.engines.llm.placement": {"gpu": 1}}}
    fast = {"name": "fast", "set": {"cluster.engines.llm.placement": {"gpu": 2}, "cluster.engines.llm.parallel.tp": 2}}
    base = {"cluster": "box", "workload": "traffic", "set": {"workload.traffic.arrivals.rate": "0.01 /s"}}
    axes = [{"name": "gpus", "values": [slow, fast]}]
    own = run_study(study(axes=axes, base=base, tiers=tiers), jobs=1).runs
    shared = run_study(study(axes=axes, base=base, tiers=tiers, reference={"gpus": "fast"}), jobs=1).runs
    assert own["meets@own"].tolist() == [1.0, 1.0]
    assert shared["meets@own"].tolist() == [0.0, 1.0]


def test_the_reference_has_the_axes_that_its_values_give_it(box: Box) -> None:
    """Not those that are only at the point, whose equal values must not be taken for one another's."""
    budget, most = ("cluster.engines.llm.batching." + key for key in ("max_num_batched_tokens", "max_num_seqs"))
    depending = [
        {"name": "budget", "key": budget, "values": [512, 1024], "when": {"batching": "chunked"}},
        {"name": "most", "key": most, "values": [512, 1024], "when": {"batching": "whole"}},
    ]
    tiers = [{"name": "own", "slo": {"tpot": {"p50": "1.2 x"}}}]
    one = study(axes=[axes()[0], *depending], tiers=tiers, reference={"batching": "chunked"})
    llms = [run.reference.cluster.engines[0].batching for run in plan_sweep(one).runs if run.reference is not None]
    own, given = llms[:2], llms[2:]
    assert [batching.max_num_batched_tokens for batching in own] == [512, 1024]
    assert given[0] == given[1]
    assert given[0].kind == "chunked_prefill"
    assert given[0].max_num_seqs == own[0].max_num_seqs


def test_a_run_that_fails_is_a_row(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(scenario: Any) -> Any:
        if scenario.workload.traffic.arrivals.rate_per_s == 2.0:
            raise HermesError("request 0 waits for ever")
        return run_scenario(scenario)

    monkeypatch.setattr(runner, "run_scenario", broken)
    results = run_study(study(), jobs=1)
    assert results.failures["rate"].tolist() == ["2 /s", "2 /s"]
    assert set(results.failures["error"]) == {"request 0 waits for ever"}
    assert len(results.runs) == 6


def test_a_wrong_point_is_a_row_as_well(box: Box) -> None:
    one = study(axes=[{"name": "tp", "key": "cluster.engines.llm.parallel.tp", "values": [1, 3]}])
    assert run_study(one, jobs=1).runs["status"].tolist() == ["done", "failed"]


def test_an_interrupted_study_goes_on_from_where_it_was(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[float] = []

    def counted(scenario: Any) -> Any:
        ran.append(scenario.workload.traffic.arrivals.rate_per_s)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return run_scenario(scenario)

    monkeypatch.setattr(runner, "run_scenario", counted)
    table = box.folder / RUNS_FILE
    with pytest.raises(KeyboardInterrupt):
        run_study(study(), jobs=1, former=table, keep=table)
    assert len(known_rows(table)) == 2
    again = run_study(study(), jobs=1, former=table, keep=table)
    assert again.num_reused == 2
    assert len(ran) == 3 + 4
    fresh = run_study(study(), jobs=1)
    pd.testing.assert_frame_equal(numbers(again.runs), numbers(fresh.runs))


FIGURES = [
    {"name": "lines", "x": "rate", "series": "batching", "y": ["ttft_p50_s", "e2e_p99_s"], "log": ["x", "y"]},
    {"name": "bars", "kind": "bars", "table": "best", "x": "tier", "series": "batching", "y": ["requests_per_s"]},
    {"name": "heat", "kind": "heat_map", "x": "rate", "series": "batching", "y": ["tpot_mean_s"]},
    {"name": "facets", "x": "rate", "facets": "batching", "y": ["output_tokens_per_usd"]},
]


def test_figures_show_the_numbers_of_the_table(box: Box) -> None:
    tiers = [{"name": "p90", "slo": {"ttft": {"p90": "1 s"}}}]
    one = study(figures=FIGURES, tiers=tiers, best={"over": ["rate"], "by": "requests_per_s"})
    runs = run_study(one, jobs=1).runs
    lines, _, heat, facets = (draw(one, figure, runs) for figure in one.figures)
    (first, _), axes = lines.axes[0].get_lines(), lines.axes[0]
    chunked = runs[runs["batching"] == "chunked"]
    assert list(first.get_ydata()) == chunked["ttft_p50_s"].tolist()
    assert list(first.get_xdata()) == [1.0, 2.0, 8.0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [text.get_text() for text in lines.legends[0].get_texts()] == ["chunked", "whole"]
    assert heat.axes[0].get_images()[0].get_array().shape == (2, 3)  # type: ignore[union-attr]
    assert len(facets.axes) == 2


def test_the_command_saves_and_says_what_it_found(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    findings = [{"kind": "best", "of": "batching", "by": "e2e_p50_s", "where": {"rate": "8 /s"}}]
    quick = {"axes": {"rate": ["1 /s", "8 /s"]}, "set": {"workload.traffic.num_requests": 4}}
    document = study(figures=FIGURES[:1], findings=findings, quick=quick).model_dump(mode="json", by_alias=True)
    (box.folder / "mine.yaml").write_text(yaml.safe_dump(document))
    for reused in (False, True):
        with pytest.raises(SystemExit) as ended:
            cli.main(["study", "mine.yaml", "--quick", "--jobs", "1", "--format", "svg"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert "4 runs of traffic on box: 2 batching x 2 rate" in out
        assert "- E2E p50 (rate 8 /s): lowest with batching" in out
        assert ("4 of them were there already" in out) == reused
    folder = Path("runs/study-small-quick")
    assert sorted(path.name for path in folder.iterdir()) == ["findings.md", "lines.svg", RUNS_FILE]
    assert "E2E p50" in (folder / "findings.md").read_text()
    assert len(read_table(folder / RUNS_FILE)) == 4
    first = (folder / "lines.svg").read_bytes()
    save_study(run_study(load_study("mine.yaml"), quick=True, jobs=1), folder, ("svg",))
    assert (folder / "lines.svg").read_bytes() == first


def test_a_folder_of_something_else_is_left_alone(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    (box.folder / "mine.yaml").write_text(yaml.safe_dump(study().model_dump(mode="json", by_alias=True)))
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", "mine.yaml", "--out", "."])
    assert ended.value.code == 2
    assert "holds something else than a study" in capsys.readouterr().err


def test_files_beside_the_study_are_found(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.folder / "mine.yaml").write_text(
        yaml.safe_dump(study(axes=[axes()[0]]).model_dump(mode="json", by_alias=True))
    )
    monkeypatch.chdir("/")
    runs = run_study(load_study(box.folder / "mine.yaml"), jobs=1).runs
    assert runs["status"].tolist() == ["done", "done"]
