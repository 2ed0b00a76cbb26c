"""Named engines: each fills in what the file leaves open, is checked, documented and shown."""

from __future__ import annotations

from typing import Any

import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.core.units import parse_quantity
from hermes_sim.scenario.cluster import Engine
from hermes_sim.scenario.describe import definition, list_names, show
from hermes_sim.scenario.engine_presets import ENGINE_PRESETS
from hermes_sim.scenario.load import dump_scenario, load_scenario, read_scenario
from hermes_sim.scenario.preset_page import preset_markdown
from hermes_sim.scenario.yaml_reader import parse_document
from tests.conftest import REPOSITORY
from tests.unit.scenario.files import Folder

BATCHING = "batching: {kind: chunked_prefill, max_num_seqs: 256, max_num_batched_tokens: 2048}"
PLAIN: dict[str, Any] = {"name": "llm", "serves": ["prefill", "decode"], "placement": {"gpu": 1}}


def resolved(**keys: Any) -> Engine:
    return Engine.model_validate({**PLAIN, **keys})


def written(engine: Engine, path: str) -> Any:
    """The value of `batching.kind` as a file writes it."""
    section, key = path.split(".")
    return engine.model_dump(mode="json", by_alias=True)[section][key]


def same(found: Any, stated: Any) -> bool:
    """Times may be written in other units; a mapping states some of its keys."""
    if isinstance(stated, dict):
        return all(same(found[key], value) for key, value in stated.items())
    if isinstance(stated, str) and stated.endswith((" us", " ms")):
        return parse_quantity(found, "time") == pytest.approx(parse_quantity(stated, "time"))
    return bool(found == stated)


def test_the_named_engines() -> None:
    assert list(ENGINE_PRESETS) == ["vllm_v1", "vllm_v0", "sglang", "trtllm", "orca", "distserve", "vllm_0_2"]


@pytest.mark.parametrize("name", ENGINE_PRESETS)
def test_a_preset_is_what_its_table_says(name: str) -> None:
    """Every value is valid, has a source, and arrives in the engine."""
    engine = resolved(engine_preset=name)
    values = ENGINE_PRESETS[name].values
    for path, default in values.items():
        assert len(default.where) > 5, path
        expected = f"{float(default.value.split()[0]) * 2**30} B" if path == "kv_cache.swap_space" else default.value
        assert same(written(engine, path), expected), path
    untouched = resolved()
    for path in ("kv_cache.activation_reserve", "kv_cache.dtype"):
        assert path not in values
        assert written(engine, path) == written(untouched, path)


@pytest.mark.parametrize("name", ENGINE_PRESETS)
def test_a_preset_serves(name: str, folder: Folder) -> None:
    """On real hardware, through all checks, and again from the saved scenario."""
    scenario = folder.load((BATCHING, f"engine_preset: {name}"))
    assert scenario.cluster.engines[0].engine_preset == name
    path = folder.write("scenario.yaml", dump_scenario(scenario))
    assert read_scenario(path) == scenario


def test_what_the_file_states_wins() -> None:
    engine = resolved(engine_preset="sglang", batching={"max_num_seqs": 64}, kv_cache={"block_tokens": 16})
    assert written(engine, "batching.max_num_seqs") == 64
    assert written(engine, "batching.kind") == "prefill_first"
    assert written(engine, "kv_cache.block_tokens") == 16
    assert written(engine, "kv_cache.prefix_cache") == "radix"


def test_another_policy_does_not_inherit_options_it_does_not_have() -> None:
    """chunk_prompts is prefill_first's; SGLang's other ways stay."""
    engine = resolved(engine_preset="sglang", batching={"kind": "chunked_prefill"})
    batching = engine.model_dump()["batching"]
    assert "chunk_prompts" not in batching
    assert batching["victim"] == "fewest_generated"


@pytest.mark.parametrize(
    "keys",
    [
        {"parallel": {"pp": 2}},
        {"speculative": {"num_draft_tokens": 3, "acceptance": {"kind": "constant", "rate": 0.7},
                         "draft": {"kind": "ngram"}}},
    ],
)  # fmt: skip
def test_async_scheduling_gives_way_to_a_pipeline_and_to_drafts(keys: dict[str, Any]) -> None:
    assert written(resolved(engine_preset="vllm_v1"), "batching.async_scheduling") is True
    assert written(resolved(engine_preset="vllm_v1", **keys), "batching.async_scheduling") is False
    stated = resolved(engine_preset="vllm_v1", batching={"async_scheduling": True}, **keys)
    assert written(stated, "batching.async_scheduling") is True, "what the file states is checked, not changed"


def test_an_unknown_preset_has_a_near_match(folder: Folder) -> None:
    assert folder.problems(("replicas: 2", "engine_preset: vllm_1")) == [
        "cluster.yaml:13 engines[0].engine_preset: 'vllm_1' is not an engine preset (vllm_v1, vllm_v0, sglang, trtllm, "
        "orca, distserve, vllm_0_2). Did you mean 'vllm_v1'?"
    ]


def test_a_preset_is_for_engines_that_take_tokens(folder: Folder) -> None:
    assert folder.problems(("  - name: retriever", "  - name: retriever\n    engine_preset: orca")) == [
        "cluster.yaml:18 engines[1].engine_preset: is for engines that serve prefill or decode, this one serves embed, "
        "retrieve, rerank"
    ]


def test_a_saved_run_takes_no_preset(folder: Folder) -> None:
    path = folder.write("scenario.yaml", dump_scenario(folder.load()))
    with pytest.raises(ConfigError, match="a saved run states every key of its engines"):
        read_scenario(path, overrides=["cluster.engines.llm.engine_preset=orca"])
    assert load_scenario("cluster.yaml", "workload.yaml", overrides=["cluster.engines.llm.engine_preset=orca"])


def test_the_page_is_up_to_date() -> None:
    """Write it anew with `python -m hermes_sim.scenario.preset_page`."""
    assert (REPOSITORY / "docs" / "engine-presets.md").read_text(encoding="utf-8") == preset_markdown()


@pytest.mark.parametrize("name", ENGINE_PRESETS)
def test_a_preset_is_shown_as_the_keys_of_an_engine(name: str) -> None:
    data = parse_document(show("preset", name), "shown").data
    assert Engine.model_validate({**PLAIN, **data}) == resolved(engine_preset=name).model_copy(
        update={"engine_preset": None}
    )
    assert (name, ENGINE_PRESETS[name].title, {}) in list_names("presets")
    assert definition(name) == f"engine preset: {ENGINE_PRESETS[name].title} (hermes-sim show preset/{name})"


def test_a_missing_preset_has_a_near_match_when_shown() -> None:
    with pytest.raises(ConfigError, match=r"'sg_lang' is not an engine preset .* Did you mean 'sglang'"):
        show("presets", "sg_lang")
