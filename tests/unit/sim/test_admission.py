"""The front door, classes of requests and clients that hang up: who is let in, who is served, who leaves when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.core.errors import ConfigError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s
from tests.properties.test_exact_steps import FRONT_END, SHARED, TWO_SAMPLES, assert_equal, recalled, with_stores

RUSH = s.traffic(rate="60 /s", num_requests=120)
CLASSES = [
    {"name": "chat", "weight": 1, "priority": 0, "slo": {"ttft": {"p99": "1 s"}}},
    {"name": "batch", "weight": 2, "priority": 5, "slo": {"ttft": {"p99": "60 s"}}},
]
TIGHT = {"num_gpu_blocks": 260}
HURRIED = {"first_token": "700 ms", "end": "2500 ms"}
SMALL = {"full_sequence_gate": False, "max_num_seqs": 24}


def split(**keys: Any) -> s.Document:
    return s.cluster(
        s.llm("p", serves=["prefill"], replicas=2),
        s.llm("d", serves=["decode"], kv_cache={"num_gpu_blocks": 300}, batching={"full_sequence_gate": False}),
        **keys,
    )


def hurried(*stages: s.Document, rate: str = "60 /s", **keys: Any) -> s.Document:
    traffic = {**s.traffic(rate=rate, num_requests=120), **SHARED}
    return s.workload(*stages, traffic=traffic, patience=HURRIED, **keys)


THOUGHTS = [
    s.PREFILL,
    {**s.DECODE, "name": "think", "writes": "thought", "num_output_tokens": 40},
    {**s.DECODE, "after": ["think"]},
]
FAILURES = {
    "failures": [{"engine": "llm", "mtbf": "1 s", "repair": "100 ms"}], "max_retries": 9, "detection": "50 ms",
}  # fmt: skip
DRAFTS = {"num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.7}, "draft": {"kind": "ngram"}}
LEAVING: dict[str, tuple[s.Document, s.Document]] = {
    "plain": (s.cluster(s.llm(batching=SMALL, kv_cache=TIGHT)), hurried()),
    "async": (s.cluster(s.llm(batching={**SMALL, "async_scheduling": True}, kv_cache=TIGHT)), hurried()),
    "swap": (s.cluster(s.llm(batching={**SMALL, "preemption": "swap"}, kv_cache=TIGHT)), hurried()),
    "pipeline": (
        s.cluster(
            s.llm(
                placement={"gpu": 2}, parallel={"pp": 2}, kv_cache=TIGHT, batching={**SMALL, "async_scheduling": False}
            )
        ),
        hurried(),
    ),
    "ranks": (s.cluster(s.llm(placement={"gpu": 2}, parallel={"dp": 2}, kv_cache=TIGHT, batching=SMALL)), hurried()),
    "drafts": (
        s.cluster(s.llm(speculative=DRAFTS, batching={**SMALL, "async_scheduling": False}, kv_cache=TIGHT)), hurried()
    ),
    "radix": (
        s.cluster(s.llm(kv_cache={**TIGHT, "prefix_cache": "radix", "insert_at": "step_end"}, batching=SMALL)),
        hurried(),
    ),
    "fair share": (
        s.cluster(s.llm(batching={**SMALL, "queue_order": "fair_share"}, kv_cache=TIGHT)),
        hurried(),
    ),
    "least slack, classes": (
        s.cluster(s.llm(batching={**SMALL, "queue_order": "least_slack"}, kv_cache=TIGHT)), hurried(classes=CLASSES)
    ),
    "prompts first": (s.cluster(s.llm(batching={"kind": "prefill_first", **SMALL}, kv_cache=TIGHT)), hurried()),
    "padded": (s.cluster(s.llm(batching={"kind": "padded", "max_num_seqs": 24}, kv_cache=TIGHT)), hurried()),
    "halves": (split(), hurried()),
    "halves, room reserved before": (split(kv_transfer={"reserve": "before_prefill"}), hurried()),
    "samples": (
        s.cluster(s.llm(batching={"full_sequence_gate": False, "max_num_seqs": 64}, kv_cache={"num_gpu_blocks": 500})),
        s.workload(s.PREFILL, TWO_SAMPLES, traffic={**RUSH, **SHARED}, patience=HURRIED),
    ),
    "halves, samples": (split(), hurried(s.PREFILL, TWO_SAMPLES)),
    "thoughts": (s.cluster(s.llm(batching=SMALL)), hurried(*THOUGHTS, rate="20 /s")),
    "retrieval": (
        s.cluster(s.llm(batching=SMALL, kv_cache=TIGHT), s.workers(["embed", "retrieve"], cores=8, num_workers=2)),
        hurried(*s.RAG, rate="20 /s"),
    ),
    "front end": (s.cluster(s.llm(host=FRONT_END, batching=SMALL, kv_cache=TIGHT)), hurried()),
    "KV stores": (with_stores(s.llm(batching=SMALL, kv_cache=TIGHT)), hurried(*recalled())),
    "KV stores, halves": (
        with_stores(s.llm("p", serves=["prefill"], host=FRONT_END), s.llm("d", serves=["decode"], kv_cache=TIGHT)),
        hurried(*recalled(write="all")),
    ),
    "failures": (
        s.cluster(s.llm(replicas=2, batching=SMALL), availability=FAILURES),
        hurried(rate="20 /s"),
    ),
    "closed loop": (
        s.cluster(s.llm(batching=SMALL, kv_cache=TIGHT)),
        s.workload(
            traffic={"closed_loop": {"concurrency": 40}, "num_requests": 120, "lengths": RUSH["lengths"]},
            patience=HURRIED,
        ),
    ),
    "shedding": (
        s.cluster(
            s.llm(batching={**SMALL, "queue_order": "priority"}, kv_cache=TIGHT),
            admission={"max_outstanding": 30, "when_full": "shed"},
        ),
        hurried(classes=CLASSES),
    ),
    "early rejection": (
        s.cluster(s.llm(replicas=2, batching=SMALL), admission={"early_rejection": {}, "max_outstanding": 90}),
        s.workload(traffic=RUSH, classes=CLASSES),
    ),
}  # fmt: skip


def run(case: tuple[s.Document, s.Document], *, exact: bool = False) -> RunTables:
    return simulate_scenario(load_scenario(*case, exact_steps=exact))


@pytest.mark.parametrize("case", LEAVING)
def test_one_event_a_step_is_the_same_run(case: str) -> None:
    fast = run(LEAVING[case])
    assert_equal(fast, run(LEAVING[case], exact=True))
    gone = np.isin(fast.requests["status"], ["left", "rejected"])
    assert 5 < gone.sum() < len(gone)


class TestPatience:
    def test_nobody_waits_longer(self) -> None:
        results = simulate(*LEAVING["plain"]).requests
        late = results["reason"] == "no_first_token"
        assert late.any()
        assert (results["reason"] == "no_end").any()
        # the others had their token within 700 ms, and all of them within 4 s
        assert (results["ttft_s"].dropna() <= 0.7 + 1e-9).all()
        assert (results["e2e_s"].dropna() <= 2.5 + 1e-9).all()
        assert results.loc[late, "finish_s"].isna().all()

    def test_who_leaves_makes_room(self) -> None:
        """One sequence at a time: the second is served at the end of the step in which the first one's client left."""
        traffic = {
            "arrivals": {"kind": "constant", "rate": "1000 /s"}, "num_requests": 2,
            "lengths": {"kind": "fixed", "num_prompt_tokens": 100, "num_output_tokens": 500},
        }  # fmt: skip
        clients = [{"name": "a", "patience": {"end": "1 s"}, "pipelines": ["a"]}, {"name": "b"}]
        llm = [s.PREFILL, s.DECODE]
        workload = {
            "name": "test", "traffic": traffic, "classes": clients, "seed": 5,
            "pipelines": [{"name": "a", "stages": llm}, {"name": "b", "stages": llm}],
        }  # fmt: skip
        results = simulate(s.cluster(s.llm(batching={"max_num_seqs": 1})), workload)
        requests = results.requests.set_index("service_class")
        assert requests["status"].to_dict() == {"a": "left", "b": "finished"}
        starts = results.visits[results.visits["kind"] == "prefill"].set_index("request")["start_s"]
        sent_s, step_s = float(requests.loc["a", "arrival_s"]), float(requests.loc["b", "tpot_s"])
        begun_s = float(starts[requests.loc["b", "request"]])
        assert sent_s + 1.0 <= begun_s <= sent_s + 1.0 + 1.1 * step_s


