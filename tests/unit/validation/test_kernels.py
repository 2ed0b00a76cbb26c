"""Measured kernels beside their predictions: every row is predicted or counted with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.measured import read_kernels
from hermes_sim.validation.accuracy import Accuracy, summed_up, validate_folder
from hermes_sim.validation.html_page import page
from hermes_sim.validation.kernel_predictors import known_devices, predict
from hermes_sim.validation.kernels import validate_kernels
from hermes_sim.validation.terminal import render
from tests.unit.measured.folders import attention_rows, gemm_rows, layer_rows, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two fitted devices, one without a file, a malformed row."""
    write(tmp_path, "kernels/h100_sxm_vllm_gemm.parquet", gemm_rows(8))
    write(tmp_path, "kernels/l40s_vllm_gemm.parquet", gemm_rows(8).assign(n=[2**i for i in range(5, 13)]))
    write(tmp_path, "kernels/quantum9_vllm_gemm.parquet", gemm_rows(3))
    write(tmp_path, "kernels/h100_sxm_vllm_context_attention.parquet", attention_rows(512, 0))
    layers = layer_rows().astype({"num_tokens": object})
    layers.loc[1, "num_tokens"] = "many"
    write(tmp_path, "kernels/mlp_a100.csv", layers)
    return tmp_path


@pytest.fixture
def accuracy(folder: Path) -> Accuracy:
    return validate_folder(folder, "kernels")


def test_rows_add_up(folder: Path) -> None:
    kernels = validate_kernels(folder)
    report = kernels.as_dict()
    present = sum(record["rows"] for record in report["tables"])
    assert present == kernels.tables.num_rows
    assert present == report["rows"]["predicted"] + sum(record["unexpressed"] for record in report["tables"])
    assert report["rows"]["malformed"] == 1
    by_operator = sum(record["num_rows"] for record in report["by_operator"])
    assert by_operator == report["rows"]["predicted"]
    assert any("quantum9" in record["reason"] and record["rows"] == 3 for record in report["unexpressed"])


def test_times_that_are_no_product_are_refused_with_the_reason() -> None:
    """Faster than the peaks allow by far, and a router whose time holds the choice of experts."""
    device = known_devices(["a100_sxm_80gb"])["a100_sxm_80gb"]
    table = pd.DataFrame(
        {
            "m": [4096, 4096, 64, 64], "n": [8192, 8192, 8, 8], "k": [8192, 8192, 4096, 4096], "dtype": "bf16",
            "engine": "vllm", "timing": "device", "part": ["qkv", "qkv", "router", "router"],
            "measured_s": [2e-6, 2.4e-3, 60e-6, 7e-6],
        }
    )  # fmt: skip
    found = predict("gemm", device, table)
    assert list(found.reason) == [
        "less than half the time that the peaks of the data sheet allow",
        "",
        "a router's whole layer, several times as long as its product",
        "",
    ]
    assert list(pd.isna(found.seconds)) == [True, False, True, False]


def test_graphs_of_one_product_are_predicted_with_warm_weights() -> None:
    device = known_devices(["l40s"])["l40s"]
    rows = {"m": 8, "n": 4096, "k": 1024, "dtype": "bf16", "engine": "vllm", "part": "", "measured_s": 1e-5}
    table = pd.DataFrame([rows | {"timing": timing} for timing in ("graph", "device")])
    graph_s, served_s = predict("gemm", device, table).seconds
    assert graph_s < 0.8 * served_s


def test_perfect_measurements_have_no_error(folder: Path) -> None:
    """What the model says, written down as measured, is predicted without error and without bias."""
    device = known_devices(["h100_sxm"])["h100_sxm"]
    table = read_kernels(folder, operators=["gemm"], devices=["h100_sxm"])["gemm"]
    seconds = predict("gemm", device, table).seconds
    rows = gemm_rows(8).assign(latency_ms=seconds * 1e3)
    write(folder, "again/h100_sxm_vllm_gemm.parquet", rows)
    (folder / "kernels/h100_sxm_vllm_gemm.parquet").unlink()
    records = validate_kernels(folder, "h100_sxm").as_dict()["by_device"]
    found = [record for record in records if record["operator"] == "gemm"]
    assert found
    assert all(record["mean_frac"] < 1e-9 and abs(record["bias_frac"]) < 1e-9 for record in found)


