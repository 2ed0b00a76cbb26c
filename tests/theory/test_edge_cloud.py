"""Drafts of clients' boards, verified in a data centre: closed forms of a lone request, expectations, bounds, books."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hermes_sim import Results, simulate
from hermes_sim.perf.operator_table import StepBatch
from hermes_sim.perf.step_cost import LlmCost
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.lower import Lowered, lower
from hermes_sim.workload.generate import generate_requests
from tests import scenarios as s

PROMPT, OUTPUT, DRAFTS = 300, 61, 4


def edge_cloud(num_boards: int = 4, *, board: str = "jetson_agx_orin_64gb", **speculative: Any) -> dict[str, Any]:
    """Llama-2-7B on one A100; boards of their own draft with a model of 68M weights. Keys of `on` and of the draft
    are told apart by name."""
    on = {"node": "edge", "device": "board", "count": num_boards}
    draft: dict[str, Any] = {"kind": "model", "model": "vicuna_68m"}
    keys: dict[str, Any] = {"num_draft_tokens": DRAFTS, "acceptance": {"kind": "constant", "rate": 0.7}}
    for name, value in speculative.items():
        holder = on if name in ("latency", "num_probabilities", "host_per_pass") else draft
        (keys if name in ("num_draft_tokens", "acceptance", "max_batch_size", "adaptive") else holder)[name] = value
    nodes = [
        {"name": "cloud", "devices": {"gpu": {"profile": "a100_sxm_80gb"}}},
        {"name": "edge", "count": num_boards, "devices": {"board": {"profile": board}}},
    ]
    engine = {
        "name": "llm", "serves": ["prefill", "decode"], "model": "llama_2_7b", "node": "cloud", "placement": {"gpu": 1},
        "batching": {"max_num_seqs": 32, "max_num_batched_tokens": 2048},
        "speculative": {**keys, "draft": {**draft, "on": on}},
    }  # fmt: skip
    return {"name": "edge", "nodes": nodes, "network": "wan_5g", "engines": [engine]}


def without_drafts(cluster: dict[str, Any]) -> dict[str, Any]:
    engine = {key: value for key, value in cluster["engines"][0].items() if key != "speculative"}
    return {**cluster, "engines": [engine]}


def workload(num_requests: int = 1, rate: str = "0.01 /s") -> dict[str, Any]:
    lengths = {"kind": "fixed", "num_prompt_tokens": PROMPT, "num_output_tokens": OUTPUT}
    arrivals = {"kind": "poisson", "rate": rate}
    return {"name": "chat", "traffic": {"arrivals": arrivals, "num_requests": num_requests, "lengths": lengths}}


def decode_s(results: Results) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[num_requests] from first to last token."""
    decode = results.visits[results.visits["kind"] == "decode"]
    return np.asarray(decode["finish_s"] - decode["arrival_s"])


def lowered_of(cluster: dict[str, Any]) -> Lowered:
    scenario = load_scenario(cluster, workload())
    return lower(scenario, generate_requests(scenario.workload.traffic, scenario.seed))


def decode_step_s(cost: LlmCost, context: int, drafts: int = 0) -> float:
    """One sequence, its new tokens counted in the context."""
    batch = StepBatch(1 + drafts, 1 + drafts, 1, context, context, num_draft_tokens=drafts)
    return float(cost.seconds(batch).sum())


def closed_form_s(cluster: dict[str, Any], accepted: int, ahead: bool = False) -> float:
    """Rounds of a lone request, one after the other: result down, passes on the board, drafts up, verification.

    The board reads the prompt while the engine does, and on if that takes longer.
    ahead: all are accepted, and the board goes on from its guess while it waits.
    """
    lowered = lowered_of(cluster)
    replica = lowered.replicas[0]
    assert replica.cost is not None
    drafts = replica.remote_drafts
    assert drafts is not None
    pairs = PROMPT * (PROMPT + 1) // 2
    prompt = StepBatch(PROMPT, 0, num_prefill=1, prefill_token_pairs=pairs, prefill_context_sum=PROMPT)
    sampled = replace(prompt, num_sampled=1)
    reading_s = float(drafts.cost.seconds(prompt).sum()) + drafts.on.host_per_pass_s
    beside_s = float(replica.cost.seconds(sampled).sum()) + drafts.down_s
    generated, time_s, wait_s, last_pass_s = 1, max(reading_s - beside_s, 0.0), 0.0, 1.0
    while generated < OUTPUT:
        known = PROMPT + generated
        passes = [decode_step_s(drafts.cost, known + number) + drafts.on.host_per_pass_s for number in range(DRAFTS)]
        saved = min(max(wait_s / last_pass_s - 1.0, 0.0), float(DRAFTS)) if ahead else 0.0
        whole = int(saved)
        left = passes[: DRAFTS - whole]
        drafting_s = max(sum(left) - (saved - whole) * last_pass_s, 0.0)
        if left:
            last_pass_s = left[-1]
        up_s = drafts.up_s + DRAFTS * drafts.up_s_per_draft
        verify_s = decode_step_s(replica.cost, known + DRAFTS, DRAFTS)
        time_s += drafts.down_s + drafting_s + up_s + verify_s
        wait_s = up_s + verify_s + drafts.down_s
        generated += min(accepted + 1, OUTPUT - generated)
    return time_s


