"""The shipped architectures: parameter counts and cache sizes equal to what their authors publish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hermes_sim.models.parameters import (
    kv_bytes_per_token,
    num_active_parameters,
    num_parameters,
    part_parameters,
    state_bytes_per_sequence,
    weight_bytes,
)
from hermes_sim.scenario.library import NotFound, find
from tests.unit.models.shipped_models import FOLDER, models

ROUNDED: dict[str, float] = {
    # Figures published rounded, or of something slightly different: relative tolerance.
    "deepseek_r1": 1e-3,
    "deepseek_v3_1_nvfp4": 1e-3,
    "deepseek_v3_2": 2e-3,  # the figure of V3, without the indexer
    "deepseek_v3_2_nvfp4": 2e-3,
    "falcon_180b": 1e-2,
    "glm_4_5": 0.007,
    "glm_4_5_air": 0.01,
    "glm_4_6": 0.007,
    "glm_5": 1e-3,
    "glm_5_2": 1e-3,
    "glm_5_2_fp8": 1e-3,
    "glm_5_2_nvfp4": 1e-3,
    "glm_5_fp8": 1e-3,
    "glm_5_nvfp4": 1e-3,
    "gpt3_175b": 0.003,
    "gpt_oss_120b": 5e-5,
    "gpt_oss_20b": 3e-4,
    "internlm_20b": 5e-3,
    "kimi_k2": 0.015,
    "kimi_k2_5": 1.5e-2,  # 1.04T in the paper, 1.03T in the checkpoint
    "kimi_k2_5_nvfp4": 1.5e-2,
    "llama_4_maverick": 0.002,
    "llama_4_maverick_fp8": 0.002,
    "llama_4_scout": 0.015,
    "llama_4_scout_fp8": 1.5e-2,  # 109B with the vision tower
    "mamba2_2_7b": 2e-3,
    "minimax_m2_5": 6e-3,
    "minimax_m2_5_nvfp4": 6e-3,
    "mixtral_8x22b": 3e-3,
    "opt_175b": 0.003,
    "opt_66b": 5e-3,
    "phi_mini_moe": 7e-3,
    "qwen3_5_397b_a17b": 2e-3,
    "qwen3_5_397b_a17b_fp8": 0.002,
    "qwen3_5_397b_a17b_nvfp4": 2e-3,
    "qwen3_next_80b_a3b": 0.005,
}

ACTIVE = {
    # Published active parameters; authors differ in whether they count the embedding table.
    "deepseek_r1": (37e9, 0.012),
    "deepseek_v2_lite": (2.4e9, 0.025),
    "glm_5": (40e9, 0.022),
    "gpt_oss_120b": (5.13e9, 0.01),
    "gpt_oss_20b": (3.61e9, 0.002),
    "kimi_k2_5": (32e9, 0.01),
    "minimax_m2_5": (10e9, 0.05),
    "mixtral_8x22b": (39e9, 0.002),
    "mixtral_8x7b": (12.9e9, 0.012),
    "glm_4_5": (32e9, 0.03),
    "kimi_k2": (32e9, 0.01),
    "phi_3_5_moe": (6.6e9, 0.02),
    "qwen3_235b_a22b": (22e9, 0.02),
    "qwen3_coder_480b_a35b": (35e9, 0.02),
    "qwen3_5_397b_a17b": (17e9, 0.04),
}


@pytest.mark.parametrize("name", sorted(models()))
def test_parameter_count_is_the_published_one(name: str) -> None:
    model = models()[name]
    assert model.published_num_parameters is not None
    assert num_parameters(model) == pytest.approx(model.published_num_parameters, rel=ROUNDED.get(name, 0.0), abs=0.0)


@pytest.mark.parametrize("name", sorted(ACTIVE))
def test_active_parameters_are_the_published_ones(name: str) -> None:
    published, tolerance = ACTIVE[name]
    assert num_active_parameters(models()[name]) == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "expected_bytes"),
    [
        ("llama_3_70b", 327_680),
        ("llama_3_8b", 131_072),
        ("llama_2_7b", 524_288),
        ("opt_13b", 800 * 1024),  # 800 KB: vLLM, arXiv 2309.06180, section 3
        ("deepseek_r1", 70_272),  # 70.272 KB: arXiv 2505.09343, table 1
        ("llama_3_1_405b", 516_096),  # 516.096 KB: same table
        ("mistral_7b", 131_072),
        ("mamba2_2_7b", 0),
        ("e5_base", 0),
    ],
)
def test_kv_bytes_per_token_are_the_published_ones(name: str, expected_bytes: int) -> None:
    assert kv_bytes_per_token(models()[name]) == expected_bytes


def test_sparse_indexer_adds_its_keys_to_the_cache() -> None:
    # 128 fp8 numbers and one fp32 scale in each of 61 layers.
    extra = kv_bytes_per_token(models()["deepseek_v3_2"]) - kv_bytes_per_token(models()["deepseek_r1"])
    assert extra == 61 * 132


@pytest.mark.parametrize(("name", "checkpoint_gib"), [("gpt_oss_120b", 60.8), ("gpt_oss_20b", 12.8)])
def test_weight_bytes_are_the_published_checkpoint_size(name: str, checkpoint_gib: float) -> None:
    """arXiv 2508.10925, table 1."""
    assert weight_bytes(models()[name]) / 2**30 == pytest.approx(checkpoint_gib, abs=0.05)


def test_mamba2_state_by_hand() -> None:
    # 64 layers: 80 heads x 64 x 128 states in fp32, and 3 columns of (5120 + 2 x 128) channels in bf16.
    assert state_bytes_per_sequence(models()["mamba2_2_7b"]) == 64 * (80 * 64 * 128 * 4 + 3 * 5376 * 2)


def test_parts_of_llama_3_70b_by_hand() -> None:
    parts = part_parameters(models()["llama_3_70b"])
    assert parts["embedding"] == parts["lm_head"] == 128256 * 8192
    assert parts["attention"] == 80 * 8192 * (8192 + 2 * 1024 + 8192)
    assert parts["mlp"] == 80 * 3 * 8192 * 28672
    assert parts["other"] == (2 * 80 + 1) * 8192
    assert parts["experts"] == parts["router"] == parts["state_space"] == 0


@pytest.mark.parametrize("name", sorted(models()))
def test_file_is_whole(name: str) -> None:
    model = models()[name]
    assert model.name == name
    assert model.hugging_face_ids
    assert {"architecture", "published_num_parameters"} <= set(model.sources)
    if model.quantization is not None and model.quantization.method == "modelopt":
        assert "quantization" in model.sources or "fp8" in name


def test_names_ids_and_aliases_name_one_model_each() -> None:
    owner: dict[str, str] = {}
    for name, model in models().items():
        for word in {name, *model.hugging_face_ids, *model.aliases}:
            assert owner.setdefault(word.lower(), name) == name, word


def test_no_two_files_describe_the_same_network() -> None:
    """Quantisation and longest sequence included; names, ids and sources left aside."""
    described: dict[str, str] = {}
    for name, model in models().items():
        shape = model.model_dump_json(exclude={"name", "title", "hugging_face_ids", "aliases", "sources"})
        assert described.setdefault(shape, name) == name


@pytest.mark.data
def test_every_measured_architecture_is_shipped(data_folder) -> None:  # type: ignore[no-untyped-def]
    """Each id of the shape table resolves to a model of that shape."""
    import json

    known = {
        word.lower(): model
        for model in models().values()
        for word in (model.name, *model.hugging_face_ids, *model.aliases)
    }
    table = json.loads((data_folder / "models" / "architectures.json").read_text())
    for name, shape in table.items():
        model = known[name.lower()]
        assert model.hidden_size == shape["hidden_size"], name
        assert model.num_heads == shape["num_attention_heads"], name
        assert model.num_kv_heads == shape["num_key_value_heads"], name
        if "num_hidden_layers" in shape:
            assert model.num_layers == shape["num_hidden_layers"], name
            assert model.vocab_size == shape["vocab_size"], name
            assert model.max_model_len == shape["max_position_embeddings"], name
            method = shape.get("quantization", {}).get("quant_method")
            assert method is None or (model.quantization and model.quantization.method == method), name


def test_library_folder_holds_only_models() -> None:
    assert {path.suffix for path in FOLDER.iterdir()} == {".yaml"}


@pytest.mark.data
def test_every_model_that_the_measured_data_name_is_known(data_folder: Path) -> None:
    """By the table of shapes and by the columns of the serving tables."""
    import pandas as pd

    named = set(json.loads((data_folder / "models" / "architectures.json").read_text(encoding="utf-8")))
    for path in sorted((data_folder / "serving").rglob("*.csv*")):
        table = pd.read_csv(path)
        for column in {"model", "model_path"} & set(table.columns):
            named |= set(table[column].dropna().astype(str))
    assert len(named) > 50
    assert [name for name in sorted(named) if not _is_known(name)] == []


def _is_known(name: str) -> bool:
    try:
        return find("model", name).is_file()
    except NotFound:
        return False
