"""Options of an engine that do not go together are refused, each with one sentence at the key to change."""

from __future__ import annotations

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.scenario.load import load_scenario
from tests.unit.scenario.files import Folder

PARALLEL = "parallel: {tp: 4}"
BATCHING = "batching: {kind: chunked_prefill, max_num_seqs: 256, max_num_batched_tokens: 2048}"
DRAFTS = "speculative: {num_draft_tokens: 3, acceptance: {kind: constant, rate: 0.7}, draft: {kind: ngram}}"


def batching(options: str) -> tuple[str, str]:
    return BATCHING, f"batching: {{{options}}}"


def parallel(options: str) -> tuple[str, str]:
    return PARALLEL, f"parallel: {{{options}}}"


def beside(line: str) -> tuple[str, str]:
    """One more line of the token engine."""
    return BATCHING, f"{BATCHING}\n    {line}"


REFUSED: list[tuple[list[tuple[str, str]], str]] = [
    (
        [parallel("tp: 1, pp: 2, dp: 2")],
        "cluster.yaml:15 engines[0].parallel.dp: DP attention has no pipeline: dp 2 needs pp 1, got 2",
    ),
    (
        [parallel("tp: 2, dp: 2"), batching("kind: static")],
        "cluster.yaml:15 engines[0].parallel.dp: DP ranks step together, which a static batch does not: dp 2 needs "
        "another policy",
    ),
    (
        [("cpu: {devices: 2, cores: 96}}", "cpu: {devices: 2, cores: 96}}\n    parallel: {dp: 2}")],
        "cluster.yaml:20 engines[1].parallel.dp: DP attention is for engines that serve prefill or decode: needs dp 1, "
        "got 2",
    ),
    (
        [parallel("tp: 2, pp: 2"), batching("kind: chunked_prefill, async_scheduling: true")],
        "cluster.yaml:16 engines[0].batching.async_scheduling: a pipeline of 2 stages has 2 steps in flight already: "
        "needs pp 1, or async_scheduling: false",
    ),
    (
        [beside("kv_cache: {prefix_cache: radix}")],
        "cluster.yaml:17 engines[0].kv_cache.insert_at: a radix tree takes blocks when they are computed: "
        "prefix_cache: radix needs insert_at: step_end",
    ),
    (
        [parallel("tp: 2, pp: 2"), batching("kind: layered_prefill")],
        "cluster.yaml:15 engines[0].parallel.pp: prefill by groups of layers wants all layers on every device: needs "
        "pp 1, got 2",
    ),
    (
        [parallel("tp: 2, pp: 2"), beside(DRAFTS)],
        "cluster.yaml:17 engines[0].speculative: drafts wait for the step before them: needs pp 1, got 2",
    ),
    (
        [(BATCHING, "batching: {kind: chunked_prefill, async_scheduling: true}\n    " + DRAFTS)],
        "cluster.yaml:16 engines[0].batching.async_scheduling: how many drafts are accepted is known at the end of a "
        "step only: needs async_scheduling: false, or no speculative",
    ),
    *(
        (
            [(BATCHING, f"batching: {{kind: {kind}}}\n    {DRAFTS}")],
            f"cluster.yaml:17 engines[0].speculative: the policy '{kind}' has no drafts: leave speculative out, or "
            "take another policy",
        )
        for kind in ("static", "padded", "prepacked", "layered_prefill")
    ),
    (
        [("cpu: {devices: 2, cores: 96}}", f"cpu: {{devices: 2, cores: 96}}}}\n    {DRAFTS}")],
        "cluster.yaml:20 engines[1].speculative: is for engines that serve prefill or decode, this one serves embed, "
        "retrieve, rerank",
    ),
    (
        [parallel("tp: 2, pp: 2, layers_per_stage: [80]")],
        "cluster.yaml:15 engines[0].parallel.layers_per_stage: needs one entry for each of the 2 stages, got 1",
    ),
    (
        [parallel("tp: 2, pp: 2, layers_per_stage: [40, 39]")],
        "cluster.yaml:15 engines[0].parallel.layers_per_stage: makes 79 layers, llama_3_70b has 80",
    ),
    (
        [parallel("tp: 2, dp: 3")],
        "cluster.yaml:15 engines[0].parallel: tp 2 x pp 1 x dp 3 makes 6 devices, placement gives a replica 4 gpu",
    ),
    (
        [beside("experts: {kind: zipf}")],
        "cluster.yaml:17 engines[0].experts: llama_3_70b has no experts",
    ),
    (
        [("model: llama_3_70b", "model: mixtral_8x7b"), beside("experts: {kind: given, shares: [1, 2, 3]}")],
        "cluster.yaml:17 engines[0].experts.shares: needs one share for each of the 8 experts of mixtral_8x7b, got 3",
    ),
    (
        [("model: llama_3_70b", "model: mixtral_8x7b"), parallel("tp: 2, dp: 2, ep: 8")],
        "cluster.yaml:15 engines[0].parallel.ep: 8 does not divide tp x dp = 4 (1, 2, 4)",
    ),
    (
        [beside(DRAFTS.replace("kind: ngram", "kind: model, model: e5_base"))],
        "cluster.yaml:17 engines[0].speculative.draft.model: e5_base is an encoder: it drafts no tokens",
    ),
    (
        [beside(DRAFTS.replace("kind: ngram", "kind: model, model: llama_3_80b"))],
        "cluster.yaml:17 engines[0].speculative.draft.model: no model 'llama_3_80b' here or in the library. Did you "
        "mean 'llama_3_8b'? (hermes-sim list models)",
    ),
    (
        [beside(DRAFTS.replace("constant, rate: 0.7", "per_position, rates: [0.8, 0.6]"))],
        "cluster.yaml:17 engines[0].speculative: acceptance needs a rate for each of the 3 draft tokens, got 2",
    ),
    (
        [beside(DRAFTS.replace("kind: constant", "kind: constnt"))],
        "cluster.yaml:17 engines[0].speculative.acceptance.kind: 'constnt' is not a kind of acceptance (constant, "
        "per_position, trace). Did you mean 'constant'?",
    ),
]