@pytest.mark.parametrize("accepted", [0, 2, 4])
def test_a_lone_request_takes_round_after_round(accepted: int) -> None:
    cluster = edge_cloud(acceptance={"kind": "trace", "accepted": [accepted]})
    (found_s,) = decode_s(simulate(cluster, workload()))
    assert found_s == pytest.approx(closed_form_s(cluster, accepted), rel=1e-12)


@pytest.mark.parametrize("board", ["jetson_agx_orin_64gb", "jetson_nano"])
def test_a_lone_request_that_is_drafted_ahead(board: str) -> None:
    cluster = edge_cloud(
        board=board, acceptance={"kind": "trace", "accepted": [99]}, pre_drafting={"kind": "all_accepted"}
    )
    (found_s,) = decode_s(simulate(cluster, workload()))
    assert found_s == pytest.approx(closed_form_s(cluster, DRAFTS, ahead=True), rel=1e-12)


def test_beside_each_other_the_slower_of_drafting_and_verifying_sets_the_pace() -> None:
    """PEARL (arXiv 2408.11850): all accepted, none waits for the other's end: a round is the longer of the passes and
    of the wait. Two GPUs of one box; 70B and 8B."""
    engine = s.llm(model="llama_3_70b", placement={"gpu": 4}, parallel={"tp": 4})
    for drafts in (2, 12):
        model = {"kind": "model", "model": "llama_3_8b", "on": {"device": "gpu", "host_per_pass": "0 s"},
                 "pre_drafting": {"kind": "all_accepted", "bonus": "skipped"}}  # fmt: skip
        keys = {"num_draft_tokens": drafts, "acceptance": {"kind": "constant", "rate": 1.0}, "draft": model}
        cluster = s.cluster({**engine, "speculative": keys})
        replica = lowered_of(cluster).replicas[0]
        assert replica.cost is not None
        assert replica.remote_drafts is not None
        beside = replica.remote_drafts
        context = PROMPT + OUTPUT // 2
        passes_s = drafts * decode_step_s(beside.cost, context)
        way_s = beside.up_s + drafts * beside.up_s_per_draft + beside.down_s
        verify_s = decode_step_s(replica.cost, context + drafts, drafts)
        (found_s,) = decode_s(simulate(cluster, workload()))
        num_rounds = (OUTPUT - 1) / drafts
        first_s = passes_s + way_s + verify_s
        pace_s = max(passes_s, way_s + verify_s)
        assert found_s == pytest.approx(first_s + (num_rounds - 1) * pace_s, rel=0.01)


def test_tokens_a_round_are_those_of_leviathan() -> None:
    """(1 - a^(k + 1)) / (1 - a) tokens a step (arXiv 2211.17192, equation 1)."""
    long = workload(30, "1 /s")
    long["traffic"]["lengths"]["num_output_tokens"] = 400
    for rate in (0.5, 0.8):
        results = simulate(edge_cloud(30, acceptance={"kind": "constant", "rate": rate}), long)
        expected = (1.0 - rate ** (DRAFTS + 1)) / (1.0 - rate)
        num_rounds = results.engines["num_draft_rounds"][0]
        spread = np.sqrt(DRAFTS**2 / 4.0 / num_rounds)  # no variance of a number of 0 to k exceeds k^2 / 4
        assert results.engines["tokens_per_decode"][0] == pytest.approx(expected, abs=4.0 * spread)


def test_a_longer_way_is_never_faster_and_costs_a_round_trip_a_round() -> None:
    times_s, rounds = [], []
    for latency in ("0 ms", "5 ms", "20 ms"):
        results = simulate(edge_cloud(latency=latency), workload())
        times_s.append(float(decode_s(results)[0]))
        rounds.append(int(results.engines["num_draft_rounds"][0]))
    assert rounds[0] == rounds[1] == rounds[2]
    assert np.diff(times_s) == pytest.approx(rounds[0] * np.array([0.010, 0.030]), rel=1e-9)