def erlang_b(servers: int, load: float) -> float:
    """Share of calls that find all servers busy (Erlang 1917), by its recursion."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked


class TestFrontDoor:
    def test_as_many_places_as_servers_lose_what_erlang_says(self) -> None:
        service = {"name": "serve", "kind": "timed", "service_time": {"kind": "exponential", "mean": "1 s"}}
        cluster = s.cluster(
            s.workers(["timed"], num_workers=4, max_batch_size=1, max_wait="0 s"), admission={"max_outstanding": 4}
        )
        arrivals = {"kind": "poisson", "rate": "3 /s"}
        lengths = {"kind": "fixed", "num_prompt_tokens": 1, "num_output_tokens": 1}
        traffic = {"arrivals": arrivals, "num_requests": 20000, "lengths": lengths}
        requests = simulate(cluster, s.workload(service, traffic=traffic)).requests
        lost = (requests["status"] == "rejected").mean()
        assert lost == pytest.approx(erlang_b(4, 3.0), abs=0.012)
        assert set(requests.loc[requests["status"] == "rejected", "reason"]) == {"queue_full"}

    def test_a_bucket_by_hand(self) -> None:
        """One token a second, two at most: of four requests a second the first two and then every fourth get in."""
        traffic = {
            "arrivals": {"kind": "constant", "rate": "4 /s"}, "num_requests": 16,
            "lengths": {"kind": "fixed", "num_prompt_tokens": 10, "num_output_tokens": 2},
        }  # fmt: skip
        admission = {"rate_limit": {"rate": "1 /s", "burst": 2}}
        requests = simulate(s.cluster(s.llm(), admission=admission), s.workload(traffic=traffic)).requests
        taken = np.flatnonzero(requests["status"] == "finished").tolist()
        assert taken == [0, 1, 4, 8, 12]
        assert set(requests["reason"]) == {"", "rate_limit"}

    def test_the_lower_class_makes_room(self) -> None:
        results = simulate(*LEAVING["shedding"]).requests
        shed = results[results["reason"] == "shed"]
        assert len(shed) > 5
        assert set(shed["service_class"]) == {"batch"}
        of_chat = results[results["service_class"] == "chat"]
        of_batch = results[results["service_class"] == "batch"]
        assert (of_chat["status"] == "finished").mean() > (of_batch["status"] == "finished").mean() + 0.1

    def test_early_rejection_raises_goodput(self) -> None:
        """Those who are let in get their first token in time, where without a door all are late in the end."""

        def goodput(admission: dict[str, Any] | None) -> Results:
            keys = {} if admission is None else {"admission": admission}
            workload = s.workload(traffic=s.traffic(rate="80 /s", num_requests=400, prompt=2000, output=20))
            return simulate(s.cluster(s.llm(), **keys), {**workload, "slo": {"ttft": {"p99": "2 s"}}})

        with_door, without = goodput({"early_rejection": {"margin": 1.3}}), goodput(None)
        assert with_door.requests["slo_met"].sum() > 1.5 * without.requests["slo_met"].sum()
        let_in = with_door.requests[with_door.requests["status"] == "finished"]
        assert let_in["slo_met"].mean() > 0.7


class TestClasses:
    def test_each_class_has_its_promise(self) -> None:
        results = simulate(s.cluster(s.llm(batching=SMALL)), s.workload(traffic=RUSH, classes=CLASSES))
        requests = results.requests
        share = (requests["service_class"] == "chat").mean()
        assert share == pytest.approx(1 / 3, abs=0.1)
        within = np.where(requests["service_class"] == "chat", requests["ttft_s"] <= 1.0, requests["ttft_s"] <= 60.0)
        np.testing.assert_array_equal(requests["slo_met"], within)
        assert 0 < requests["slo_met"].mean() < 1
        records = {record["service_class"]: record for record in results.summary["classes"]}
        total = sum(record["goodput_per_s"] for record in records.values())
        assert total == pytest.approx(results.summary["throughput"]["goodput_per_s"], rel=1e-12)
        objectives = results.summary["slo"]["objectives"]
        assert [line["service_class"] for line in objectives] == ["chat", "batch"]
        assert objectives[0]["attained_frac"] == pytest.approx(records["chat"]["slo_met_frac"])
        assert "chat: p99 <= 1 s" in repr(results)

    def test_the_urgent_class_goes_first(self) -> None:
        batching = {**SMALL, "queue_order": "priority"}
        results = simulate(s.cluster(s.llm(batching=batching)), s.workload(traffic=RUSH, classes=CLASSES))
        ttft = results.requests.groupby("service_class", observed=True)["ttft_s"].mean()
        assert ttft["chat"] < 0.5 * ttft["batch"]


@pytest.mark.parametrize(
    ("cluster", "workload", "message"),
    [
        ({"admission": {}}, {}, "needs max_outstanding, rate_limit or early_rejection"),
        ({"admission": {"rate_limit": {"rate": "1 /s"}, "when_full": "shed"}}, {}, "when_full goes with max_outst"),
        ({"admission": {"early_rejection": {}}}, {}, "has no deadline"),
        ({}, {"patience": {}}, "needs first_token, end or both"),
        ({}, {"classes": [{"name": "a", "pipelines": ["mian"]}]}, "there is no pipeline 'mian'"),
        ({}, {"classes": [{"name": "a"}, {"name": "a"}]}, "a second class named 'a'"),
        ({"engines": [s.llm(batching={"kind": "static"})]}, {"patience": HURRIED}, "'static' keeps what it has begun"),
    ],
)
def test_mistakes(cluster: dict[str, Any], workload: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate({**s.cluster(s.llm()), **cluster}, {**s.workload(s.PREFILL, s.DECODE), **workload})
