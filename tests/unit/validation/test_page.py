"""docs/accuracy.md and the baseline say what the report says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hermes_sim.validation.accuracy import Accuracy, summed_up, validate_folder
from hermes_sim.validation.baseline import baseline_of, read_baseline, regressions
from hermes_sim.validation.page import page_text, plot
from hermes_sim.validation.serving import score
from tests.unit.measured.folders import attention_rows, gemm_rows, write
from tests.unit.validation.test_serving import REPLAYS


@pytest.fixture
def accuracy(tmp_path: Path) -> Accuracy:
    write(tmp_path, "kernels/h100_sxm_vllm_gemm.parquet", gemm_rows(8).assign(n=[2**i for i in range(5, 13)]))
    write(tmp_path, "kernels/l40s_vllm_context_attention.parquet", attention_rows(512, 0))
    kernels = validate_folder(tmp_path, "kernels").kernels
    return summed_up("folder", None, kernels, score([("stage_rate", REPLAYS)]))


def test_every_bar_and_experiment_is_on_the_page(accuracy: Accuracy) -> None:
    report = json.loads(accuracy.to_json())
    text = page_text(report)
    for bar in report["bars"]:
        assert f"| {bar['what']} |" in text
    assert "| stage_rate | e2e_mean_s | kept out | 2 | 10.0% |" in text
    assert "overload" in text
    assert text == page_text(report)


def test_the_baseline_of_a_report_regresses_nothing(accuracy: Accuracy, tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    file.write_text(baseline_of(json.loads(accuracy.to_json())))
    baseline = read_baseline(file)
    assert baseline["stage_rate_e2e"]["value"] == pytest.approx(0.1)
    assert regressions(accuracy.as_dict()["bars"], baseline) == []


def test_the_plot_is_the_same_twice(accuracy: Accuracy, tmp_path: Path) -> None:
    report = json.loads(accuracy.to_json())
    plot(report, tmp_path / "one.png")
    plot(report, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