def test_drafting_ahead_saves_no_more_than_the_passes_or_the_wait() -> None:
    plain, ahead = (
        simulate(edge_cloud(acceptance={"kind": "constant", "rate": 0.9}, **keys), workload())
        for keys in ({}, {"pre_drafting": {"kind": "all_accepted"}})
    )
    row = ahead.engines.iloc[0]
    saved_s = float(decode_s(plain)[0] - decode_s(ahead)[0])
    drafting_s = float(plain.engines["draft_busy_s"][0]) / float(plain.engines["num_draft_rounds"][0])
    assert 0 < row["num_pre_drafts_right"] < row["num_pre_drafts"]
    assert 0.0 < saved_s <= row["num_pre_drafts_right"] * drafting_s * 1.05  # contexts grow by a few tokens
    assert ahead.engines["draft_busy_s"][0] > plain.engines["draft_busy_s"][0]


def test_probabilities_travel_with_the_drafts() -> None:
    """Eight of them a draft: 48 bytes more each, over 95% of 14.5 Mbit/s."""
    plain, sampled = (simulate(edge_cloud(num_probabilities=number), workload()) for number in (0, 8))
    sent = int(plain.engines["num_sent_drafts"][0])
    assert float(decode_s(sampled)[0] - decode_s(plain)[0]) == pytest.approx(
        sent * 48.0 / (0.95 * 14.5e6 / 8), rel=1e-6
    )


def test_a_board_too_few_is_shared_and_slows_all_down() -> None:
    many, few = (simulate(edge_cloud(number, board="jetson_nano"), workload(12, "20 /s")) for number in (12, 1))
    assert decode_s(few).mean() > decode_s(many).mean()
    assert few.engines["draft_utilization_frac"][0] > many.engines["draft_utilization_frac"][0]


def test_the_books_close() -> None:
    """Energy, rent and bytes of boards and links are all somebody's; a visit's time is all accounted for."""
    results = simulate(edge_cloud(3, pre_drafting={"kind": "all_accepted"}), workload(12, "2 /s"))
    requests, engines, links = results.requests, results.engines, results.links
    of_requests_j = requests[["energy_j", "idle_energy_j", "link_energy_j"]].sum().sum()
    assert of_requests_j == pytest.approx(engines["energy_j"].sum() + links["energy_j"].sum(), rel=1e-9)
    assert requests["link_energy_j"].sum() == pytest.approx(links["energy_j"].sum(), rel=1e-9)
    assert requests["cost_usd"].sum() == pytest.approx(engines["cost_usd"].sum(), rel=1e-9)
    boards = results.engines.iloc[0]
    assert (boards["draft_devices"], boards["num_draft_devices"]) == ("3 x jetson_agx_orin_64gb", 3)
    assert 0.0 < boards["draft_energy_j"] < boards["energy_j"]
    up_bytes = boards["num_draft_rounds"] * 66.0 + boards["num_sent_drafts"] * 4.0
    down_bytes = boards["num_draft_rounds"] * 74.0
    cloud = links[links["link"].str.startswith("cloud") | links["link"].str.contains("network->cloud")]
    assert sorted(cloud["bytes"]) == pytest.approx(sorted([up_bytes, down_bytes]))
    visits = results.visits
    known_s = visits[["queue_s", "service_s", "preempted_s", "draft_wait_s"]].sum(axis=1)
    assert known_s.to_numpy() == pytest.approx((visits["finish_s"] - visits["arrival_s"]).to_numpy())
    assert (visits.loc[visits["kind"] == "decode", "draft_wait_s"] > 0.0).all()


def test_beside_a_slow_server_the_boards_pay_and_beside_a_fast_one_the_way_costs_more() -> None:
    """The same boards and way: an engine whose steps take long gains tokens a step, one that replays captured graphs
    loses the round trips."""
    faster = []
    for host in ({"per_step": "20 ms", "graph_capture": False}, {}):
        cluster = edge_cloud(latency="10 ms", acceptance={"kind": "constant", "rate": 0.8})
        cluster["engines"][0]["host"] = host
        drafted_s, alone_s = (decode_s(simulate(one, workload()))[0] for one in (cluster, without_drafts(cluster)))
        faster.append(bool(drafted_s < alone_s))
    assert faster == [True, False]
