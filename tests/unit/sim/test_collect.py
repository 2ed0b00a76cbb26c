"""Result tables keep their sums: intervals add up to engines, requests to engines, decisions to tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.frames import run_frames
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import collect_numbers, simulate_scenario
from hermes_sim.sim.collect import collect
from hermes_sim.sim.collect_numbers import integral_of_passed
from hermes_sim.sim.collect_timeline import MAX_INTERVALS, interval_edges, running_sums
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.sim.status import UNFINISHED
from hermes_sim.workload.generate import generate_requests
from tests import scenarios as s

BUSY = s.traffic(rate="30 /s", num_requests=80)
TIGHT = {"num_gpu_blocks": 260}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (s.cluster(s.llm()), s.workload()),
    "preempted": (s.cluster(s.llm(kv_cache=TIGHT, batching={"full_sequence_gate": False})), s.workload(traffic=BUSY)),
    "swapped": (
        s.cluster(s.llm(kv_cache=TIGHT, batching={"full_sequence_gate": False, "preemption": "swap"})),
        s.workload(traffic=BUSY),
    ),
    "two replicas and retrieval": (
        s.cluster(s.llm(replicas=2), s.workers(["embed", "retrieve"], num_workers=3)),
        s.workload(*s.RAG, traffic=s.traffic(rate="20 /s", num_requests=120)),
    ),
    "disaggregated": (
        s.cluster(s.llm("prefiller", serves=["prefill"]), s.llm("decoder", serves=["decode"])),
        s.workload(traffic=BUSY),
    ),
    "pipeline parallel": (
        s.cluster(s.llm(parallel={"pp": 2}, placement={"gpu": 2})),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=60)),
    ),
    "data parallel": (
        s.cluster(s.llm(parallel={"dp": 2}, placement={"gpu": 2})),
        s.workload(traffic=s.traffic(rate="20 /s", num_requests=60)),
    ),
    "asynchronous": (s.cluster(s.llm(batching={"async_scheduling": True})), s.workload(traffic=BUSY)),
    "drafts": (
        s.cluster(
            s.llm(
                speculative={
                    "num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.7},
                    "draft": {"kind": "heads", "layers_frac": 0.03},
                }
            )
        ),
        s.workload(traffic=BUSY),
    ),
    "samples": (
        s.cluster(s.llm()),
        s.workload(s.PREFILL, {**s.DECODE, "num_samples": 3}, traffic=s.traffic(rate="8 /s", num_requests=40)),
    ),
    "static": (s.cluster(s.llm(batching={"kind": "static", "max_num_seqs": 16})), s.workload()),
    "layered": (s.cluster(s.llm(batching={"kind": "layered_prefill"})), s.workload()),
    "front end": (
        s.cluster(
            s.llm(
                host={
                    "tokenize": {"per_request": "1 ms", "per_token": "10 us"}, "detokenize": {"per_message": "3 ms"},
                }
            )
        ),
        s.workload(),
    ),
}  # fmt: skip


@cache
def run(case: str, *, steps: bool = False) -> RunTables:
    cluster, workload = CASES[case]
    scenario = load_scenario(cluster, workload, exact_steps=steps)
    return simulate_scenario(scenario, steps=steps)


def frames(case: str, *, steps: bool = False) -> dict[str, pd.DataFrame]:
    return run_frames(run(case, steps=steps))


SUMMED = [
    "busy_s", "compute_s", "memory_s", "network_s", "host_s", "num_steps", "num_output_tokens", "num_preemptions",
    "num_looked_up_blocks", "num_hit_blocks", "num_drafted_tokens", "num_accepted_tokens",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_intervals_add_up_to_the_engine(case: str) -> None:
    tables = frames(case)
    engines, timeline = tables["engines"].set_index("engine"), tables["timeline"]
    sums = timeline.groupby("engine", observed=True)[SUMMED].sum()
    for column in SUMMED:
        np.testing.assert_allclose(sums[column], engines.loc[sums.index, column], rtol=1e-9, err_msg=column)
    length_s = timeline["end_s"] - timeline["start_s"]
    for means, weights in (
        (["mean_batch", "mean_kv_used_frac"], timeline["busy_s"]),
        (["utilization_frac", "mfu_frac", "mbu_frac"], length_s),
    ):
        weight = weights.groupby(timeline["engine"], observed=True).sum()
        for column in means:
            mean = (timeline[column] * weights).groupby(timeline["engine"], observed=True).sum() / weight
            expected = engines.loc[mean.index, column]
            np.testing.assert_allclose(mean.fillna(0.0), expected, rtol=1e-9, atol=1e-15, err_msg=column)


@pytest.mark.parametrize("case", CASES)
def test_requests_pay_for_everything(case: str) -> None:
    """Energy of engines and links, and the rent, are the sums over the requests; a stage's energy over its visits."""
    tables = frames(case)
    requests, engines, links = tables["requests"], tables["engines"], tables["links"]
    paid_j = requests[["energy_j", "idle_energy_j", "link_energy_j"]].sum().sum()
    assert paid_j == pytest.approx(engines["energy_j"].sum() + links["energy_j"].sum(), rel=1e-9)
    assert requests["link_energy_j"].sum() == pytest.approx(links["energy_j"].sum(), rel=1e-9)
    assert requests["cost_usd"].sum() == pytest.approx(engines["cost_usd"].sum(), rel=1e-9)
    assert tables["visits"]["energy_j"].sum() == pytest.approx(requests["energy_j"].sum(), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_run_and_hold_shares(case: str) -> None:
    timeline = frames(case)["timeline"]
    for _, rows in timeline.groupby("engine", observed=True):
        assert rows["start_s"].iloc[0] == 0.0
        assert rows["end_s"].iloc[-1] == run(case).duration_s
        np.testing.assert_array_equal(rows["end_s"].iloc[:-1], rows["start_s"].iloc[1:])
        assert 8 <= len(rows) <= MAX_INTERVALS
    shares = ["utilization_frac", "mean_kv_used_frac", "mfu_frac", "mbu_frac"]
    if case == "layered":  # the prompts of a wave count in the step in which they are through all layers
        shares.remove("mfu_frac")
    for column in shares:
        assert timeline[column].between(0.0, 1.0 + 1e-9).all(), column


@pytest.mark.parametrize("case", [case for case in CASES if case != "samples"])
def test_numbers_of_visits_integrate_to_their_times(case: str) -> None:
    tables = frames(case)
    timeline, visits = tables["timeline"], tables["visits"]
    length_s = timeline["end_s"] - timeline["start_s"]
    waited_s, served_s, preempted_s = (
        (timeline[name] * length_s).groupby(timeline["engine"], observed=True).sum()
        for name in ("num_waiting", "num_running", "num_preempted")
    )
    placed = visits[visits["engine"] != ""]
    by_engine = placed.groupby("engine", observed=True)
    expected_waited_s = (placed["start_s"] - placed["arrival_s"]).groupby(placed["engine"], observed=True).sum()
    inside_s = (placed["finish_s"] - placed["arrival_s"]).groupby(placed["engine"], observed=True).sum()
    for engine in by_engine.groups:
        assert waited_s[engine] == pytest.approx(expected_waited_s[engine], abs=1e-6)
        assert preempted_s[engine] == pytest.approx(by_engine["preempted_s"].sum()[engine], abs=1e-6)
        inside = waited_s[engine] + served_s[engine] + preempted_s[engine]
        assert inside == pytest.approx(inside_s[engine], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_requests_add_up_to_the_engines(case: str) -> None:
    tables = frames(case)
    engines, requests = tables["engines"], tables["requests"]
    assert (requests["status"] != "unfinished").all()
    assert engines["num_output_tokens"].sum() == requests["num_output_tokens"].sum()
    assert engines["num_preemptions"].sum() == requests["num_preemptions"].sum()
    busy = engines[engines["busy_s"] > 0]
    assert requests["cost_usd"].sum() == pytest.approx(busy["cost_usd"].sum(), rel=1e-6)
    if case != "data parallel":  # whose ranks also run dummy steps
        assert requests["engine_s"].sum() == pytest.approx(engines["busy_s"].sum(), rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_requests_are_made_of_their_visits(case: str) -> None:
    tables = frames(case)
    requests, visits = tables["requests"], tables["visits"]
    served = (requests["status"] == "finished") & (requests["num_output_tokens"] > 0)
    message_s = 0.003 if case == "front end" else 0.0
    ends_s = visits.groupby("request")["finish_s"].max()
    np.testing.assert_allclose(requests["finish_s"][served] - message_s, ends_s[served], rtol=1e-12)
    first_s = visits[visits["kind"] == "prefill"].set_index("request")["finish_s"]
    np.testing.assert_array_equal(requests["engine_first_token_s"][served], first_s[served])
    assert requests["engine_first_token_s"][requests["num_output_tokens"] == 0].isna().all()
    parts = visits[["compute_s", "memory_s", "network_s", "host_s"]].sum(axis=1, skipna=False)
    np.testing.assert_allclose(visits["service_s"], parts, rtol=1e-12)
    waited_s = visits["finish_s"] - visits["arrival_s"] - visits["service_s"] - visits["preempted_s"]
    np.testing.assert_allclose(visits["queue_s"], waited_s.clip(lower=0.0), rtol=1e-9, atol=1e-9)


def test_pipelines_side_by_side() -> None:
    """Columns of requests of two pipelines, against groups of their visits."""
    cluster = s.cluster(s.llm(replicas=2), s.workers(["embed", "retrieve"], num_workers=3))
    stages = {"chat": [s.PREFILL, s.DECODE], "rag": s.RAG}
    pipelines = [{"name": name, "weight": 1.0, "stages": each} for name, each in stages.items()]
    workload = s.workload(pipelines=pipelines, traffic=s.traffic(rate="20 /s", num_requests=120))
    tables = run_frames(simulate_scenario(load_scenario(cluster, workload)))
    requests, visits = tables["requests"], tables["visits"]
    assert set(requests["pipeline"]) == {"chat", "rag"}
    num_visits = visits.groupby("request").size()
    is_rag = requests["pipeline"] == "rag"
    np.testing.assert_array_equal(num_visits, np.where(is_rag, len(s.RAG), 2))
    assert (visits.drop_duplicates("request")["kind"].to_numpy() == np.where(is_rag, "embed", "prefill")).all()
    np.testing.assert_array_equal(requests["finish_s"], visits.groupby("request")["finish_s"].max())
    prefills = visits[visits["kind"] == "prefill"].set_index("request")
    np.testing.assert_array_equal(requests["engine_first_token_s"], prefills["finish_s"])
    busy = tables["engines"][tables["engines"]["busy_s"] > 0]
    assert requests["cost_usd"].sum() == pytest.approx(busy["cost_usd"].sum(), rel=1e-9)


def test_numbers_of_visits_do_not_depend_on_how_many_rows_are_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load_scenario(*CASES["preempted"])
    coordinator = Coordinator(lower(scenario, generate_requests(scenario.workload.traffic, scenario.seed)))
    coordinator.run()
    at_once = collect(coordinator).timeline
    monkeypatch.setattr(collect_numbers, "ROWS_AT_A_TIME", 7)
    in_parts = collect(coordinator).timeline
    for column in ("num_waiting", "num_running", "num_preempted"):
        assert at_once[column].max() > 0.0
        np.testing.assert_allclose(in_parts[column], at_once[column], rtol=1e-9, atol=1e-9)


def test_the_cases_are_about_something() -> None:
    assert frames("preempted")["engines"]["num_preemptions"].sum() > 0
    assert frames("preempted")["timeline"]["num_preempted"].max() > 0
    swapped = frames("swapped")["engines"]
    assert swapped["num_swapped_blocks"].sum() > 0
    assert list(frames("data parallel")["engines"]["engine"]) == ["llm[0].dp0", "llm[0].dp1"]
    samples = frames("samples")
    assert samples["engines"]["num_copied_blocks"].sum() > 0


def test_drafts_by_their_definitions() -> None:
    engine = frames("drafts")["engines"].iloc[0]
    assert 0 < engine["num_accepted_tokens"] < engine["num_drafted_tokens"]
    assert engine["acceptance_frac"] == engine["num_accepted_tokens"] / engine["num_drafted_tokens"]
    # Of 3 drafts that are right with 0.7 each until the first wrong one, 0.7 + 0.49 + 0.343 = 1.533 are kept.
    assert engine["tokens_per_decode"] == pytest.approx(1 + 1.533, rel=0.05)
    assert engine["speculation_speedup"] > 1.0
    plain = frames("plain")["engines"].iloc[0]
    assert plain["tokens_per_decode"] == 1.0
    assert np.isnan(plain["speculation_speedup"])


def test_a_verified_step_is_priced_with_its_drafts() -> None:
    operators = frames("drafts")["operators"]
    decode = operators[operators["stage"] == "decode"].set_index("operator")
    batch = frames("drafts")["engines"]["mean_batch"].iloc[0]
    # 2 FLOPs x hidden 4096 x vocabulary 128,256 a token: about 4 tokens for each sequence of the batch.
    tokens = decode.loc["logits", "flops"] / (2 * 4096 * 128_256)
    assert tokens == pytest.approx(4 * batch, rel=0.25)


def test_samples_of_a_request_are_one_row() -> None:
    tables = frames("samples")
    requests = tables["requests"]
    with_output = requests["num_output_tokens"] > 0
    assert (requests.loc[with_output, "num_samples"] == 3).all()
    assert (requests["num_longest_sample_tokens"] <= requests["num_output_tokens"]).all()
    assert (requests["num_output_tokens"] <= 3 * requests["num_longest_sample_tokens"]).all()
    gaps = requests["num_longest_sample_tokens"] - 1
    has_gaps = gaps > 0
    expected_s = (requests["finish_s"] - requests["first_token_s"])[has_gaps] / gaps[has_gaps]
    np.testing.assert_allclose(requests["tpot_s"][has_gaps], expected_s)
    assert len(tables["visits"]) == 2 * len(requests)


def test_the_client_sees_tokens_later_than_the_engine() -> None:
    tables = frames("front end")
    requests, visits = tables["requests"], tables["visits"]
    np.testing.assert_allclose(requests["ttft_s"] - requests["engine_ttft_s"], 0.003, rtol=1e-9)
    last_s = visits.groupby("request")["finish_s"].max().to_numpy()
    np.testing.assert_allclose(requests["finish_s"] - last_s, 0.003, rtol=1e-6)
    prefill = visits[visits["kind"] == "prefill"]
    alone_s = 0.001 + 1e-5 * requests["num_prompt_tokens"].to_numpy()
    assert (prefill["tokenize_s"].to_numpy() >= alone_s - 1e-12).all()
    np.testing.assert_allclose(prefill["arrival_s"] - prefill["tokenize_s"], requests["arrival_s"], rtol=1e-12)
    assert 0.0 < tables["engines"]["tokenizer_utilization_frac"].iloc[0] < 1.0
    assert np.isnan(frames("plain")["engines"]["tokenizer_utilization_frac"].iloc[0])


BROKEN: dict[str, tuple[str, Callable[[Coordinator], None]]] = {
    "a request inside": ("law 1", lambda run: run.state.load_requests.__setitem__(0, 1)),
    "a token left": ("law 1", lambda run: run.state.load_tokens.__setitem__(0, 1)),
    "an unfinished request": ("law 1", lambda run: run.status.__setitem__(0, UNFINISHED)),
    "a lost block": ("law 2", lambda run: run.state.num_free_blocks.__setitem__(0, 0)),
    "a block on the host": ("law 2", lambda run: run.state.num_swapped_blocks.__setitem__(0, 1)),
    "started before it came": ("law 3", lambda run: run.state.row_start_s.__setitem__(0, -1.0)),
    "an open sample": ("law 1", lambda run: run.state.row_open_samples.__isub__(1)),
    "a sample cut short": ("law 1", lambda run: run.state.row_generated.__isub__(1)),
    "drafts from nowhere": ("no more drafts", lambda run: run.state.total_accepted.__iadd__(1)),
    "hits from nowhere": ("no more blocks", lambda run: run.state.total_hit_blocks.__iadd__(10**9)),
    "a counter that falls": ("law 4", lambda run: run.state.timeline[0, 5:].__isub__(1e6)),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_law_is_noticed(defect: str) -> None:
    scenario = load_scenario(*CASES["samples"])
    requests = generate_requests(scenario.workload.traffic, scenario.seed)
    coordinator = Coordinator(lower(scenario, requests))
    coordinator.run()
    collect(coordinator)
    law, break_it = BROKEN[defect]
    break_it(coordinator)
    with pytest.raises(AssertionError, match=law):
        collect(coordinator)


def test_moments_by_hand() -> None:
    # Two moments at engine 0, in intervals of 2 s: 0.5 leaves 1.5 s of the first and all others; 5 leaves 1 s of the
    # third and the last, which is 1 s long.
    passed = integral_of_passed(np.array([0.5, 5.0]), np.array([0, 0]), np.array([0.0, 2.0, 4.0, 6.0, 7.0]), 2)
    np.testing.assert_allclose(passed, [[1.5, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])


def test_intervals_by_hand() -> None:
    edges_s, places = interval_edges(0.5, 1.75)
    np.testing.assert_array_equal(edges_s, [0.0, 0.5, 1.0, 1.5, 1.75])
    np.testing.assert_array_equal(places, [0, 1, 2, 3])
    edges_s, places = interval_edges(1.0, 401.0)  # 401 intervals: three together
    assert len(places) == 134
    assert edges_s[1] == 3.0
    assert edges_s[-1] == 401.0
    assert len(interval_edges(1.0, 0.0)[1]) == 0


def test_an_engine_that_has_stopped_keeps_its_sums() -> None:
    points = np.array([[[9.0], [3.0], [5.0], [0.0]]])  # the first point may hold what a step did at once at 0
    sums = running_sums(points, np.array([3]), np.array([0, 1, 2, 3]), np.array([[6.0]]))
    np.testing.assert_array_equal(sums[0, :, 0], [0.0, 3.0, 5.0, 6.0, 6.0])
