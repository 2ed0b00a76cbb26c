"""Capacities that are known in closed form, laws between configurations, and what is said where there is none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hermes_sim import CapacityResults, ConfigError, HermesError, capacity
from hermes_sim.explore.capacity.capacity import JOURNAL_FILE, known_probes
from hermes_sim.explore.capacity.options import axis_of, share_of
from hermes_sim.scenario.load import load_scenario
from tests import scenarios as s

SERVICE_S = 0.1
POISSON = {"kind": "poisson", "rate": "1 /s"}


def server(*, replicas: int = 1) -> dict[str, Any]:
    """One job at a time."""
    return {
        "name": "servers",
        "nodes": [{"name": "host", "devices": {"cpu": {"profile": "epyc_7742", "count": 4}}}],
        "engines": [
            {
                "name": "server",
                "serves": ["timed"],
                "replicas": replicas,
                "placement": {"cpu": {"cores": 1}},
                "batching": {"kind": "dynamic", "max_batch_size": 1, "num_workers": 1},
            }
        ],
        "routing": {"kind": "round_robin"},
    }


def jobs(traffic: dict[str, Any] | None = None, num_requests: int = 1500, **keys: Any) -> dict[str, Any]:
    """Each takes a tenth of a second."""
    return {
        "name": "jobs",
        "traffic": {
            **({"arrivals": POISSON} if traffic is None else traffic),
            "num_requests": num_requests,
            "lengths": {"kind": "fixed", "num_prompt_tokens": 1, "num_output_tokens": 0},
        },
        "pipelines": [
            {
                "name": "work",
                "stages": [
                    {"name": "work", "kind": "timed", "service_time": {"kind": "fixed", "time": f"{SERVICE_S} s"}}
                ],
            }
        ],
        **keys,
    }


def find(cluster: Any = None, workload: Any = None, **keys: Any) -> CapacityResults:
    given: dict[str, Any] = {"replications": 1, "jobs": 1, **keys}
    return capacity(cluster or server(), workload or jobs(), **given)


def test_mean_wait_of_one_server() -> None:
    """M/D/1 (Pollaczek and Khinchine): mean sojourn = D + rho D / (2 (1 - rho)). Solved for the rate at a bound of 3 D:
    rho = 2 x / (1 + 2 x) with x = 2 waits of D, so 0.8 / D."""
    results = find(workload=jobs(num_requests=12_000), slo=["e2e mean 0.3 s"], replications=2)
    row = results.best
    assert row["capacity"] == pytest.approx(0.8 / SERVICE_S, rel=0.03)
    assert row["low"] <= row["capacity"] <= row["high"]
    assert (row["binding"], row["unit"], row["engine"]) == ("e2e mean", "requests/s", "server[0]")
    assert row["num_seeds"] == 2
    assert row["spread_frac"] < 0.1
    assert row["utilization_frac"] == pytest.approx(0.8, rel=0.05)


def test_equal_gaps_are_borne_up_to_the_service_rate() -> None:
    """D/D/1 never waits below 1 / D; at the next rung the queue grows for ever, however little."""
    for slo in (["e2e p99 0.1001 s"], ["e2e p99 1000 s"], []):
        results = find(workload=jobs({"arrivals": {"kind": "constant", "rate": "1 /s"}}), slo=slo)
        row, probes = results.best, results.probes[results.probes["outcome"] != "backlog"]
        assert row["low"] <= 1 / SERVICE_S * (1 + 1e-9) < row["high"]
        assert row["high"] / row["low"] - 1 <= 0.02 + 1e-3
        assert row["binding"] == ("e2e p99" if slo and "0.1001" in slo[0] else "saturation")
        assert (probes["num_requests"] == np.where(probes["load"] > 1 / SERVICE_S, 8 * 1500, 1500)).all()
        assert row["served_per_s"] == pytest.approx(1 / SERVICE_S)


def test_early_stop_and_the_way_there_change_nothing() -> None:
    """The same bracket with early stop and without, from any guess: the ladder is fixed, and all draws are common."""
    workload = jobs(num_requests=800, slo={"e2e": {"p90": "0.4 s"}})
    brackets, times = set(), []
    for early_stop in (True, False):
        for seed in (1, 2):
            results = find(workload=workload, early_stop=early_stop, seed=seed)
            brackets.add((seed, results.best["low"], results.best["high"]))
            times.append(int(results.probes["num_arrived"].sum()))
    assert len(brackets) == 2
    assert results.probes["outcome"].isin(["passed", "failed", "backlog"]).all()
    both = find(workload=workload, replications=2)
    assert both.best["capacity"] == pytest.approx(np.mean([low for _, low, _ in brackets]))
    assert sum(times[:2]) < sum(times[2:])


def test_a_language_model_with_and_without_early_stop() -> None:
    workload = s.workload(
        traffic=s.traffic(num_requests=300), slo={"ttft": {"p90": "400 ms"}, "tpot": {"p90": "30 ms"}}
    )
    quick, whole = (find(s.cluster(s.llm()), workload, early_stop=one, num_requests=300) for one in (True, False))
    assert (quick.best["low"], quick.best["high"]) == (whole.best["low"], whole.best["high"])
    assert quick.best["num_stopped_early"] > 0
    assert whole.best["num_stopped_early"] == 0
    assert quick.best["binding"].split()[0] in ("ttft", "tpot")


def test_two_replicas_bear_twice_as_much() -> None:
    """Under one queue for each, twice; by the round-robin router more, since it evens the gaps out."""
    axis = {"name": "replicas", "key": "cluster.engines.server.replicas", "values": [1, 2, 4]}
    results = find(axes=[axis], slo=["e2e p90 0.4 s"], by="capacity")
    by_name = results.table.set_index("replicas")["capacity"]
    assert list(results.table["replicas"]) == ["4", "2", "1"]
    assert by_name["2"] >= 2 * by_name["1"] / 1.02
    assert by_name["4"] >= 2 * by_name["2"] / 1.02
    assert results.table["num_devices"].tolist() == [4, 2, 1]
    assert results.axes == ("replicas",)


def test_prices_change_nothing_but_the_price() -> None:
    """The service takes the time that is stated, whatever processor it is on: as much is borne, and per dollar and
    watt it goes by rent and power."""
    axis = {"name": "cpu", "key": "cluster.nodes[0].devices.cpu.profile", "values": ["epyc_7742", "epyc_9654"]}
    table = find(axes=[axis], slo=["e2e p90 0.4 s"], by="per_usd").table
    assert table["capacity"][0] == table["capacity"][1]
    assert table["rent_usd_per_h"][0] < table["rent_usd_per_h"][1]
    for each, amount in (("per_usd", "rent_usd_per_h"), ("per_watt", "power_w")):
        assert (table[each] * table[amount]).tolist() == pytest.approx(table["capacity"].tolist())


def test_a_hopeless_objective_is_said_at_once() -> None:
    results = find(slo=["e2e p99 90 ms"])
    row = results.best
    assert row["status"] == "hopeless"
    assert row["capacity"] == 0.0
    assert row["num_runs"] <= 5
    assert "not met at any load" in row["text"]
    assert row["text"].endswith("E2E p99 109 ms of 90 ms; of requests alone on the machine 100 ms")
    assert "none: not met at any load" in repr(results).replace("\n             ", " ")


def test_sessions_count_sessions() -> None:
    sessions = {"turns": "fixed", "mean_num_turns": 4, "think_time": "1 s"}
    row = find(workload=jobs({"arrivals": POISSON, "sessions": sessions}), slo=["e2e p90 0.4 s"]).best
    assert row["unit"] == "sessions/s"
    assert row["requests_per_s"] == pytest.approx(4 * row["capacity"], rel=0.06)
    assert row["requests_per_s"] < 1 / SERVICE_S


def test_clients_of_a_closed_loop() -> None:
    """One server of 0.1 s, think time 0.9 s: without waiting 10 clients keep it busy (the bound N* = (D + Z) / D).
    With equal times c <= 10 clients wait for nobody, once they have spread; c > 10 wait (c - 10) D, and are served as
    many as 10 are."""
    loop = {"closed_loop": {"concurrency": 4, "think_time": "0.9 s", "ramp_up": "1 s"}}
    bound = find(workload=jobs(loop), slo=["e2e p99 0.55 s"]).best
    assert bound["unit"] == "clients"
    assert (bound["low"], bound["high"]) == (14, 15)
    free = find(workload=jobs(loop), slo=["e2e p99 1000 s"]).best
    assert free["binding"] == "saturation"
    assert 10 <= free["low"] <= 20
    assert free["text"] == "half as many clients get as much done"


def test_attainment() -> None:
    """P(sojourn of M/D/1 within one more service): the share that must be good moves the capacity."""
    strict, loose = (find(slo=["e2e p99 0.3 s"], attainment=share).best for share in (0.99, 0.9))
    assert strict["capacity"] < loose["capacity"]
    assert loose["binding"] == "attainment"
    as_percentile = find(slo=["e2e p99 0.3 s"]).best
    assert strict["capacity"] == pytest.approx(as_percentile["capacity"], rel=0.021)


def test_multiples_of_the_request_alone() -> None:
    times, seconds = (find(slo=[text]).best for text in ("e2e p90 4 x", "e2e p90 0.4 s"))
    assert times["low"] == seconds["low"]


def test_runs_are_as_long_as_the_percentile_wants() -> None:
    few = find(workload=jobs(num_requests=100), slo=["e2e p99 0.5 s"])
    wanted = math.ceil(1000 / 0.9)
    assert few.probes["num_requests"].min() == wanted
    short = find(slo=["e2e p99 0.5 s"], num_requests=200).best
    assert short["notes"] == "200 requests a run, the percentiles asked for want 1,112"
    assert "note         200 requests a run" in repr(find(slo=["e2e p99 0.5 s"], num_requests=200))


def test_a_run_in_which_the_machine_only_fills_is_run_again_longer() -> None:
    """A request that takes a minute: of 60 at 2/s nobody would notice."""
    slow = s.workload(
        {"name": "work", "kind": "timed", "service_time": {"kind": "fixed", "time": "60 s"}},
        traffic={
            **s.traffic(num_requests=60),
            "lengths": {"kind": "fixed", "num_prompt_tokens": 1, "num_output_tokens": 0},
        },
    )
    cluster = s.cluster(s.workers(["timed"], max_batch_size=1, num_workers=32))
    results = find(cluster, slow, slo=["e2e p50 70 s"], num_requests=60)
    assert results.probes["num_requests"].max() > 60
    assert results.best["capacity"] <= 32 / 60


def test_what_a_folder_holds_is_not_run_again(tmp_path: Path) -> None:
    slo, folder = ["e2e p90 0.4 s"], tmp_path / "found"
    first = find(slo=slo, replications=2, folder=folder)
    again = find(slo=slo, replications=2, folder=folder)
    pd.testing.assert_frame_equal(
        first.table.drop(columns=["wall_time_s", "num_reused"]), again.table.drop(columns=["wall_time_s", "num_reused"])
    )
    assert again.best["num_reused"] == (again.probes["outcome"] != "backlog").sum()
    assert not (folder / JOURNAL_FILE).exists()
    other = find(slo=["e2e p90 0.5 s"], replications=1, folder=folder)
    assert other.best["num_reused"] == 0


def test_an_interrupted_comparison_goes_on(tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    slo, folder = ["e2e p90 0.4 s"], tmp_path / "found"
    with pytest.raises(KeyboardInterrupt):
        find(slo=slo, replications=2, folder=folder, progress=interrupt)
    journal = (folder / JOURNAL_FILE).read_text(encoding="utf-8")
    kept = [json.loads(line) for line in journal.splitlines()]
    with (folder / JOURNAL_FILE).open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    assert len(known_probes(folder)) == len(kept) > 0
    results = find(slo=slo, replications=2, folder=folder)
    assert results.best["num_reused"] == len(kept)
    whole = find(slo=slo, replications=2)
    assert results.best["capacity"] == whole.best["capacity"]


def test_a_configuration_that_is_wrong_is_a_row() -> None:
    axis = {"name": "replicas", "key": "cluster.engines.server.replicas", "values": [1, 999]}
    table = find(axes=[axis], slo=["e2e p90 0.4 s"]).table
    assert table["status"].tolist() == ["done", "failed"]
    assert "server" in table["text"][1]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"tolerance": 0.0}, "tolerance must be > 0"),
        ({"attainment": 1.0}, "attainment must lie between"),
        ({"attainment": 0.9}, "there is none, name one"),
        ({"by": "per_dollar"}, "'per_dollar' is none of capacity, per_usd"),
        ({"slo": ["ttft p99"]}, "needs a latency, a statistic and a limit"),
        ({"slo": ["tftt p99 2 s"]}, "'tftt' is not a latency .*Did you mean 'ttft'"),
        ({"slo": ["ttft p98 2 s"]}, "'p98' is not a statistic"),
        ({"slo": ["ttft p99 2 kg"]}, "2 kg"),
        ({"slo": ["ttft p99 2 s", "ttft p99 3 s"]}, "ttft p99 is limited twice"),
    ],
)
def test_wrong_input(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(HermesError, match=reason):
        find(**keys)


def test_needs_something_to_look_at() -> None:
    with pytest.raises(HermesError, match="needs a cluster and a workload"):
        capacity("a100x8")


def test_options_of_the_command_line() -> None:
    axis = axis_of("cluster.engines.llm.replicas=1, 2")
    assert (axis.name, axis.names) == ("replicas", ("1", "2"))
    assert axis.values[1].overrides == {"cluster.engines.llm.replicas": 2}
    assert [value.cluster for value in axis_of("cluster=a100x8,h100x8").values] == ["a100x8", "h100x8"]
    assert share_of("2%", "--tolerance") == share_of("0.02", "--tolerance") == 0.02
    with pytest.raises(ConfigError, match="needs KEY=VALUE"):
        axis_of("cluster.engines.llm.replicas")
    with pytest.raises(ConfigError, match="needs a share"):
        share_of("many", "--attainment")


def test_the_table_fits_a_terminal() -> None:
    axis = {"name": "replicas", "key": "cluster.engines.server.replicas", "values": [1, 2]}
    lines = repr(find(axes=[axis], slo=["e2e p90 0.4 s"], replications=2)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "jobs on servers · SLO e2e p90 400 ms"
    assert lines[1].split()[:2] == ["replicas", "requests/s"]
    assert lines[2].split()[0] == "2"
    assert lines[4] == "the first is ahead of all others (2 seeds, 95%)"


def test_configurations_that_may_be_equal_are_not_ranked() -> None:
    """The name of a processor changes nothing here; a second server does, under every seed."""
    axes = [
        {"name": "cpu", "key": "cluster.nodes[0].devices.cpu.profile", "values": ["epyc_7742", "epyc_9654"]},
        {"name": "replicas", "key": "cluster.engines.server.replicas", "values": [1, 2]},
    ]
    results = find(axes=axes, slo=["e2e p90 0.4 s"], replications=3, tolerance=0.05)
    assert results.table["below_best"].tolist()[1:] == [0.0, 1.0, 1.0]
    assert "not told apart from the first (3 seeds, 95%): cpu epyc_9654, replicas 2" in repr(results)
    alone = find(axes=axes, slo=["e2e p90 0.4 s"], tolerance=0.05)
    assert alone.table["below_best"].isna().all()
    assert "one seed: what is chance is not known" in repr(alone)


def test_overrides_and_files_as_axes() -> None:
    """Clusters of the library side by side; what is set holds for both."""
    axes = [axis_of("cluster=a100x8,h100x8")]
    overrides = ["workload.traffic.num_requests=60", "cluster.engines.llm.replicas=1"]
    results = capacity(
        None, "chat", axes=axes, overrides=overrides, slo=["ttft p50 2 s"], replications=1, num_requests=60, jobs=1,
        tolerance=0.1,
    )  # fmt: skip
    assert results.table["cluster"].tolist() == ["h100x8", "a100x8"]
    assert (results.probes["num_requests"] >= 60).all()
    assert load_scenario("h100x8", "chat", overrides=overrides).cluster.engines[0].replicas == 1
