"""Why a run, or a request, takes its time: segments that add up, causes that were built in, errors."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_sim import HermesError, Results, simulate
from hermes_sim.analysis.critical_path import PARTS
from tests import scenarios as s
from tests.built_in import CASES


@pytest.fixture(scope="module")
def crowded() -> Results:
    """Few KV blocks: requests wait for them and are preempted."""
    engine = s.llm(kv_cache={"num_gpu_blocks": 260}, batching={"full_sequence_gate": False})
    return simulate(s.cluster(engine), s.workload(traffic=s.traffic(rate="12 /s", num_requests=60)))


def test_shares_and_limits_add_up(crowded: Results) -> None:
    found = crowded.explain()
    assert sum(one.mean_s for one in found.shares) == pytest.approx(found.mean_e2e_s, rel=1e-9)
    assert sum(one.frac for one in found.shares) == pytest.approx(1.0, rel=1e-9)
    assert sum(one.frac for one in found.limits) == pytest.approx(1.0, rel=1e-9)
    assert found.mean_e2e_s == pytest.approx(crowded.measured_requests["e2e_s"].mean(), rel=1e-9)


def test_segments_of_every_request_follow_one_another_and_add_up(crowded: Results) -> None:
    finished = crowded.requests[crowded.requests["status"] == "finished"]
    for request in finished["request"]:
        found = crowded.explain(int(request))
        edges = [found.arrival_s, *(one.end_s for one in found.segments)]
        np.testing.assert_array_equal([one.start_s for one in found.segments], edges[:-1])
        assert edges[-1] == pytest.approx(found.arrival_s + found.e2e_s, rel=1e-12)
        for one in found.segments:
            assert sum(one.parts.values()) == pytest.approx(one.length_s, rel=1e-9, abs=1e-11)
            assert min(one.parts.values()) >= 0.0
        assert sum(found.parts.values()) == pytest.approx(found.e2e_s, rel=1e-9)
        gap_s = found.e2e_s - found.median_e2e_s
        assert sum(one.more_s for one in found.differences) == pytest.approx(gap_s, abs=1e-9)


def test_a_wait_says_behind_whom(crowded: Results) -> None:
    """The one who waits longest stands in a line that is held by KV memory."""
    waits = crowded.visits[crowded.visits["kind"] == "prefill"]
    longest = int(waits["request"].to_numpy()[np.nanargmax(waits["kv_wait_s"].to_numpy())])
    found = crowded.explain(longest)
    wait = next(one for one in found.segments if one.what == "wait")
    assert max(wait.parts, key=lambda part: wait.parts[part]) == "kv_wait"
    assert wait.line is not None
    came_s = wait.start_s
    others = waits[waits["request"] != longest]
    ahead = others[(others["arrival_s"] <= came_s) & (others["start_s"] > came_s)]
    assert wait.line.num_ahead == len(ahead) > 0
    prompts = crowded.requests.set_index("request")["num_prompt_tokens"]
    assert wait.line.num_tokens_ahead == prompts[ahead["request"]].sum()
    assert "behind" in str(found)
    assert "KV memory full" in str(found)


def test_preempted_requests_say_so(crowded: Results) -> None:
    requests = crowded.requests
    preempted = requests[(requests["num_preemptions"] > 0) & (requests["status"] == "finished")]
    assert len(preempted)
    found = crowded.explain(int(preempted["request"].iloc[0]))
    visit_s = crowded.visits.loc[crowded.visits["request"] == found.request, "preempted_s"].sum()
    assert found.parts["preempted"] == pytest.approx(visit_s)
    assert found.facts["num_preemptions"] >= 1


def test_the_median_request_is_its_own_measure(crowded: Results) -> None:
    order = crowded.requests[crowded.requests["status"] == "finished"].sort_values("e2e_s", kind="stable")
    found = crowded.explain(int(order["request"].iloc[(len(order) - 1) // 2]))
    assert found.median_request == found.request
    assert all(one.more_s == 0.0 for one in found.differences)


def test_a_transfer_names_its_slowest_link() -> None:
    case = CASES["KV transfer"]
    found = simulate(case.cluster, case.workload).explain(3)
    move = next(one for one in found.segments if one.what == "transfer")
    assert move.link is not None
    assert move.link.profile == "ethernet_25g"
    assert 0.0 < move.link.utilization_frac < 1.0
    assert set(move.parts) == {"transfer"} <= set(PARTS)


def test_what_limits_throughput_is_another_question() -> None:
    """Decodes of a lone user are limited by memory; more bandwidth would serve no more requests."""
    calm = simulate(s.cluster(s.llm()), s.workload(traffic=s.traffic(rate="0.2 /s", num_requests=20))).explain()
    assert calm.growth is None
    assert "throughput set by what arrives" in " ".join(str(calm).split())
    few = s.llm(batching={"max_num_seqs": 2})
    full = simulate(s.cluster(few), s.workload(traffic=s.traffic(rate="20 /s", num_requests=60))).explain()
    assert full.growth is not None
    assert "throughput saturated" in " ".join(str(full).split())


def test_wrong_requests_are_refused(crowded: Results) -> None:
    with pytest.raises(HermesError, match="no request 60: the run has 60, counted from 0"):
        crowded.explain(60)
    number = int(crowded.requests.loc[crowded.requests["status"] == "rejected", "request"].iloc[0])
    with pytest.raises(HermesError, match=r"no end to explain: it is rejected \(too_long\)"):
        crowded.explain(number)
