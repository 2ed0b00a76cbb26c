"""Failures of halves, ranks, front ends, nodes, devices and links; slow parts: what is lost, and what goes on."""

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

BUSY = s.workload(traffic=s.traffic(rate="20 /s", num_requests=100))
SPLIT = [s.llm("p", serves=["prefill"], replicas=2), s.llm("d", serves=["decode"], replicas=2)]
TIGHT = [
    s.llm("p", serves=["prefill"], replicas=2),
    s.llm("d", serves=["decode"], replicas=2, kv_cache={"num_gpu_blocks": 300}, batching={"full_sequence_gate": False}),
]
OFTEN = {"mtbf": "4 s", "repair": "700 ms"}
FEW = {"kind": "fixed", "num_prompt_tokens": 512, "num_output_tokens": 64}


def failing(*targets: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"failures": [{**OFTEN, **target} for target in targets], "max_retries": 50, "detection": "50 ms", **keys}


def two_nodes(*engines: s.Document, **keys: Any) -> s.Document:
    cluster = s.cluster(*engines, network="ib_hdr", **keys)
    cluster["nodes"][0] |= {"count": 2, "uplinks_per_node": 4}
    return cluster


CASES: dict[str, tuple[s.Document, s.Document]] = {
    "halves": (s.cluster(*SPLIT, availability=failing({"engine": "p"}, {"engine": "d"})), BUSY),
    "halves that wait for blocks": (
        s.cluster(*TIGHT, availability=failing({"engine": "p"}, {"engine": "d"})),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=110)),
    ),
    "halves, samples": (
        s.cluster(*SPLIT, availability=failing({"engine": "p"}, {"engine": "d"})),
        s.workload(s.PREFILL, TWO_SAMPLES, traffic=BUSY["traffic"]),
    ),
    "ranks": (
        s.cluster(
            s.llm(replicas=2, placement={"gpu": 2}, parallel={"dp": 2}), availability=failing({"engine": "llm"})
        ),
        BUSY,
    ),
    "front end": (
        s.cluster(s.llm(replicas=2, host=FRONT_END), availability=failing({"engine": "llm"})),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=110)),
    ),
    "KV stores": (
        with_stores(s.llm(replicas=2), availability=failing({"engine": "llm"})),
        s.workload(*recalled(), traffic={**s.traffic(rate="20 /s", num_requests=100), **SHARED}),
    ),
    "KV stores, halves, front end": (
        with_stores(
            s.llm("p", serves=["prefill"], replicas=2, host=FRONT_END), s.llm("d", serves=["decode"], replicas=2),
            availability=failing({"engine": "p"}, {"engine": "d"}, {"node": "node", "mtbf": "2 s"}),
        ),
        s.workload(*recalled(write="all"), traffic={**s.traffic(rate="20 /s", num_requests=100), **SHARED}),
    ),
    "halves, room reserved before": (
        s.cluster(
            *TIGHT, availability=failing({"engine": "p"}, {"engine": "d"}), kv_transfer={"reserve": "before_prefill"}
        ),
        s.workload(traffic=s.traffic(rate="40 /s", num_requests=110)),
    ),
    "halves, layer by layer": (
        s.cluster(
            *SPLIT, availability=failing({"engine": "p"}, {"engine": "d"}, detection="0 s"),
            kv_transfer={"reserve": "before_prefill", "mode": "layerwise"},
        ),
        BUSY,
    ),
    "devices": (s.cluster(*SPLIT, availability=failing({"device": "node.gpu"})), BUSY),
    "nodes": (
        two_nodes(s.llm(replicas=2, placement={"gpu": 8}, parallel={"tp": 8}), availability=failing({"node": "node"})),
        BUSY,
    ),
    "slow engines": (
        s.cluster(
            s.llm(replicas=2), s.workers(["embed", "retrieve"]),
            availability=failing(
                {"engine": "llm", "kind": "slow", "speed": 0.4},
                {"device": "node[0].gpu[1]", "kind": "slow", "speed": 0.7, "slows": ["compute"]},
                {"engine": "jobs", "kind": "slow", "speed": 0.5},
            ),
            routing={"kind": "least_outstanding_tokens"},
        ),
        s.workload(*s.RAG, traffic=s.traffic(rate="20 /s", num_requests=100)),
    ),
    "slow ranks": (
        s.cluster(
            s.llm(replicas=2, placement={"gpu": 2}, parallel={"dp": 2}),
            availability=failing({"engine": "llm", "kind": "slow", "speed": 0.4}),
        ),
        BUSY,
    ),
    "links": (
        s.cluster(
            *SPLIT,
            availability=failing({"link": "node.gpu->nvswitch"}, {"link": "node.gpu", "kind": "slow", "speed": 0.1}),
        ),
        BUSY,
    ),
}  # fmt: skip


