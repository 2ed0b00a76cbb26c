"""Outages, random failures, maintenance, autoscaling: who takes requests when, and what becomes of what was there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError
from tests import scenarios as s

BUSY = s.workload(traffic=s.traffic(rate="20 /s", num_requests=120))
BURST = s.workload(traffic=s.traffic(rate="40 /s", num_requests=300))
SCALING = {
    "scale_up_above": 8, "scale_down_below": 2, "interval": "1 s", "start_time": "2 s", "scale_down_after": "3 s",
}  # fmt: skip
FAILURE = {"engine": "llm", "replica": 0, "at": "1 s", "lasts": "2 s"}


def run(workload: s.Document = BUSY, *, exact: bool = False, replicas: int = 2, **keys: Any) -> Results:
    engine = {key: keys.pop(key) for key in ("autoscaling", "batching", "kv_cache", "placement") if key in keys}
    cluster = s.cluster(s.llm(replicas=replicas, **engine), s.workers(["embed", "retrieve"]), **keys)
    return simulate(cluster, workload, exact_steps=exact)


def prefills(results: Results) -> Any:
    return results.visits[results.visits["kind"] == "prefill"].set_index("request")


class TestFailures:
    def test_what_was_there_is_sent_again(self) -> None:
        calm, results = run(), run(availability={"outages": [FAILURE], "detection": "500 ms"})
        requests = results.requests
        assert (requests["status"] == "finished").all()
        lost = requests["num_retries"] > 0
        assert 5 < lost.sum() < 60
        assert (requests.loc[lost, "num_retries"] == 1).all()
        # all that were in replica 0 one second after the start, and nobody else
        visits, then = prefills(calm), calm.requests
        inside = (visits["engine"] == "llm[0]") & (then["arrival_s"] < 1.0) & (then["finish_s"] > 1.0)
        np.testing.assert_array_equal(lost, inside)
        # they begin anew when the failure has been noticed, on the replica that is left
        again = prefills(results)[lost]
        assert (again["arrival_s"] == 1.5).all()
        assert (again["engine"] == "llm[1]").all()
        assert (requests.loc[lost, "num_output_tokens"] == then.loc[lost, "num_output_tokens"]).all()

    def test_a_failed_replica_takes_nothing_until_it_is_back(self) -> None:
        visits = prefills(run(availability={"outages": [FAILURE]}))
        there = visits[visits["engine"] == "llm[0]"]["arrival_s"]
        assert not there.between(1.0, 3.0, inclusive="left").any()
        assert (there >= 3.0).any()

    def test_where_all_are_away_requests_wait(self) -> None:
        results = run(availability={"outages": [{**FAILURE, "replica": None}], "detection": "0 s"})
        visits = prefills(results)
        assert (results.requests["status"] == "finished").all()
        waited = results.requests["arrival_s"].between(1.0, 3.0)
        assert waited.any()
        assert (visits.loc[waited, "arrival_s"] == 3.0).all()

    def test_when_it_took_requests_is_in_the_results(self) -> None:
        results = run(availability={"outages": [FAILURE]})
        engines = results.engines.set_index("engine")
        away_s = min(3.0, results.duration_s) - 1.0
        assert engines.loc["llm[0]", "up_frac"] == pytest.approx(1.0 - away_s / results.duration_s, rel=1e-9)
        assert engines.loc["llm[1]", "up_frac"] == 1.0
        own = results.timeline[results.timeline["engine"] == "llm[0]"]
        inside = (own["start_s"] >= 1.0) & (own["end_s"] <= 3.0)
        assert inside.any()
        assert (own.loc[inside, "up_frac"] == 0.0).all()

    def test_too_many_times(self) -> None:
        outages = [{**FAILURE, "replica": None, "at": f"{1 + 0.2 * k} s", "lasts": "50 ms"} for k in range(4)]
        availability = {"outages": outages, "detection": "0 s", "max_retries": 1}
        requests = run(availability=availability).requests
        assert set(requests["status"]) == {"finished", "failed"}
        failed = requests[requests["status"] == "failed"]
        assert (failed["num_retries"] == 1).all()
        assert failed["finish_s"].isna().all()

    @pytest.mark.parametrize(
        "workload",
        [
            BUSY,
            s.workload(s.PREFILL, {**s.DECODE, "num_samples": 3}, traffic=BUSY["traffic"]),
            s.workload(*s.RAG, traffic=s.traffic(rate="20 /s", num_requests=80)),
            s.workload(
                s.PREFILL,
                {**s.DECODE, "name": "think", "writes": "thought", "num_output_tokens": 40},
                {**s.DECODE, "after": ["think"]},
                traffic=BUSY["traffic"],
            ),
        ],
        ids=["plain", "samples", "retrieval", "thoughts"],
    )
    def test_one_event_a_step_is_the_same_run(self, workload: s.Document) -> None:
        outages = [FAILURE, {"engine": "jobs", "at": "1500 ms", "lasts": "200 ms"}]
        failures = [{"engine": "llm", "mtbf": "3 s", "repair": "1 s"}]
        availability = {"outages": outages, "failures": failures, "max_retries": 9}
        keys: dict[str, Any] = {"availability": availability, "routing": {"kind": "least_outstanding_tokens"}}
        fast, slow = (run(workload, exact=exact, **keys) for exact in (False, True))
        assert fast.requests["num_retries"].sum() > 10
        for column in ("first_token_s", "finish_s", "num_retries", "num_output_tokens", "energy_j", "engine_s"):
            np.testing.assert_array_equal(fast.requests[column], slow.requests[column], err_msg=column)

    def test_lost_blocks_are_gone(self) -> None:
        """A prefix that was cached must be computed again after the failure."""
        traffic = {**s.traffic(rate="5 /s", num_requests=40), "prefix": {"tokens": 512, "groups": 1, "share": 1.0}}
        calm = run(s.workload(traffic=traffic), replicas=1)
        failed = run(s.workload(traffic=traffic), replicas=1, availability={"outages": [{**FAILURE, "at": "4 s"}]})
        assert failed.requests["num_cached_tokens"].sum() < calm.requests["num_cached_tokens"].sum()


class TestMaintenance:
    def test_it_ends_what_it_has_and_takes_nothing_new(self) -> None:
        drain = {**FAILURE, "kind": "maintenance"}
        results = run(availability={"outages": [drain]})
        assert (results.requests["num_retries"] == 0).all()
        visits = prefills(results)
        there = visits[visits["engine"] == "llm[0]"]
        assert not there["arrival_s"].between(1.0, 3.0, inclusive="left").any()
        ends = results.requests["finish_s"][there.index]
        assert ((there["arrival_s"] < 1.0) & (ends > 1.0)).any()


class TestAutoscaling:
    def test_replicas_come_with_the_load(self) -> None:
        results = run(BURST, replicas=4, autoscaling=SCALING)
        assert (results.requests["status"] == "finished").all()
        first = prefills(results).groupby("engine", observed=True)["arrival_s"].min()
        assert first["llm[0]"] < 1.0
        # one look each second, two seconds until a replica is there, one at a time
        assert first["llm[1]"] >= 3.0
        assert first["llm[2]"] >= first["llm[1]"] + 2.0
        engines = results.engines.set_index("engine")
        assert engines.loc["llm[0]", "on_s"] == results.duration_s
        assert engines.loc["llm[1]", "on_s"] < results.duration_s
        assert engines["cost_usd"].sum() == pytest.approx(results.requests["cost_usd"].sum(), rel=1e-9)

    def test_and_go_without_it(self) -> None:
        quiet = s.workload(traffic=s.traffic(rate="1 /s", num_requests=30))
        results = run(quiet, replicas=3, autoscaling={**SCALING, "start_replicas": 3})
        engines = results.engines.set_index("engine")
        assert engines.loc["llm[0]", "on_s"] == results.duration_s
        assert engines.loc["llm[2]", "on_s"] < engines.loc["llm[1]", "on_s"] < results.duration_s
        last = prefills(results).groupby("engine", observed=True)["arrival_s"].max()
        assert last["llm[2]"] < engines.loc["llm[2]", "on_s"]

    def test_weights_cross_the_real_links(self) -> None:
        at_once = run(BURST, replicas=2, autoscaling=SCALING)
        loaded = run(BURST, replicas=2, autoscaling={**SCALING, "weights_on": "cpu"})
        arrivals = [prefills(one).groupby("engine", observed=True)["arrival_s"].min() for one in (at_once, loaded)]
        weights = 16.06e9  # of Llama 3 8B in bf16
        link = loaded.links.set_index("link")["bytes"]
        assert link.max() == pytest.approx(weights, rel=0.01)
        assert arrivals[1]["llm[1]"] > arrivals[0]["llm[1]"]


class TestSchedule:
    def test_replicas_come_with_the_clock(self) -> None:
        """Two from 3 s on, one again from 8 s of each period of 12 s on; the load would ask for none of it."""
        quiet = s.workload(traffic=s.traffic(rate="2 /s", num_requests=60))
        scaling = {
            "scale_up_above": 1000, "scale_down_below": 900, "interval": "1 s", "start_time": "1 s",
            "scale_down_after": "1 s", "period": "12 s",
            "schedule": [{"at": "3 s", "replicas": 2}, {"at": "8 s", "replicas": 1}],
        }  # fmt: skip
        fast, slow = (
            run(quiet, exact=exact, replicas=3, autoscaling=scaling, routing={"kind": "round_robin"})
            for exact in (False, True)
        )
        visits = prefills(fast)
        second = visits[visits["engine"] == "llm[1]"]["arrival_s"]
        assert second.min() >= 4.0
        assert (second % 12.0).between(4.0, 11.0).all()
        assert second.max() > 16.0, "it came back the next day"
        assert "llm[2]" not in set(visits["engine"])
        np.testing.assert_array_equal(fast.requests["finish_s"], slow.requests["finish_s"])

    def test_replicas_come_when_first_tokens_are_late(self) -> None:
        scaling = {**SCALING, "metric": "missed_ttft", "scale_up_above": 0.05, "scale_down_below": 0.01}
        burst = {
            **s.workload(traffic=s.traffic(rate="40 /s", num_requests=400, prompt=1500)),
            "slo": {"ttft": {"p99": "1 s"}},
        }
        results = run(burst, replicas=4, autoscaling=scaling)
        first = prefills(results).groupby("engine", observed=True)["arrival_s"].min()
        late = results.requests[results.requests["ttft_s"] > 1.0]["arrival_s"].min()
        assert first["llm[1]"] >= late + 1.0 + 1.0 - 1e-9, (
            "late for a second, then a start of two at a look each second"
        )
        calm = run({**burst, "slo": {"ttft": {"p99": "1000 s"}}}, replicas=4, autoscaling=scaling)
        assert set(prefills(calm)["engine"]) == {"llm[0]"}


class TestChecks:
    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"availability": {"outages": [{**FAILURE, "engine": "lm"}]}}, "there is no engine 'lm'"),
            ({"availability": {"outages": [{**FAILURE, "replica": 2}]}}, "has replicas 0 to 1"),
            ({"autoscaling": {"scale_up_above": 1, "scale_down_below": 2}}, "must be less than scale_up_above"),
            ({"autoscaling": {"scale_up_above": 4, "scale_down_below": 2, "min_replicas": 3}}, "is more than the 2"),
            ({"autoscaling": {**SCALING, "schedule": [{"at": "1 s", "replicas": 3}]}}, "is more than the 2"),
            ({"autoscaling": {**SCALING, "schedule": [{"at": "2 d", "replicas": 2}]}}, "lie within its period"),
            ({"autoscaling": {**SCALING, "metric": "missed_ttft"}}, "needs a bound on TTFT"),
        ],
    )
    def test_mistakes(self, keys: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            run(**keys)