@pytest.mark.parametrize(("changes", "problem"), REFUSED, ids=[problem.split(": ")[1][:60] for _, problem in REFUSED])
def test_refused(folder: Folder, changes: list[tuple[str, str]], problem: str) -> None:
    assert folder.problems(*changes) == [problem]


def test_dp_ranks_share_their_devices_with_nobody(folder: Folder) -> None:
    """Two engines on the cores of the same processors, one of them with DP ranks."""
    changes = [
        ("placement: {gpu: 4}", "placement: {cpu: {devices: 2, cores: 24}}"),
        ("model: llama_3_70b", "model: mixtral_8x7b"),
        ("replicas: 2", "node: dgx"),
        parallel("dp: 2"),
    ]
    expected = (
        "cluster.yaml:15 engines[0].parallel.dp: DP ranks step together and share no device: 'llm' shares some with "
        "'retriever'"
    )
    assert expected in folder.problems(*changes)


@pytest.mark.parametrize(
    "changes",
    [
        [parallel("tp: 2, dp: 2")],
        [("model: llama_3_70b", "model: mixtral_8x7b"), parallel("tp: 2, dp: 2, ep: 4"),
         beside("experts: {kind: zipf, exponent: 0.8}")],
        [parallel("tp: 2, pp: 2, layers_per_stage: [41, 39]")],
        [beside("kv_cache: {prefix_cache: radix, insert_at: step_end, swap_space: 8 GiB}")],
        [batching("kind: chunked_prefill, async_scheduling: true, preemption: swap, victim: fewest_generated")],
        [batching("kind: layered_prefill, layer_group_tokens: 256, queue_order: longest_prefix")],
        [beside(DRAFTS.replace("kind: ngram", "kind: model, model: llama_3_8b"))],
        [beside(DRAFTS.replace("constant, rate: 0.7", "trace, accepted: [0, 1, 3]"))],
        [beside("host: {tokenize: {per_request: 1 ms, num_workers: 2}, detokenize: {per_message: 20 us}, "
                "stream_interval: 4}")],
    ],
)  # fmt: skip
def test_taken(folder: Folder, changes: list[tuple[str, str]]) -> None:
    """What looks like the refused ones and is fine."""
    if changes == [parallel("tp: 2, dp: 2")]:
        changes = [*changes, ("model: llama_3_70b", "model: llama_3_8b")]
    assert folder.load(*changes)


@pytest.mark.parametrize("kind", ["chunked_prefill", "continuous", "decode_first", "mixed_pool", "layered_prefill"])
def test_an_encoder_wants_its_prompt_whole_and_alone(folder: Folder, kind: str) -> None:
    changes = [("model: llama_3_70b", "model: flan_t5_xxl"), batching(f"kind: {kind}")]
    (problem,) = folder.problems(*changes)
    assert problem.startswith(f"cluster.yaml:16 engines[0].batching.kind: '{kind}' mixes ")
    assert problem.endswith(
        "prompts, and flan_t5_xxl has an encoder that needs them whole and alone: take prefill_first, static, padded "
        "or prepacked"
    )
    folder.load(("model: llama_3_70b", "model: flan_t5_xxl"), batching("kind: prefill_first"))


def test_all_problems_of_an_engine_come_together(folder: Folder) -> None:
    folder.load()
    with pytest.raises(ConfigError) as caught:
        load_scenario(
            "cluster.yaml",
            "workload.yaml",
            overrides=[
                "cluster.engines.llm.parallel={tp: 1, pp: 2, dp: 2}",
                "cluster.engines.llm.batching.kind=static",
            ],
        )
    assert len(caught.value.problems) == 2
    assert str(caught.value.problems[0]).startswith("--set cluster.engines.llm.parallel={tp: 1, pp: 2, dp: 2}")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            [batching("queue_order: longest_prefix"), beside("kv_cache: {prefix_caching: false}")][::-1],
            "engine 'llm': queue_order longest_prefix finds no prefixes, prefix_caching is off: as fcfs",
        ),
        (
            [beside("kv_cache: {swap_space: 0 GiB}"), (BATCHING, BATCHING.replace("}", ", preemption: swap}"))],
            "engine 'llm': preemption swap has no swap_space: as recompute",
        ),
        (
            [parallel("tp: 2, dp: 2")],
            "engine 'llm': llama_3_70b has no experts that dp ranks would share, yet they step together; replicas "
            "would not wait for each other",
        ),
    ],
)
def test_what_has_no_effect_is_noted(folder: Folder, changes: list[tuple[str, str]], note: str) -> None:
    assert note in folder.load(*changes).notes
