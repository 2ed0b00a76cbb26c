"""What holds for every stage in the table, and what each kind states."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from hermes_sim.models.parameters import num_parameters, weight_bytes
from hermes_sim.stages import STAGES
from tests.stage_examples import EXAMPLES, IVF_PQ, MODELS, RETRIEVE, example

JOBS = [name for name in EXAMPLES if example(name).runs_on == "jobs"]
PROMPTS = np.array([0, 1, 100, 512, 5000])


def test_every_kind_has_an_example() -> None:
    assert {data["kind"] for data in EXAMPLES.values()} == set(STAGES)


@pytest.mark.parametrize("kind", sorted(STAGES))
def test_kind_is_the_key_in_the_table(kind: str) -> None:
    assert STAGES[kind].model_fields["kind"].default == kind


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_units_are_finite_and_never_fall_with_the_prompt(name: str) -> None:
    units = example(name).units(PROMPTS)
    assert units.shape == PROMPTS.shape
    assert units.dtype == np.float64
    assert np.isfinite(units).all()
    assert (units >= 0).all()
    assert (np.diff(units) >= 0).all()


@pytest.mark.parametrize("name", JOBS)
def test_work_is_never_negative_and_grows_with_units(name: str) -> None:
    stage = example(name)
    per_job = float(stage.units(np.array([100]))[0])
    if per_job == 0.0:
        assert stage.work(0.0, 1.0, MODELS) == ()
        return
    batches = [stage.work(per_job * jobs, per_job, MODELS) for jobs in (1, 2, 3, 7, 16)]
    assert all(operator.total_flops >= 0 and operator.total_bytes > 0 for batch in batches for operator in batch)
    # Bytes may shrink where a larger batch is one matrix product that reads the vectors once.
    for measure in ("total_flops",) if stage.kind == "retrieve" else ("total_flops", "total_bytes"):
        totals = [sum(getattr(operator, measure) for operator in batch) for batch in batches]
        assert totals == sorted(totals)
        if not any(operator.core_s for operator in batches[0]):  # else the time of a core is stated
            assert totals[0] > 0


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_description_survives_a_round_trip(name: str) -> None:
    stage = example(name)
    assert type(stage).model_validate(stage.model_dump(mode="json", by_alias=True)) == stage


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_models_named_are_those_the_work_needs(name: str) -> None:
    stage = example(name)
    needed = {model: MODELS[model] for model in stage.model_names()}
    stage.work(64.0, 64.0, needed)
    assert stage.resident_bytes(needed) >= 0.0


def test_embed_counts_the_tokens_of_the_query_or_of_the_prompt() -> None:
    assert example("embed").units(PROMPTS).tolist() == [64] * 5
    # An empty prompt still has a start token; a long one is truncated.
    assert example("embed_prompt").units(PROMPTS).tolist() == [1, 1, 100, 512, 512]


def test_encoder_weights_stay_in_memory() -> None:
    assert example("embed").resident_bytes(MODELS) == weight_bytes(MODELS["e5_base"])
    assert example("embed_prompt").resident_bytes(MODELS) == 2 * num_parameters(MODELS["e5_base"])


def test_retrieve_adds_its_documents_to_the_prompt() -> None:
    assert example("ivf_pq").added_prompt_tokens() == 8 * 256
    assert example("ivf_pq").units(PROMPTS).tolist() == [3] * 5
    assert {example(name).added_prompt_tokens() for name in EXAMPLES if EXAMPLES[name]["kind"] != "retrieve"} == {0}


def test_candidates_for_a_reranker_do_not_join_the_prompt() -> None:
    many = STAGES["retrieve"].model_validate({**RETRIEVE, "name": "r", "index": IVF_PQ, "num_candidates": 100})
    assert many.added_prompt_tokens() == 8 * 256
    few_bytes, many_bytes = (stage.work(1.0, 1.0, {})[-1].bytes for stage in (example("ivf_pq"), many))
    assert (few_bytes, many_bytes) == (8 * 12, 100 * 12)


def test_rerank_scores_every_candidate() -> None:
    assert example("rerank").units(PROMPTS).tolist() == [20 * 128] * 5
    operators = {operator.name: operator for operator in example("rerank").work(2560.0, 2560.0, MODELS)}
    assert operators["classifier"].m == 20


def test_a_number_of_vectors_may_be_written_with_an_exponent() -> None:
    stage = example("ivf_pq")
    assert stage.index.num_vectors == 100_000_000  # type: ignore[attr-defined]
    assert isinstance(stage.index.num_vectors, int)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "data",
    [
        {**RETRIEVE, "index": {**IVF_PQ, "kind": "ivfpq"}},
        {**RETRIEVE, "index": {**IVF_PQ, "nprobe": 100_000}},
        {**RETRIEVE, "index": {**IVF_PQ, "nlist": 1e9}},
        {**RETRIEVE, "index": {**IVF_PQ, "code_bytes": 100}},
        {**RETRIEVE, "index": {**IVF_PQ, "num_vectors": 1.5}},
        {**RETRIEVE, "index": {"kind": "hnsw", "num_vectors": 10, "dim": 8, "m": 1}},
        {**RETRIEVE, "index": IVF_PQ, "top_k": 0},
        {"kind": "embed", "model": "e5_base", "num_token": 3},
        {"kind": "embed"},
        {"kind": "timed", "service_time": {"kind": "exponential"}},
        {"kind": "timed", "service_time": {"kind": "uniform", "low": "2 s", "high": "1 s"}},
        {"kind": "timed", "service_time": {"kind": "fixed", "time": 3}},
        {"kind": "prefill", "after": "embed", "probability": 2},
    ],
)
def test_wrong_descriptions_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        STAGES[str(data["kind"])].model_validate({"name": "s", **data})


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True])
def test_a_decode_has_one_sample_or_more(num_samples: float) -> None:
    data = {"name": "decode", "kind": "decode", "num_samples": num_samples}
    with pytest.raises(ValidationError, match="num_samples"):
        STAGES["decode"].model_validate(data)
