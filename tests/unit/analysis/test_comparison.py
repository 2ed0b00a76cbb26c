"""`compare`: what was changed, what differs, what of it may be chance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hermes_sim import HermesError, Results, cli, compare
from hermes_sim.analysis.metric_differences import pairing_of
from hermes_sim.analysis.replications import HEADLINES
from hermes_sim.analysis.scenario_diff import Change, scenario_changes
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.scenario.scenario import Scenario
from tests import scenarios
from tests.unit.analysis.test_results import results_of

NUM = 1200


def scenario_of(**engine: object) -> Scenario:
    cluster = scenarios.cluster(scenarios.llm(**engine), scenarios.workers(["embed", "retrieve"]))
    return load_scenario(cluster, scenarios.workload(*scenarios.RAG, slo={"ttft": {"p90": "1 s"}}))


@pytest.fixture
def run(tables: RunTables) -> Results:
    """1,200 finished requests of the hand-made run, with latencies of their own."""
    rng = np.random.default_rng(1)
    base = results_of(tables)
    requests = base.requests.iloc[np.zeros(NUM, int)].reset_index(drop=True)
    arrival_s = np.arange(NUM) * 1.0
    requests = requests.assign(request=np.arange(NUM), arrival_s=arrival_s, measured=True)
    results = replace(base, requests=requests, duration_s=NUM + 10.0)
    return with_latencies(results, 0.5 + rng.gamma(4.0, 0.1, NUM))


def with_latencies(results: Results, ttft_s: np.ndarray) -> Results:
    requests = results.requests
    first_s = requests["arrival_s"] + ttft_s
    requests = requests.assign(
        ttft_s=ttft_s, ttfat_s=ttft_s, engine_ttft_s=ttft_s, e2e_s=ttft_s + 2.0, tpot_s=0.5,
        first_token_s=first_s, finish_s=first_s + 2.0, slo_met=ttft_s <= 1.0,
    )  # fmt: skip
    return replace(results, requests=requests)


def rows(results: pd.DataFrame) -> pd.DataFrame:
    return results.set_index("metric")


def test_a_run_and_itself_are_the_same(run: Results) -> None:
    comparison = compare(run, run)
    table = comparison.table
    assert set(table["verdict"]) == {"same"}
    assert (table["difference"] == 0.0).all()
    assert comparison.runs[1].changes == ()
    assert repr(comparison).endswith("A and B are the same")
    assert comparison._repr_html_() == f"<pre>{comparison!r}</pre>"


def test_a_small_difference_shows_where_requests_are_paired(run: Results) -> None:
    """Two milliseconds under a spread of two hundred: paired they are seen, as of other seeds they are not."""
    rng = np.random.default_rng(2)
    slower = with_latencies(run, run.requests["ttft_s"].to_numpy() + 0.002 + rng.normal(0.0, 0.005, NUM))
    found = rows(compare(run, slower).table).loc["ttft_mean_s"]
    assert found["pairing"] == "requests"
    assert found["verdict"] == "worse"
    assert abs(found["difference"] - 0.002) <= found["half_width_95"] < 0.001
    assert found["change_frac"] == pytest.approx(found["difference"] / run.requests["ttft_s"].mean())
    reseeded = replace(slower, scenario=slower.scenario.model_copy(update={"seed": 2}))
    unpaired = rows(compare(run, reseeded).table).loc["ttft_mean_s"]
    assert unpaired["pairing"] == "unpaired"
    assert unpaired["verdict"] == "within chance"
    assert unpaired["half_width_95"] > 10 * found["half_width_95"]


def test_lower_latencies_are_better_and_lower_shares_are_worse(run: Results) -> None:
    faster = with_latencies(run, 0.8 * run.requests["ttft_s"].to_numpy())
    table = rows(compare(run, faster).table)
    assert set(table.loc[["ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "slo_met_frac"], "verdict"]) == {"better"}
    assert set(rows(compare(faster, run).table).loc[["ttft_mean_s", "slo_met_frac"], "verdict"]) == {"worse"}
    assert table.loc["tpot_mean_s", "verdict"] == "same"
    text = repr(compare(run, faster))
    assert "-20%" in text
    assert "▼ better" in text
    assert "▲ better" in text, "more within the SLO"


def replicated(results: Results, values: list[float], first_seed: int = 1, **others: list[float]) -> Results:
    columns = {name: others.get(name, values) for name in HEADLINES}
    seeds = range(first_seed, first_seed + len(values))
    return replace(results, replications=pd.DataFrame({"seed": list(seeds), **columns}))


def test_replications_are_paired_by_seed(run: Results) -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    first, second = replicated(run, values), replicated(run, [1.1, 2.2, 3.1, 4.2, 5.1])
    found = rows(compare(first, second).table).loc["ttft_mean_s"]
    assert found["pairing"] == "seeds"
    assert found["difference"] == pytest.approx(0.14)
    assert found["p_value"] == pytest.approx(stats.ttest_rel([1.1, 2.2, 3.1, 4.2, 5.1], values).pvalue)
    others = replicated(run, [1.1, 2.2, 3.1, 4.2, 5.1], first_seed=11)
    unpaired = rows(compare(first, others).table).loc["ttft_mean_s"]
    assert unpaired["pairing"] == "unpaired seeds"
    assert unpaired["p_value"] == pytest.approx(
        stats.ttest_ind([1.1, 2.2, 3.1, 4.2, 5.1], values, equal_var=False).pvalue
    )


def test_holm_counts_every_metric_and_every_run(run: Results) -> None:
    """By itself beyond chance, not as one of many."""
    first = replicated(run, [1.0, 2.0, 3.0])
    second = replicated(run, [1.0, 2.1, 2.9], ttft_mean_s=[2.0, 3.1, 4.2])
    table = rows(compare(first, second).table)
    found = table.loc["ttft_mean_s"]
    assert found["p_value"] < 0.05 / 10
    assert found["p_value_holm"] == pytest.approx(found["p_value"] * table["p_value"].notna().sum())
    assert found["verdict"] == "perhaps worse"
    three = rows(compare(first, second, second, names=["a", "b", "c"]).table)
    assert three.loc["ttft_mean_s", "p_value_holm"].max() == pytest.approx(2 * found["p_value_holm"], rel=0.05)
    assert "▲ worse?" in repr(compare(first, second))


def test_the_same_requests_are_those_of_the_same_seed_and_traffic(run: Results) -> None:
    def with_traffic(**keys: object) -> Results:
        traffic = {**scenarios.traffic(), **keys}
        cluster = scenarios.cluster(scenarios.llm(), scenarios.workers(["embed", "retrieve"]))
        return replace(run, scenario=load_scenario(cluster, scenarios.workload(*scenarios.RAG, traffic=traffic)))

    same = with_traffic()
    assert pairing_of(same, with_traffic()) == "requests"
    assert pairing_of(same, with_traffic(arrivals={"kind": "poisson", "rate": "9 /s"})) == "requests"
    assert pairing_of(same, with_traffic(arrivals={"kind": "gamma", "rate": "9 /s", "cv": 2.0})) == "unpaired"
    assert pairing_of(same, with_traffic(prefix={"tokens": 100})) == "unpaired"
    assert pairing_of(same, replace(same, requests=same.requests.iloc[:-1])) == "unpaired"


def test_changes_are_keys_with_both_values() -> None:
    first = scenario_of()
    assert scenario_changes(first, first) == []
    batching = {"kind": "chunked_prefill", "max_num_seqs": 64}
    assert scenario_changes(first, scenario_of(batching=batching)) == [
        Change("cluster.engines.llm.batching.max_num_seqs", "256", "64")
    ]
    assert Change("seed", "1", "7") in scenario_changes(first, first.model_copy(update={"seed": 7}))


def test_another_kind_is_its_name_and_the_keys_of_both() -> None:
    batching = {"kind": "prefill_first", "max_num_seqs": 64}
    found = {
        change.key.rpartition(".")[2]: change
        for change in scenario_changes(scenario_of(), scenario_of(batching=batching))
    }
    assert found["kind"] == Change("cluster.engines.llm.batching.kind", "chunked_prefill", "prefill_first")
    assert found["max_num_seqs"].new == "64"
    assert all(change.old != "-" for change in found.values())


def test_another_model_and_another_engine_are_a_line_each() -> None:
    found = scenario_changes(scenario_of(), scenario_of(model="llama_3_70b", placement={"gpu": 4}, parallel={"tp": 4}))
    assert found == [
        Change("cluster.engines.llm.model", "llama_3_8b", "llama_3_70b"),
        Change("cluster.engines.llm.placement.gpu.devices", "1", "4"),
        Change("cluster.engines.llm.parallel.tp", "1", "4"),
        Change("models", "llama_3_8b", "llama_3_70b"),
    ]
    first = scenario_of()
    engines = first.cluster.engines
    fewer = first.model_copy(update={"cluster": first.cluster.model_copy(update={"engines": engines[:1]})})
    assert scenario_changes(first, fewer) == [Change("cluster.engines.jobs", "jobs", "-")]


def test_many_numbers_of_a_device_are_counted() -> None:
    first = scenario_of()
    device = first.devices["a100_sxm_80gb"]
    power = device.power.model_copy(update={"idle_w": 1.0})
    slower = device.model_copy(update={"title": "another", "power": power})
    one = first.model_copy(update={"devices": {**first.devices, "a100_sxm_80gb": slower}})
    (change,) = scenario_changes(first, one)
    assert change.key == "devices.a100_sxm_80gb.power.idle"
    assert change.new == "1 W"
    swapped = {**first.devices, "a100_sxm_80gb": first.devices["epyc_7742"]}
    (folded,) = scenario_changes(first, first.model_copy(update={"devices": swapped}))
    assert folded.key == "devices.a100_sxm_80gb"
    assert folded.old.endswith(" values differ")


def test_the_text_fits_eighty_columns_and_says_what_is_wrong(run: Results, tables: RunTables) -> None:
    failing = replace(
        run, requests=run.requests.assign(status=np.where(run.requests.index >= NUM - 100, "rejected", "finished"))
    )
    long = "runs/a_folder_with_a_name_that_does_not_fit_into_a_line_of_the_terminal_at_all-1"
    for runs in ((run, failing), (run, failing, run), (run, failing, run, failing)):
        text = repr(compare(*runs, names=[long, *"bcd"][: len(runs)]))
        assert max(map(len, text.splitlines())) <= 80
        assert "warning    B: rejected: 100 of 1,200 requests" in text
        assert "(1,100 of 1,200, finished in both)" in " ".join(text.split())


def test_refused(run: Results) -> None:
    with pytest.raises(HermesError, match="needs two runs or more"):
        compare(run)
    with pytest.raises(HermesError, match="2 runs and 1 names"):
        compare(run, run, names=["a"])


def test_the_command(run: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faster = with_latencies(run, 0.8 * run.requests["ttft_s"].to_numpy())
    one, other = str(run.save(tmp_path / "one")), str(faster.save(tmp_path / "other"))

    def command(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["compare", one, other, *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert command() == repr(compare(one, other)) + "\n"
    assert command("--quiet", "--out", str(tmp_path / "table.csv")) == ""
    assert len(pd.read_csv(tmp_path / "table.csv")) == len(compare(one, other).table)
    printed = json.loads(command("--json"))
    assert printed["base"] == one
    assert {row["metric"] for row in printed["metrics"]} >= {"ttft_p99_s", "requests_per_s"}
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", one, str(tmp_path)])
    assert ended.value.code == 2
    assert "is not the folder of a run" in capsys.readouterr().err
