"""Errors, bands, bars and the gate, on rows whose errors are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hermes_sim.core.errors import ConfigError
from hermes_sim.validation.bars import Bar, band_bar, error_bar, kernel_bars, layer_bar, layer_sums, serving_bars
from hermes_sim.validation.baseline import baseline_of, read_baseline, regressions
from hermes_sim.validation.errors import errors_of, grouped


def rows(predicted: list[float], measured: float = 1.0, **columns: object) -> pd.DataFrame:
    """Rows with these predictions, kept out, without bands."""
    table = pd.DataFrame({"predicted": predicted, "measured": measured, "low": np.nan, "high": np.nan})
    table["analytic"] = table["predicted"]
    return table.assign(side="held_out", **columns)


class TestErrors:
    def test_mean_median_p90_and_bias(self) -> None:
        found = errors_of(rows([0.8, 1.0, 1.1, 1.5]))
        assert found.mean_frac == pytest.approx(0.2)
        assert found.median_frac == pytest.approx(0.15)
        assert found.bias_frac == pytest.approx(0.1)
        assert found.p90_frac == pytest.approx(0.41)
        assert found.in_band_frac is None

    def test_bands_are_judged_where_there_are_any(self) -> None:
        table = rows([1.0, 1.0, 1.0, 1.0]).assign(low=[0.9, 1.1, np.nan, 0.5], high=[1.1, 1.2, np.nan, 2.0])
        found = errors_of(table)
        assert (found.num_in_bands, found.in_band_frac) == (3, pytest.approx(2 / 3))

    def test_groups_hold_every_row_once(self) -> None:
        table = pd.concat([rows([1.0, 1.2], device="a"), rows([2.0], device="b")])
        records = grouped(table, ["device", "side"])
        assert [(record["device"], record["num_rows"]) for record in records] == [("a", 2), ("b", 1)]
        assert records[1]["mean_frac"] == 1.0


class TestBars:
    def test_a_bar_that_is_met_or_not(self) -> None:
        assert error_bar("x", "", 0.1, rows([1.05, 0.95])).status == "met"
        missed = error_bar("x", "", 0.1, pd.concat([rows([1.0] * 9, device="a"), rows([3.0], device="b")]))
        assert missed.status == "not met"
        assert missed.value == pytest.approx(0.2)
        assert "by device: b 200.0% of 1 rows" in missed.reason

    def test_no_rows_are_no_success(self) -> None:
        bar = error_bar("x", "", 0.1, rows([]))
        assert (bar.status, bar.value) == ("no data", None)

    @pytest.mark.parametrize(("num_inside", "status"), [(90, "met"), (80, "not met"), (99, "not met")])
    def test_bands_may_be_too_narrow_or_too_wide(self, num_inside: int, status: str) -> None:
        table = rows([1.0] * 100, operator="gemm").assign(low=0.9, high=1.1)
        table.loc[num_inside:, "measured"] = 2.0
        assert band_bar(table, "bands", "").status == status

    def test_fitted_rows_count_in_no_bar(self) -> None:
        kernel = {"operator": "gemm", "engine": "vllm", "timing": "graph", "model": ""}
        table = pd.concat([rows([1.0], **kernel), rows([9.0], **kernel).assign(side="fitted")], ignore_index=True)
        bars = {bar.name: bar for bar in kernel_bars(table)}
        assert bars["gemm"].value == 0.0
        assert bars["gemm"].num_rows == 1
        run = {"experiment": "per_request", "metric": "ttft_mean_s", "mode": ""}
        table = pd.concat([rows([1.0], **run), rows([9.0], **run).assign(side="fitted")], ignore_index=True)
        assert {bar.name: bar.value for bar in serving_bars(table)}["per_request_ttft"] == 0.0

    def test_a_layer_is_the_sum_of_its_parts(self) -> None:
        """Errors of opposite sign in two parts cancel in their layer."""
        table = rows([1.5, 0.5], device="d", model="m", engine="vllm", timing="", table="t").assign(
            operator=["gemm", "stream"]
        )
        parts = pd.DataFrame({"part": ["qkv", "norm"], "tp": 1, "num_tokens": 8})
        sums = layer_sums(table, parts)
        assert len(sums) == 1
        assert layer_bar(sums).value == pytest.approx(0.0)


class TestGate:
    BAR = Bar("gemm", "GEMM", "mean APE", 0.04, 0.05, 100, "not met", "")

    def test_what_got_worse(self, tmp_path: Path) -> None:
        file = tmp_path / "baseline.json"
        file.write_text(baseline_of({"bars": [self.BAR.as_dict()]}))
        baseline = read_baseline(file)
        assert regressions([self.BAR.as_dict()], baseline) == []
        better = Bar("gemm", "GEMM", "mean APE", 0.04, 0.03, 100, "met", "")
        assert regressions([better.as_dict()], baseline) == []
        worse = Bar("gemm", "GEMM", "mean APE", 0.04, 0.06, 100, "not met", "")
        assert regressions([worse.as_dict()], baseline) == ["gemm: 6.00%, was 5.00% (GEMM)"]

    def test_bars_without_data_are_not_judged(self, tmp_path: Path) -> None:
        file = tmp_path / "baseline.json"
        file.write_text(baseline_of({"bars": [self.BAR.as_dict()]}))
        missing = Bar("gemm", "GEMM", "mean APE", 0.04, None, 0, "no data", "")
        assert regressions([missing.as_dict()], read_baseline(file)) == []

    def test_a_file_that_is_no_baseline(self, tmp_path: Path) -> None:
        file = tmp_path / "baseline.json"
        file.write_text("[]")
        with pytest.raises(ConfigError, match="no baseline"):
            read_baseline(file)
