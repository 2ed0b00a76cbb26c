"""The laws that every run keeps (docs/architecture.md), on random small scenarios and at the edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hermes_sim.core.errors import ConfigError, SimulationError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.lower import lower
from hermes_sim.workload.generate import generate_requests
from hermes_sim.workload.requests import request_table
from tests import scenarios as s
from tests.properties.test_exact_steps import any_scenario


def simulate(cluster: dict[str, Any], workload: dict[str, Any], **columns: Any) -> RunTables:
    """Run; `columns` stand in for the traffic."""
    requests = request_table(**columns) if columns else None
    return simulate_scenario(load_scenario(cluster, workload), requests=requests)


def check(tables: RunTables, *, has_ranks: bool = False) -> None:
    """Laws that can be read off the tables; those on blocks and loads are asserted inside every run."""
    requests, visits, engines = tables.requests, tables.visits, tables.engines
    assert set(requests["status"]) <= {"finished", "rejected"}  # law 1
    done = requests["status"] == "finished"
    assert np.isfinite(requests["finish_s"][done]).all()
    assert (requests["finish_s"][done] >= requests["arrival_s"][done]).all()  # law 3
    with_token = np.isfinite(requests["first_token_s"])
    assert (requests["first_token_s"][with_token] >= requests["arrival_s"][with_token]).all()
    assert (requests["first_token_s"][with_token] <= requests["finish_s"][with_token]).all()
    assert (with_token == (done & (requests["num_output_tokens"] > 0))).all()
    served = np.isfinite(visits["finish_s"])
    parts = visits["queue_s"] + visits["service_s"] + visits["preempted_s"]
    span = visits["finish_s"] - visits["arrival_s"]
    np.testing.assert_allclose(parts[served], span[served], rtol=1e-9, atol=1e-9)
    by_resource = sum(visits[name] for name in ("compute_s", "memory_s", "network_s", "host_s"))
    np.testing.assert_allclose(visits["service_s"][served], by_resource[served], rtol=1e-12)
    # every second of the steps and every joule of them is somebody's, but for the dummy steps of idle ranks
    given_s, busy_s = requests["engine_s"].sum(), engines["busy_s"].sum()
    if has_ranks:
        assert given_s <= busy_s * (1 + 1e-9)
    else:
        np.testing.assert_allclose(given_s, busy_s, rtol=1e-9)
    assert requests["energy_j"].sum() <= engines["energy_j"].sum() * (1 + 1e-9)
    rent = engines["cost_usd"].sum() if given_s > 0 else 0.0
    np.testing.assert_allclose(requests["cost_usd"].sum(), rent, rtol=1e-9)
    # a token engine begins a step as soon as the last has ended, while it has work (law 6): busy = span of the work
    assert (engines["utilization_frac"] <= 1 + 1e-9).all()
    assert (engines["mfu_frac"] <= 1).all()  # law 10, over the run
    assert (engines["mbu_frac"] <= 1).all()


@st.composite
def small_requests(draw: st.DrawFn) -> dict[str, Any]:
    """Columns of bursts of prompts, some of which share their beginning."""
    number = draw(st.integers(0, 25))
    columns: dict[str, Any] = {
        "arrival_s": np.cumsum([draw(st.sampled_from([0.0, 0.01, 0.2, 3.0])) for _ in range(number)]),
        "num_prompt_tokens": [draw(st.integers(0, 900)) for _ in range(number)],
        "num_output_tokens": [draw(st.integers(0, 60)) for _ in range(number)],
        "prefix_group": [draw(st.integers(0, 1)) for _ in range(number)],
        "priority": [draw(st.integers(0, 2)) for _ in range(number)],
        "client": [draw(st.integers(0, 2)) for _ in range(number)],
    }
    columns["prefix_tokens"] = [min(200, prompt) for prompt in columns["num_prompt_tokens"]]
    return columns


@settings(max_examples=60)
@given(any_scenario(), small_requests())
def test_laws_on_random_scenarios(scenario: tuple[s.Document, s.Document], columns: dict[str, Any]) -> None:
    cluster, workload = scenario
    workload = {**workload, "traffic": s.traffic()}
    try:
        load_scenario(cluster, workload)
    except ConfigError:
        assume(False)
    has_ranks = any(engine.get("parallel", {}).get("dp", 1) > 1 for engine in cluster["engines"])
    check(simulate(cluster, workload, **columns), has_ranks=has_ranks)


CLUSTER = s.cluster(s.llm())


def test_no_requests_at_all() -> None:
    tables = simulate(CLUSTER, s.workload(), arrival_s=[], num_prompt_tokens=[], num_output_tokens=[])
    assert len(tables.requests["request"]) == 0
    assert tables.duration_s == 0.0
    assert tables.engines["num_steps"].tolist() == [0]


def test_zero_output_tokens_end_with_the_prefill() -> None:
    tables = simulate(CLUSTER, s.workload(), arrival_s=[0.0], num_prompt_tokens=[100], num_output_tokens=[0])
    assert tables.requests["status"].tolist() == ["finished"]
    assert np.isnan(tables.requests["first_token_s"][0])
    assert tables.requests["num_output_tokens"].tolist() == [0]
    assert tables.num_steps == 1


def test_one_token_comes_with_the_prefill() -> None:
    tables = simulate(CLUSTER, s.workload(), arrival_s=[0.0], num_prompt_tokens=[100], num_output_tokens=[1])
    assert tables.requests["first_token_s"][0] == tables.requests["finish_s"][0]
    assert tables.num_steps == 1
    assert tables.itl_counts.sum() == 0


def test_an_empty_prompt_is_one_token() -> None:
    tables = simulate(CLUSTER, s.workload(), arrival_s=[0.0], num_prompt_tokens=[0], num_output_tokens=[2])
    assert tables.requests["num_prompt_tokens"].tolist() == [1]
    check(tables)


def test_larger_than_memory_is_rejected_and_the_rest_goes_on() -> None:
    small = s.cluster(s.llm(kv_cache={"num_gpu_blocks": 10}))
    tables = simulate(
        small, s.workload(), arrival_s=[0.0, 0.0, 0.1], num_prompt_tokens=[150, 200, 160], num_output_tokens=[5, 5, 1]
    )
    # 10 blocks of 16: 150 + 4 and 160 + 0 fit, 200 does not
    assert tables.requests["status"].tolist() == ["finished", "rejected", "finished"]
    assert np.isnan(tables.requests["finish_s"][1])
    check(tables)


def test_longer_than_the_model_is_clipped_and_counted() -> None:
    tables = simulate(
        CLUSTER, s.workload(), arrival_s=[0.0, 9.0], num_prompt_tokens=[9000, 10], num_output_tokens=[100, 9000]
    )
    assert tables.requests["num_prompt_tokens"].tolist() == [8192 - 100, 1]
    assert tables.requests["num_output_tokens"].tolist() == [100, 8191]
    assert tables.requests["num_clipped_tokens"].tolist() == [9000 - (8192 - 100), 9 + (9000 - 8191)]


def test_ties_do_not_depend_on_insertion() -> None:
    """All at once: the same as in any order of equal times, since rows rank."""
    number = 40
    columns = {
        "arrival_s": np.zeros(number),
        "num_prompt_tokens": np.arange(10, 10 + number),
        "num_output_tokens": np.full(number, 7),
    }
    cluster = s.cluster(s.llm(replicas=3))
    first, second = simulate(cluster, s.workload(), **columns), simulate(cluster, s.workload(), **columns)
    np.testing.assert_array_equal(first.requests["finish_s"], second.requests["finish_s"])
    check(first)


def test_an_engine_without_work_costs_its_idle_power() -> None:
    tables = simulate(
        s.cluster(s.llm(), s.llm("other", serves=["decode"])),
        s.workload(),
        arrival_s=[0.0],
        num_prompt_tokens=[1],
        num_output_tokens=[1],
    )
    idle = tables.engines["engine"] == "other[0]"
    assert tables.engines["num_steps"][idle].tolist() == [0]
    assert tables.engines["energy_j"][idle][0] > 0.0


def test_faster_hardware_never_slows_a_lone_request() -> None:
    """Law 8: A100 to H100 to B200, every stage of a request."""
    times = []
    for profile in ("a100_sxm_80gb", "h100_sxm", "b200_sxm"):
        cluster = s.cluster(s.llm())
        cluster["nodes"][0]["devices"]["gpu"]["profile"] = profile
        tables = simulate(cluster, s.workload(), arrival_s=[0.0], num_prompt_tokens=[2000], num_output_tokens=[50])
        times.append((tables.requests["first_token_s"][0], tables.requests["finish_s"][0]))
    assert times == sorted(times, reverse=True)


def test_a_step_is_never_faster_than_the_roofline() -> None:
    """Law 10: a decode step streams every weight once, however good the coefficients."""
    tables = simulate(CLUSTER, s.workload(), arrival_s=[0.0], num_prompt_tokens=[1], num_output_tokens=[100])
    step_s = (tables.requests["finish_s"][0] - tables.requests["first_token_s"][0]) / 99
    weights_bytes = 2 * 7.5e9  # Llama-3-8B without its input embedding, bf16
    assert step_s > weights_bytes / 2.039e12


def test_a_stuck_run_says_who_waits_for_what() -> None:
    scenario = load_scenario(CLUSTER, s.workload())
    requests = request_table([0.0, 0.0], [10, 10], [5, 5])
    coordinator = Coordinator(lower(scenario, requests))
    coordinator.state.row_continues_as[0] = -1  # as if the hand-over of request 0 had been lost
    with pytest.raises(SimulationError, match=r"request 0 waits for stage 'decode', which was never started"):
        coordinator.run()


def test_the_same_seed_gives_the_same_bytes() -> None:
    scenario = load_scenario(s.cluster(s.llm(replicas=2)), s.workload())
    first, second = simulate_scenario(scenario), simulate_scenario(scenario)
    for name, column in first.requests.items():
        assert column.tobytes() == second.requests[name].tobytes() or column.dtype == object
    other = simulate_scenario(scenario.model_copy(update={"seed": 99}))
    assert not np.array_equal(first.requests["arrival_s"], other.requests["arrival_s"])


def test_lengths_do_not_depend_on_routing_or_rate() -> None:
    one = generate_requests(load_scenario(CLUSTER, s.workload()).workload.traffic, 1)
    faster = generate_requests(load_scenario(CLUSTER, s.workload(traffic=s.traffic(rate="80 /s"))).workload.traffic, 1)
    np.testing.assert_array_equal(one.num_prompt_tokens, faster.num_prompt_tokens)
    np.testing.assert_array_equal(one.num_output_tokens, faster.num_output_tokens)