def run(case: tuple[s.Document, s.Document], *, exact: bool = False) -> RunTables:
    return simulate_scenario(load_scenario(*case, exact_steps=exact))


@pytest.mark.parametrize("case", CASES)
def test_one_event_a_step_is_the_same_run(case: str) -> None:
    fast = run(CASES[case])
    assert_equal(fast, run(CASES[case], exact=True))
    assert (fast.requests["status"] == "finished").mean() > 0.9
    if "slow" not in case and case != "links":
        assert fast.requests["num_retries"].sum() > 3, "the case is about something"


def halves(availability: dict[str, Any], **traffic: Any) -> Results:
    engines = [s.llm("p", serves=["prefill"]), s.llm("d", serves=["decode"], replicas=2)]
    arrivals = {"arrivals": {"kind": "constant", "rate": "1 /s"}, "num_requests": 3, "lengths": FEW, **traffic}
    return simulate(s.cluster(*engines, availability=availability), s.workload(traffic=arrivals))


def visits(results: Results, kind: str) -> Any:
    return results.visits[results.visits["kind"] == kind].set_index("request")


class TestHalves:
    def test_decode_dies_and_the_prompt_is_computed_again(self) -> None:
        calm = halves({})
        at_s = float(visits(calm, "decode")["start_s"].iloc[0]) + 0.1
        outage = {"engine": "d", "replica": 0, "at": f"{at_s} s", "lasts": "20 s"}
        results = halves({"outages": [outage], "detection": "200 ms"})
        assert results.requests["num_retries"].tolist()[0] == 1
        again = visits(results, "prefill").loc[0]
        assert again["arrival_s"] == pytest.approx(at_s + 0.2, abs=1e-12)
        assert visits(results, "decode").loc[0, "engine"] == "d[1]"
        # the second attempt takes as long as the first would have
        took_s = visits(calm, "decode").loc[0, "finish_s"] - visits(calm, "prefill").loc[0, "arrival_s"]
        assert visits(results, "decode").loc[0, "finish_s"] - again["arrival_s"] == pytest.approx(took_s, rel=2e-3)

    def test_prefill_dies_while_it_sends(self) -> None:
        calm = halves({})
        first = visits(calm, "decode").loc[0]
        middle_s = float(first["arrival_s"] - 0.5 * first["transfer_s"])
        results = halves({"outages": [{"engine": "p", "at": f"{middle_s} s", "lasts": "100 ms"}], "detection": "0 s"})
        assert results.requests["num_retries"].tolist()[0] == 1
        assert visits(results, "prefill").loc[0, "arrival_s"] == pytest.approx(middle_s + 0.1)
        # half of the KV that was under way has crossed the links for nothing
        sent = [one.links.set_index("link")["bytes"].sum() for one in (calm, results)]
        assert sent[1] / sent[0] == pytest.approx(1.0 + 0.5 / 3, rel=0.02)


class TestPlaces:
    def test_a_device_takes_all_engines_on_it(self) -> None:
        outage = {"device": "node[0].gpu[1]", "at": "1 s", "lasts": "1 s"}
        results = simulate(s.cluster(s.llm(replicas=3), availability={"outages": [outage]}), BUSY)
        arrivals = visits(results, "prefill")
        away = arrivals["arrival_s"].between(1.0, 2.0, inclusive="left")
        assert set(arrivals.loc[away, "engine"]) == {"llm[0]", "llm[2]"}

    def test_a_node_takes_what_its_memory_holds(self) -> None:
        """The store in its DRAM is empty after the failure; the one on flash has kept what it had."""
        traffic = {
            "arrivals": {"kind": "constant", "rate": "1 /s"}, "num_requests": 6,
            "lengths": {"kind": "fixed", "num_prompt_tokens": 1024, "num_output_tokens": 4},
            "prefix": {"tokens": 1023, "groups": 1, "share": 1.0},
        }  # fmt: skip

        def reloaded(medium: str) -> list[int]:
            store = {
                "name": "host", "medium": medium, "capacity": "1 TB", "read_bandwidth": "8 GB/s",
                "write_bandwidth": "8 GB/s", "attached_to": "cpu", "chunk_tokens": 64,
            }  # fmt: skip
            cluster = s.cluster(
                s.llm(kv_cache={"prefix_caching": False}), kv_stores=[store],
                availability={"outages": [{"node": "node", "at": "2500 ms", "lasts": "100 ms"}]},
            )  # fmt: skip
            recall = {"name": "recall", "kind": "kv_retrieval", "stores": ["host"]}
            stages = [recall, {**s.PREFILL, "after": ["recall"]}, s.DECODE]
            return simulate(cluster, s.workload(*stages, traffic=traffic)).requests["num_reloaded_tokens"].tolist()

        volatile, kept = reloaded("host_dram"), reloaded("local_ssd")
        assert kept[0] == volatile[0] == 0
        assert min(kept[1:]) > 0
        assert volatile[3] < kept[3]
        assert volatile[:3] == kept[:3]

    def test_engines_die_with_a_link_that_their_devices_talk_over(self) -> None:
        cluster = s.cluster(
            s.llm("a", placement={"gpu": 2}, parallel={"tp": 2}), s.llm("b"),
            availability={"outages": [{"link": "node[0].gpu[1]->nvswitch", "at": "1 s", "lasts": "1 s"}]},
        )  # fmt: skip
        arrivals = visits(simulate(cluster, BUSY), "prefill")
        away = arrivals["arrival_s"].between(1.0, 2.0, inclusive="left")
        assert set(arrivals.loc[away, "engine"]) == {"b[0]"}


