"""Engines that span device groups, and arrays: exact steps, energy and rent that add up, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.tables import RunTables
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim import simulate_scenario
from tests import scenarios as s

ON_CPU = {"placement": {"gpu": 1, "cpu": {"devices": 2, "cores": 96}}}
SPANS = {
    "attention": s.llm(**ON_CPU, operators_on={"linear": "gpu", "attention": "cpu", "prefill_attention": "gpu"}),
    "in_turns": s.llm(
        **ON_CPU, operators_on={"linear": "gpu", "attention": "cpu", "interleave_sub_batches": True},
        kv_cache={"num_gpu_blocks": 400},
    ),
    "matrices_apart": s.llm(
        placement={"gpu": 2, "cpu": 2}, parallel={"tp": 2}, operators_on={"linear": "gpu", "rest": "cpu"},
        batching={"kind": "prefill_first"},
    ),
    "experts": s.llm(**ON_CPU, model="mixtral_8x7b", operators_on={"linear": "gpu", "experts": "cpu"}),
}  # fmt: skip
BUSY = s.workload(traffic=s.traffic(rate="6 /s", num_requests=40))


def run(engine: s.Document, **keys: Any) -> RunTables:
    return simulate_scenario(load_scenario(s.cluster(engine), {**BUSY, **keys}))


@pytest.mark.parametrize("name", SPANS)
def test_many_steps_a_call_are_one_event_a_step(name: str) -> None:
    production = run(SPANS[name])
    exact = simulate_scenario(load_scenario(s.cluster(SPANS[name]), BUSY, exact_steps=True))
    for table in ("requests", "visits", "engines", "timeline", "device_groups"):
        for column, values in getattr(production, table).items():
            np.testing.assert_array_equal(values, getattr(exact, table)[column], err_msg=f"{table}.{column}")


@pytest.mark.parametrize("name", SPANS)
def test_groups_add_up_to_their_engine_and_requests_to_both(name: str) -> None:
    tables = run(SPANS[name])
    groups = tables.device_groups
    assert groups is not None
    assert groups["energy_j"].sum() == pytest.approx(tables.engines["energy_j"].sum(), rel=1e-9)
    assert groups["cost_usd"].sum() == pytest.approx(tables.engines["cost_usd"].sum(), rel=1e-9)
    requests = tables.requests
    spent_j = requests["energy_j"].sum() + requests["idle_energy_j"].sum()
    assert spent_j == pytest.approx(groups["energy_j"].sum(), rel=1e-9)
    assert (groups["busy_s"] <= tables.engines["busy_s"][0] * (1 + 1e-9)).all()
    assert (groups["active_energy_j"] > 0.0).all()


def test_the_kv_cache_is_as_large_as_the_memory_beside_attention() -> None:
    """128 kB a token of Llama-3-8B; 0.9 of two times 512 GiB less 1 GB each, where a GPU has 61 GB left."""
    on_cpu = load_scenario(s.cluster(SPANS["attention"]), BUSY)
    tables = simulate_scenario(on_cpu)
    memory_bytes = 2 * (0.9 * on_cpu.devices["epyc_7742"].memory.capacity_bytes - 1e9)
    assert tables.engines["num_blocks"][0] * 16 * 131072 == pytest.approx(memory_bytes, rel=1e-3)


def test_a_run_without_groups_has_no_table_of_them() -> None:
    assert run(s.llm()).device_groups is None


@pytest.mark.parametrize(
    ("engine", "key", "words"),
    [
        (s.llm(placement={"gpu": 1, "cpu": 1}), "placement", "needs operators_on"),
        (s.llm(**ON_CPU, operators_on={"linear": "gpu", "attention": "cpus"}), "operators_on.attention", "cpus"),
        (s.llm(**ON_CPU, operators_on={"linear": "gpu"}), "placement.cpu", "nothing to do"),
        (
            s.llm(placement={"gpu": 2, "cpu": 1}, operators_on={"linear": "gpu", "attention": "cpu"}),
            "parallel.tp", "needs tp 2",
        ),
        (
            s.llm(**ON_CPU, operators_on={"linear": "gpu", "rest": "cpu", "interleave_sub_batches": True}),
            "operators_on", "on a group that has nothing else",
        ),
        (
            s.llm(**ON_CPU, model="llama_3_70b", operators_on={"linear": "gpu", "attention": "cpu"}),
            "model", "does not fit on 'gpu'",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(engine: s.Document, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_scenario(s.cluster(engine), BUSY)
    found = [(problem.key, problem.message) for problem in refused.value.problems]
    assert any(path.endswith(key) and words in message for path, message in found), found


def test_a_model_that_does_not_stay_in_the_array_is_refused() -> None:
    cluster = s.cluster(s.llm(placement={"cim": 1}))
    cluster["nodes"][0]["devices"]["cim"] = {"profile": "dcim_3nm", "count": 1}
    with pytest.raises(ConfigError, match="does not stay in the array"):
        load_scenario(cluster, BUSY)
