"""Guards and work on text: units, verdicts, and the time of a lone job."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.models.parameters import weight_bytes
from hermes_sim.perf.job_cost import operator_seconds
from hermes_sim.scenario.load import load_scenario
from hermes_sim.sim.collect import collect
from hermes_sim.sim.coordinator import Coordinator
from hermes_sim.sim.fill_engines import job_worker
from hermes_sim.sim.lower import lower
from hermes_sim.stages.guard import Guard
from hermes_sim.stages.text import Detokenize, Filter, TextStage, Tokenize
from hermes_sim.workload.requests import request_table
from tests import scenarios as s
from tests.stage_examples import MODELS

REQUESTS = request_table([0.0, 1.0], [100, 0], [40, 5000])


class TestGuard:
    def test_units_are_what_it_reads(self) -> None:
        units = {
            reads: Guard(name="g", model="llama_3_8b", reads=reads, num_instruction_tokens=200).units_of(REQUESTS, 1)
            for reads in ("prompt", "answer", "both")
        }
        assert {reads: found.tolist() for reads, found in units.items()} == {
            "prompt": [300, 200], "answer": [240, 5200], "both": [340, 5200],
        }  # fmt: skip
        cut = Guard(name="g", model="llama_3_8b", reads="answer", max_num_tokens=1000)
        assert cut.units_of(REQUESTS, 1).tolist() == [40, 1000]

    def test_a_language_model_gives_its_first_token(self) -> None:
        """2 FLOPs a matrix weight and token, causal attention, logits of one token a job."""
        operators = Guard(name="g", model="llama_3_8b").work(600.0, 300.0, MODELS)
        gemms = sum(one.total_flops for one in operators if one.kind == "gemm")
        layers = 32 * (4096 * (4096 + 2048) + 4096 * 4096 + 3 * 4096 * 14336)
        assert gemms == 2.0 * 600 * layers + 2.0 * 2 * 128256 * 4096
        encoder = Guard(name="g", model="bge_reranker_base").work(600.0, 300.0, MODELS)
        assert {one.name for one in operators} - {one.name for one in encoder} >= {"logits", "sampler"}
        assert Guard(name="g", model="llama_3_8b").resident_bytes(MODELS) == weight_bytes(MODELS["llama_3_8b"])

    def test_outcomes_follow_from_the_chance(self) -> None:
        assert Guard(name="g", model="m", refuse_frac=0.25).outcomes == {"pass": 0.75, "refuse": 0.25}
        assert Guard(name="g", model="m").outcomes == {"pass": 1.0}
        with pytest.raises(ValidationError, match="outcomes follow from refuse_frac"):
            Guard.model_validate({"name": "g", "model": "m", "outcomes": {"a": 1, "b": 2}})
        with pytest.raises(ValidationError, match="refuse_frac"):
            Guard.model_validate({"name": "g", "model": "m", "refuse_frac": 1.5})

    def test_refused_requests_skip_what_waits_for_the_verdict(self) -> None:
        guard = {"name": "guard", "kind": "guard", "model": "e5_base", "refuse_frac": 0.3}
        stages = [guard, {**s.PREFILL, "after": ["guard"], "when": "guard.pass"}, s.DECODE]
        scenario = load_scenario(s.cluster(s.llm(), s.workers(["guard"])), s.workload(*stages))
        number = 400
        coordinator = Coordinator(lower(scenario, request_table(np.arange(number) / 10, [50] * number, [4] * number)))
        coordinator.run()
        tables = collect(coordinator)
        refused = tables.requests["num_refusals"] == 1
        assert abs(refused.mean() - 0.3) < 5 * np.sqrt(0.21 / number)
        assert set(tables.requests["status"]) == {"finished"}
        assert (tables.requests["num_output_tokens"][refused] == 0).all()
        assert (tables.requests["num_output_tokens"][~refused] == 4).all()
        of_guard = tables.visits["kind"] == "guard"
        np.testing.assert_array_equal(
            tables.requests["finish_s"][refused], tables.visits["finish_s"][of_guard][refused]
        )


class TestText:
    def test_units(self) -> None:
        assert Tokenize(name="t").units_of(REQUESTS, 1).tolist() == [100, 1]
        assert Detokenize(name="t").units_of(REQUESTS, 1).tolist() == [40, 5000]
        read = Filter.model_validate({"name": "f", "rate_per_core": "100 MB/s", "bytes_per_token": 5})
        assert read.units_of(REQUESTS, 1).tolist() == [200, 25_000]
        assert read.most_units(REQUESTS, 1) == 25_000

    @pytest.mark.parametrize(
        ("stage", "units", "core_s"),
        [
            (Tokenize(name="t", tokens_per_s_per_core=1e6), 1000.0, 1e-3),
            (Detokenize(name="t", tokens_per_s_per_core=2e6), 1000.0, 5e-4),
            (Filter.model_validate({"name": "f", "rate_per_core": "10 MB/s"}), 1000.0, 1e-4),
        ],
    )
    def test_a_job_is_on_one_core_and_a_batch_on_several(self, stage: TextStage, units: float, core_s: float) -> None:
        scenario = load_scenario(s.cluster(s.llm(), s.workers([stage.kind], cores=4)), s.workload())  # type: ignore[attr-defined]
        worker = job_worker(lower(scenario, REQUESTS).replicas[1], scenario)
        for num_jobs, num_cores in ((1, 1), (3, 3), (16, 4)):
            (operator,) = stage.work(num_jobs * units, units, {})
            assert operator_seconds(operator, worker)[1] == pytest.approx(num_jobs * core_s / num_cores)