def test_one_shape_is_on_one_side_for_every_engine_and_number_of_rows(folder: Path) -> None:
    write(folder, "kernels/h100_sxm_trtllm_gemm.parquet", gemm_rows(8).assign(m=list(range(1, 9))))
    scored = validate_kernels(folder, "gemm").scored
    assert set(scored.loc[scored["device"] == "h100_sxm", "side"]) in ({"fitted"}, {"held_out"})


def test_the_malformed_row_is_named(accuracy: Accuracy) -> None:
    (problem,) = accuracy.problems
    assert problem.startswith("kernels/mlp_a100.csv row 1 num_tokens")
    assert problem in accuracy.as_dict()["problems"]
    assert "kernels/mlp_a100.csv row 1" in render(accuracy.as_dict())


def test_the_report_is_the_same_twice(folder: Path, accuracy: Accuracy) -> None:
    again = validate_folder(folder, "kernels")
    assert accuracy.to_json() == again.to_json()
    assert json.loads(accuracy.to_json())["format"] == 1


def test_the_terminal_is_kept_to_its_width(accuracy: Accuracy) -> None:
    text = render(accuracy.as_dict(), 100)
    assert max(len(line) for line in text.splitlines() if not line.startswith("problem")) <= 100
    assert "kept out" in text or "fitted" in text


def test_the_page_needs_nothing_else_and_is_the_same_twice(accuracy: Accuracy) -> None:
    text = page(accuracy.as_dict())
    assert text == page(accuracy.as_dict())
    assert "<svg" in text
    assert "<script" not in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert 'src="http' not in text
    assert 'href="http' not in text.replace('xlink:href="#', "")


def test_a_device_as_if_never_seen_takes_anothers_coefficients(accuracy: Accuracy) -> None:
    assert accuracy.unseen is not None
    donors = dict(zip(accuracy.unseen["device"], accuracy.unseen["donor_device"], strict=True))
    assert donors == {"h100_sxm": "l40s", "l40s": "h100_sxm"} or donors["h100_sxm"] != "h100_sxm"
    assert set(accuracy.unseen.loc[accuracy.unseen["device"] == "l40s", "donor"]) == {"other class"}


def test_only_what_is_asked_for(folder: Path) -> None:
    assert set(validate_folder(folder, "attention_prefill").kernels.scored["operator"]) == {"attention_prefill"}  # type: ignore[union-attr]
    assert set(validate_kernels(folder, "NVIDIA L40S").scored["device"]) == {"l40s"}
    assert set(validate_kernels(folder, "mlp_a100").scored["table"]) == {"kernels/mlp_a100.csv"}


def test_a_name_that_is_almost_one(folder: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'l40s'"):
        validate_folder(folder, "l40ss")


def test_a_folder_without_measurements(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no table of measurements is in this folder"):
        validate_folder(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        validate_folder(tmp_path / "nowhere", "kernels")


def test_windows_and_history_are_priced() -> None:
    """A window shorter than the context cannot cost more than none; history cannot cost less."""
    device = known_devices(["h100_sxm"])["h100_sxm"]
    rows = pd.DataFrame(
        {
            "num_seqs": 4, "new_tokens": 512, "history_tokens": [0, 0, 4096], "num_heads": 32, "num_kv_heads": 8,
            "head_dim": 128, "window_tokens": [0, 128, 0], "kv_dtype": "bf16", "engine": "vllm",
        }
    )  # fmt: skip
    whole, window, history = predict("attention_prefill", device, rows).seconds
    assert window <= whole <= history


def test_latent_attention_is_priced() -> None:
    device = known_devices(["h200_sxm"])["h200_sxm"]
    rows = pd.DataFrame(
        {
            "num_seqs": [1, 64], "context_tokens": 4096.0, "max_context_tokens": 4096.0,
            "num_heads": 16,
            "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
            "kv_dtype": "bf16", "engine": "vllm",
        }
    )  # fmt: skip
    one, many = predict("mla_decode", device, rows).seconds
    latent_bytes = 64 * 4096 * 576 * 2.0
    assert one < many
    assert many > latent_bytes / device.memory.bandwidth_bytes_per_s


def test_a_report_without_rows_has_no_bars(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    report = summed_up("empty", "kernels", validate_kernels(tmp_path / "empty"), None)
    assert report.bars == ()
    assert report.as_dict()["kernels"]["rows"]["present"] == 0
