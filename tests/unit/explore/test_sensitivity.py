"""What would help, measured: the resource that was built in comes first; knobs cover a device, each key once."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hermes_sim import HermesError, Results, explain, simulate
from hermes_sim.cli import app
from hermes_sim.explore.explain.knobs import Knob, knobs_of
from hermes_sim.explore.explain.rates import exponent, sped_up
from hermes_sim.explore.explain.sensitivity import Latencies, effect_on, latencies_of, measure_sensitivities
from hermes_sim.explore.explain.sensitivity_text import sensitivities_text
from hermes_sim.explore.explain.turns import (
    DEVICE_KEYS,
    MORE,
    fits,
    turn_device,
    turn_host,
    turn_kv,
    turn_link,
    turn_replicas,
)
from hermes_sim.explore.workers.workers import InProcess
from hermes_sim.hardware.device import Device
from hermes_sim.scenario.load import load_scenario
from tests import scenarios as s
from tests.built_in import CASES

RIVALS = ("compute of", "memory bandwidth of", "replicas of")
"""Held against the knob that should win; the other ones turn fixed times."""


@pytest.mark.parametrize("name", CASES)
def test_what_was_built_in_is_named_and_helps_most(name: str) -> None:
    """In words from the tables of the run alone, and by running it again."""
    case = CASES[name]
    results = simulate(case.cluster, case.workload)
    said = results.explain()
    assert said.bottleneck is not None, said
    assert (said.bottleneck.owner, said.bottleneck.resource) == (case.owner, case.resource), said
    assert f"bottleneck {case.words}" in " ".join(str(said).split())

    def chosen(knob: Knob) -> bool:
        return knob.name.startswith((case.knob, *RIVALS))

    found = measure_sensitivities(results, found=said, workers=InProcess(), only=chosen)
    assert len(found.tried) >= 2
    assert found.top is not None, found
    assert found.top.name.startswith(case.knob), sensitivities_text(found)
    assert found.top.elasticity("e2e") < -0.3
    assert found.top.effects["e2e"].significant
    assert max(len(line) for line in sensitivities_text(found).splitlines()) <= 80


class TestEffect:
    """The interval is that of a ratio of means."""

    def test_all_a_tenth_faster_is_certain(self) -> None:
        before_s = np.random.default_rng(1).lognormal(0.0, 1.5, 200)
        effect = effect_on(before_s, before_s / MORE)
        assert effect.frac == pytest.approx(1.0 / MORE - 1.0)
        assert effect.half_width_95 == pytest.approx(0.0, abs=1e-12)
        assert effect.significant

    def test_chance_is_not_taken_for_an_effect(self) -> None:
        """Independent noise of mean zero on each request: about 19 in 20 of the intervals hold zero."""
        draw = np.random.default_rng(2)
        inside = 0
        for _ in range(200):
            before_s = draw.lognormal(0.0, 0.5, 300)
            effect = effect_on(before_s, before_s + draw.normal(0.0, 0.1, 300))
            inside += not effect.significant
        assert inside >= 180

    def test_nothing_changed(self) -> None:
        same = np.array([1.0, 2.0, 3.0])
        effect = effect_on(same, same)
        assert (effect.change, effect.half_width_95, effect.significant) == (0.0, 0.0, False)

    def test_few_requests_leave_it_open(self) -> None:
        effect = effect_on(np.array([1.0, 2.0]), np.array([0.5, 1.9]))
        assert math.isnan(effect.half_width_95)
        assert effect.significant is None


def paths_of(device: Device) -> list[str]:
    """Keys that hold a rate or a time."""
    found: list[str] = []

    def note(path: str) -> bool:
        found.append(path)
        return False

    sped_up(device, MORE, note)
    return found


def test_every_rate_and_time_of_a_device_belongs_to_one_knob() -> None:
    seen: Counter[str] = Counter()
    for profile in ("a100_sxm_80gb", "epyc_7742", "tpu_v6e", "dcim_3nm", "analog_cim_3d", "pim_hbm"):
        try:
            device = device_of(profile)
        except HermesError:
            continue
        seen[device.kind] += 1
        for path in paths_of(device):
            owners = [name for name, is_chosen in DEVICE_KEYS.items() if is_chosen(path)]
            assert len(owners) == 1, (profile, path, owners)
    assert {"gpu", "cpu", "tpu", "cim"} <= set(seen)


def device_of(profile: str) -> Device:
    document = s.cluster(s.llm())
    document["nodes"][0]["devices"]["spare"] = {"profile": profile, "count": 1}
    return load_scenario(document, s.workload()).devices[profile]


def test_units_tell_rates_from_times() -> None:
    assert [exponent(name) for name in ("bandwidth_bytes_per_s", "clock_hz", "scan_rate_bytes_per_s_per_core")] == [
        1
    ] * 3
    assert [exponent(name) for name in ("launch_s", "per_sequence_s", "row_s_per_byte")] == [-1] * 3
    assert [
        exponent(name) for name in ("memory_frac", "num_cores", "tdp_w", "price_usd_per_h", "energy_per_bit_j")
    ] == [0] * 5


@pytest.fixture(scope="module")
def calm() -> Results:
    return simulate(s.cluster(s.llm()), s.workload(traffic=s.traffic(rate="1 /s", num_requests=20, output=20)))


@pytest.fixture(scope="module")
def folder(calm: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calm.save(tmp_path_factory.mktemp("run") / "one")


def test_elasticities_of_a_lone_request_add_up_to_minus_one() -> None:
    """Time is homogeneous of degree -1 in all rates and inverse fixed times (Euler); 10% steps are off by a few percent
    where two resources limit together."""
    engine = s.llm(placement={"gpu": 2}, parallel={"tp": 2}, host={"per_step": "2 ms", "graph_capture": False})
    lone = {
        "arrivals": {"kind": "constant", "rate": "1 /s"}, "num_requests": 1,
        "lengths": {"kind": "fixed", "num_prompt_tokens": 2000, "num_output_tokens": 20},
    }  # fmt: skip
    scenario = load_scenario(s.cluster(engine), s.workload(traffic=lone))
    turns = [partial(turn_device, "a100_sxm_80gb", keys) for keys in ("memory", "compute", "kernels")]
    turns += [partial(turn_link, "nvlink3", keys) for keys in ("bandwidth", "latency")]
    turns.append(partial(turn_host, "llm", ("a100_sxm_80gb",)))
    before, *after = (latencies_of(one) for one in (scenario, *(turn(scenario) for turn in turns)))
    assert isinstance(before, Latencies)
    total = 0.0
    for one in after:
        assert isinstance(one, Latencies)
        elasticity = math.log(one.seconds["e2e"][0] / before.seconds["e2e"][0]) / math.log(MORE)
        assert elasticity <= 0.0, "faster parts never make a lone request slower"
        total += elasticity
    assert total == pytest.approx(-1.0, abs=0.05)


class TestKnobs:
    """What may matter is turned, the others are named."""

    def test_what_nobody_waits_for_is_not_tried(self, calm: Results) -> None:
        knobs, left_out = knobs_of(calm, calm.explain())
        names = {knob.name for knob in knobs}
        assert "memory bandwidth of a100_sxm_80gb" in names
        why = {one.name: one.why for one in left_out}
        assert why["max_num_seqs of llm"] == "the batch was never full"
        assert why["nvlink3 (nvlink)"] == "less than 1% of the time"
        assert not names & set(why)

    def test_more_blocks_than_there_are_now(self, calm: Results) -> None:
        turned = turn_kv("llm", 77, calm.scenario)
        assert turned.cluster.engines[0].kv_cache.num_gpu_blocks == 77
        assert calm.scenario.cluster.engines[0].kv_cache.num_gpu_blocks is None

    def test_a_replica_more_takes_a_node_more_where_all_are_full(self) -> None:
        full = simulate(
            s.cluster(s.llm(), num_gpus=1), s.workload(traffic=s.traffic(rate="1 /s", num_requests=5, output=5))
        )
        knobs, _ = knobs_of(full, full.explain())
        knob = next(one for one in knobs if one.resource == "replicas")
        turned = knob.turn(full.scenario)
        assert (turned.cluster.engines[0].replicas, turned.cluster.nodes[0].count) == (2, 2)
        assert knob.amount == 2.0
        assert not fits(turn_replicas("llm", 2, 0, full.scenario))

    def test_the_same_whatever_the_number_of_processes(self, calm: Results) -> None:
        def chosen(knob: Knob) -> bool:
            return knob.resource in ("compute", "memory")

        one, two = (measure_sensitivities(calm, jobs=jobs, only=chosen) for jobs in (1, 2))
        assert [(each.name, each.effects["e2e"].change) for each in one.tried] == [
            (each.name, each.effects["e2e"].change) for each in two.tried
        ]


class TestCommand:
    """`hermes-sim explain RUN`."""

    def test_a_saved_run_says_what_it_said(self, folder: Path) -> None:
        done = CliRunner().invoke(app, ["explain", str(folder), "--no-sensitivities"])
        assert done.exit_code == 0
        assert done.stdout.rstrip() == str(Results.load(folder).explain())

    def test_json_has_it_all(self, folder: Path) -> None:
        done = CliRunner().invoke(app, ["explain", str(folder), "--request", "3", "--json"])
        record = json.loads(done.stdout)
        assert set(record) == {"request"}
        assert sum(part for one in record["request"]["segments"] for part in one["parts"].values()) == pytest.approx(
            record["request"]["e2e_s"]
        )

    def test_sensitivities_by_default(self, folder: Path) -> None:
        record = explain(folder, jobs=1).as_record()
        assert record["helps_most"] == record["sensitivities"]["tried"][0]["name"]
        assert record["run"]["limits"][0]["resource"] == "memory"
        assert -1.0 < record["sensitivities"]["tried"][0]["elasticity"]["e2e"] < 0.0

    def test_no_run_no_request(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(HermesError, match="run"):
            explain(tmp_path)
        with pytest.raises(HermesError, match="no request 99"):
            explain(folder, request=99)
        with pytest.raises(HermesError, match="request 'fastest': a number, or slowest, or median"):
            explain(folder, request="fastest")

    def test_the_slowest_and_the_median(self, folder: Path, calm: Results) -> None:
        slowest, median = (explain(folder, request=name).request for name in ("slowest", "median"))
        assert slowest is not None
        assert median is not None
        assert slowest.e2e_s == calm.requests["e2e_s"].max()
        assert (slowest.median_request, slowest.median_e2e_s) == (median.request, median.e2e_s)
