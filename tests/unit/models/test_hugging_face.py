"""config.json of every family reads as the shipped architecture; everything else is a clear ValueError."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes_sim.core.errors import ConfigError
from hermes_sim.models.architecture import ModelArchitecture
from hermes_sim.models.families import FAMILIES
from hermes_sim.models.hugging_face import from_config, import_model, snake_case, to_yaml
from hermes_sim.models.parameters import num_parameters
from tests.unit.models.config_examples import DEEPSEEK_V3, EXAMPLES, LLAMA_3_70B, MODELOPT_FP8
from tests.unit.models.shipped_models import models

NOT_OF_THE_CONFIG = {"name", "title", "hugging_face_ids", "aliases", "sources", "published_num_parameters"}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_config_reads_as_the_shipped_model(name: str) -> None:
    read = from_config(EXAMPLES[name], name)
    shipped = models()[name]
    assert read.model_dump(exclude=NOT_OF_THE_CONFIG) == shipped.model_dump(exclude=NOT_OF_THE_CONFIG)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Totals of the checkpoints on their model pages.
        ({"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 768}, 125_239_296),
        ({"model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
          "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 512,
          "do_layer_norm_before": False}, 331_196_416),
        ({"model_type": "bloom", "hidden_size": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250880}, 559_214_592),
        ({"model_type": "RefinedWebModel", "hidden_size": 4544, "n_layer": 32, "n_head": 71, "multi_query": True,
          "parallel_attn": True, "vocab_size": 65024}, 6_921_720_704),
        ({"model_type": "RefinedWeb", "hidden_size": 8192, "n_layer": 60, "n_head": 128, "n_head_kv": 8,
          "vocab_size": 65024}, 41_303_293_952),
        ({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
          "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "vocab_size": 151936,
          "tie_word_embeddings": True}, 494_032_768),
        ({"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 1024, "intermediate_size": 4096,
          "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 30522, "max_position_embeddings": 512,
          "type_vocab_size": 2}, 335_141_888),
        ({"model_type": "internlm", "bias": True, "hidden_size": 4096, "intermediate_size": 11008,
          "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048, "vocab_size": 103168},
         7_321_948_160),
        ({"model_type": "t5", "d_ff": 4096, "d_kv": 64, "d_model": 1024, "num_heads": 16, "num_layers": 24,
          "vocab_size": 32128}, 737_668_096),
        ({"model_type": "t5", "d_ff": 2816, "d_kv": 64, "d_model": 1024, "num_heads": 16, "num_layers": 24,
          "num_decoder_layers": 24, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
          "vocab_size": 32128}, 783_150_080),
        ({"model_type": "bart", "d_model": 1024, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
          "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "encoder_layers": 12,
          "max_position_embeddings": 1024, "vocab_size": 50265}, 406_291_456),
        ({"model_type": "mbart", "d_model": 1024, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
          "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "encoder_layers": 12,
          "max_position_embeddings": 1024, "vocab_size": 250054}, 610_879_488),
        ({"model_type": "gemma2", "head_dim": 128, "hidden_size": 4608, "intermediate_size": 36864,
          "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 46,
          "num_key_value_heads": 16, "vocab_size": 256000}, 27_227_128_320),
    ],
)  # fmt: skip
def test_parameter_count_of_models_that_are_not_shipped(config: dict[str, Any], expected: int) -> None:
    assert num_parameters(from_config(config, "imported")) == expected


def test_both_spellings_of_mamba2_are_one_model() -> None:
    original = {
        "d_model": 2560,
        "n_layer": 64,
        "pad_vocab_size_multiple": 16,
        "ssm_cfg": {"layer": "Mamba2"},
        "tie_embeddings": True,
        "vocab_size": 50277,
    }
    assert from_config(original, "m").model_dump() == from_config(EXAMPLES["mamba2_2_7b"], "m").model_dump()


def test_qwen2_window_starts_after_max_window_layers() -> None:
    config = {**EXAMPLES["qwen2_5_7b"], "use_sliding_window": True, "max_window_layers": 21, "sliding_window": 4096}
    model = from_config(config, "m")
    assert (model.sliding_window, model.num_sliding_layers, model.num_full_attention_layers) == (4096, 7, 21)


def test_llama4_interleaves_dense_layers() -> None:
    text = {**EXAMPLES["llama_4_scout_fp8"]["text_config"], "interleave_moe_layer_step": 2, "num_local_experts": 128}
    model = from_config(text, "maverick")
    assert (model.num_moe_layers, model.num_dense_layers) == (24, 24)
    # Maverick: 400B in all with its vision tower, 17B active.
    assert num_parameters(model) == pytest.approx(400e9, rel=0.01)


def test_indexers_are_counted_by_their_layers() -> None:
    types = ["full", "shared", "shared"]
    config = {**EXAMPLES["deepseek_v3_2"], "num_hidden_layers": 3, "indexer_types": types}
    mla = from_config(config, "m").mla
    assert mla is not None
    assert mla.indexer is not None
    assert mla.indexer.num_layers == 1


def test_unknown_family_names_the_families_and_the_near_match() -> None:
    with pytest.raises(ValueError, match=r"'qwen3_mo' is not a model family") as caught:
        from_config({**LLAMA_3_70B, "model_type": "qwen3_mo"}, "m")
    assert "Did you mean 'qwen3_moe'?" in str(caught.value)
    assert all(family in str(caught.value) for family in FAMILIES)


@pytest.mark.parametrize("missing", ["hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"])
def test_missing_key_is_named(missing: str) -> None:
    config = {key: value for key, value in LLAMA_3_70B.items() if key != missing}
    with pytest.raises(ValueError, match=f"config.json of family 'llama' has no '{missing}'"):
        from_config(config, "m")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": None},
        {"ssm_cfg": {"layer": "Mamba1"}, "d_model": 8},
        {**LLAMA_3_70B, "hidden_size": "wide"},
        {**LLAMA_3_70B, "num_hidden_layers": [80]},
        {**LLAMA_3_70B, "num_hidden_layers": -1},
        {**LLAMA_3_70B, "torch_dtype": "int3"},
        {**DEEPSEEK_V3, "moe_layer_freq": 2},
        {**EXAMPLES["qwen3_30b_a3b"], "mlp_only_layers": [3]},
        {**EXAMPLES["mamba2_2_7b"], "use_bias": True},
    ],
)
def test_malformed_config_is_a_value_error(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_config(config, "m")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_mutated_config_is_a_model_or_a_value_error(name: str, data: st.DataObject) -> None:
    config = copy.deepcopy(EXAMPLES[name])
    level = config
    for inner in ("text_config", "quantization_config"):
        if isinstance(level.get(inner), dict) and data.draw(st.booleans()):
            level = level[inner]
    key = data.draw(st.sampled_from(sorted(level)))
    anything = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.just("re:(")
    level[key] = data.draw(anything | st.lists(anything, max_size=2) | st.dictionaries(st.text(max_size=3), anything))
    with contextlib.suppress(ValueError):
        assert num_parameters(from_config(config, "m")) > 0


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_yaml_of_an_import_loads_as_the_same_model(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "Some-Model-1.5B"
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(EXAMPLES[name]))
    read = ModelArchitecture.model_validate(yaml.safe_load(import_model(path)))
    assert read == from_config(EXAMPLES[name], "some_model_1_5b")


def test_import_takes_its_name_and_ids_from_the_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA_3_70B, "_name_or_path": "meta-llama/Meta-Llama-3-70B"}))
    data = yaml.safe_load(import_model(path))
    assert data["name"] == "meta_llama_3_70b"
    assert data["hugging_face_ids"] == ["meta-llama/Meta-Llama-3-70B"]
    assert yaml.safe_load(import_model(path, "mine"))["name"] == "mine"


def test_import_reads_the_modelopt_file_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3_70B))
    quantization = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"producer": {}, "quantization": quantization}))
    data = yaml.safe_load(import_model(tmp_path / "config.json", "m"))
    expected = from_config({**LLAMA_3_70B, "quantization_config": MODELOPT_FP8}, "m").quantization
    assert expected is not None
    assert data["quantization"]["parts"] == list(expected.parts) == ["attention", "mlp"]
    assert data["kv_dtype"] == "fp8"


def test_import_of_something_else_is_an_error_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, message in (
        ("not json", "config.json is not JSON"),
        ("[1]", "holds no JSON object"),
        ('{"model_type": "gpt2"}', "'gpt2' is not a model family"),
        (json.dumps({**LLAMA_3_70B, "num_hidden_layers": -1}), "num_layers: Input should be greater than"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            import_model(path)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read: No such file"):
        import_model(tmp_path / "none.json")


def test_snake_case() -> None:
    assert snake_case("Meta-Llama-3.1-70B") == "meta_llama_3_1_70b"


@pytest.mark.parametrize("name", sorted(models()))
def test_shipped_file_is_what_to_yaml_writes(name: str) -> None:
    model = models()[name]
    assert ModelArchitecture.model_validate(yaml.safe_load(to_yaml(model))) == model