class TestSlow:
    @pytest.mark.parametrize(("slows", "factor"), [(None, 2.0), (["host"], 1.0)])
    def test_steps_take_so_much_longer(self, slows: list[str] | None, factor: float) -> None:
        slow = {"engine": "llm", "kind": "slow", "speed": 0.5, "at": "0 s", "lasts": "1000 s"}
        if slows is not None:
            slow["slows"] = slows
        workload = s.workload(traffic=s.traffic(rate="0.2 /s", num_requests=4))
        calm, results = (
            simulate(s.cluster(s.llm(), availability=availability), workload)
            for availability in ({}, {"outages": [slow]})
        )
        for column in ("compute_s", "memory_s"):
            np.testing.assert_allclose(results.visits[column], factor * calm.visits[column], rtol=1e-9)
        np.testing.assert_allclose(results.visits["host_s"], 2.0 * calm.visits["host_s"], rtol=1e-6)

    def test_causes_multiply_and_end(self) -> None:
        twice = [
            {"engine": "llm", "kind": "slow", "speed": 0.5, "at": "0 s", "lasts": "1000 s"},
            {"node": "node", "kind": "slow", "speed": 0.25, "at": "0 s", "lasts": "2 s"},
        ]
        short = {**FEW, "num_output_tokens": 8}
        traffic = {"arrivals": {"kind": "constant", "rate": "0.5 /s"}, "num_requests": 2, "lengths": short}
        calm, results = (
            simulate(s.cluster(s.llm(), availability=availability), s.workload(traffic=traffic))
            for availability in ({}, {"outages": twice})
        )
        ratio = (results.requests["e2e_s"] / calm.requests["e2e_s"]).tolist()
        assert sorted(ratio) == pytest.approx([2.0, 8.0], rel=1e-9)

    def test_a_link_that_carries_less(self) -> None:
        slow = {"link": "node.gpu", "kind": "slow", "speed": 0.1, "at": "0 s", "lasts": "1000 s"}
        calm, results = halves({}), halves({"outages": [slow]})
        ratio = visits(results, "decode")["transfer_s"] / visits(calm, "decode")["transfer_s"]
        assert (ratio > 9.5).all()  # the latency stays
        assert (ratio < 10.0).all()


@pytest.mark.parametrize(
    ("outage", "message"),
    [
        ({"node": "nod"}, "there is no node 'nod'"),
        ({"node": "node[1]"}, r"there are nodes node\[0\] to node\[0\]"),
        ({"device": "node.gp"}, "there is no device group 'gp'"),
        ({"device": "node.gpu[8]"}, r"has gpu\[0\] to gpu\[7\]"),
        ({"link": "node[0].nic[0]"}, r"no link is, or ends at, 'node\[0\].nic\[0\]'"),
        ({"node": "node", "engine": "llm"}, "needs one of engine, node, device and link"),
        ({"node": "node", "kind": "slow"}, "speed goes with kind: slow"),
        ({"link": "node.gpu", "kind": "maintenance"}, "a link has nothing to end"),
    ],
)
def test_mistakes(outage: dict[str, Any], message: str) -> None:
    availability = {"outages": [{**outage, "at": "1 s", "lasts": "1 s"}]}
    with pytest.raises(ConfigError, match=message):
        simulate(s.cluster(s.llm(), availability=availability), BUSY)
