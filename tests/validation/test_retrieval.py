"""Vector searches that were measured here, beside the shipped coefficients: every row, both sides of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hermes_sim.calibration.retrieval import KINDS, kinds_of, predict_search
from hermes_sim.hardware.search_efficiency import CORE
from hermes_sim.measured import read_kernels
from hermes_sim.validation.kernels import validate_kernels
from tests.unit.hardware.shipped import devices

TABLES = Path(__file__).resolve().parents[2] / "traces" / "measured"
LARGEST_MEDIAN = {"fitted": 0.11, "held_out": 0.165}
"""A little above what is reached (docs/retrieval.md)."""


@pytest.fixture(scope="module")
def searches() -> pd.DataFrame:
    return read_kernels(TABLES, operators=["retrieval"])["retrieval"]


def test_every_search_is_predicted_within_the_stated_error() -> None:
    found = validate_kernels(TABLES, only="retrieval")
    scored = found.scored
    assert len(scored) == len(found.tables["retrieval"])
    assert found.unexpressed == {}
    errors = (scored["predicted"] / scored["measured"] - 1.0).abs()
    for side, limit in LARGEST_MEDIAN.items():
        assert float(errors[scored["side"] == side].median()) <= limit
    inside = (scored["measured"] >= scored["low"]) & (scored["measured"] <= scored["high"])
    assert float(inside.mean()) > 0.8


def test_an_index_is_on_one_side_with_all_its_searches() -> None:
    scored = validate_kernels(TABLES, only="retrieval").scored
    assert set(scored["side"]) == {"fitted", "held_out"}
    assert 0.05 < float((scored["side"] == "held_out").mean()) < 0.35


def test_all_kinds_sizes_batches_and_threads_were_measured(searches: pd.DataFrame) -> None:
    assert set(searches["index"]) == set(KINDS)
    assert set(kinds_of(searches)) == {*KINDS, "ivf_pq_4bit"}
    assert searches["num_vectors"].min() <= 1e5
    assert searches["num_vectors"].max() >= 1e6
    assert set(searches["num_threads"]) == {1, 2}
    assert {1, 8, 64} <= set(searches["num_queries"])


def test_recall_grows_with_what_is_searched(searches: pd.DataFrame) -> None:
    keys = ["num_vectors", "dim", "nlist", "code_bytes", "code_bits", "links"]
    for _, rows in searches[searches["index"] != "flat"].groupby(keys):
        by_setting = rows.groupby(["nprobe", "ef_search"])["recall"].mean()
        assert np.all(np.diff(by_setting.to_numpy()) > -0.01)
    assert (searches["recall"][searches["index"] == "flat"] > 0.999).all()


def test_round_figures_of_a_core_are_of_the_right_size(searches: pd.DataFrame) -> None:
    """What a processor without measurements starts from: within a factor of two for most searches."""
    ratio = predict_search(devices()["epyc_zen4_vcpu"], CORE, searches) / searches["measured_s"].to_numpy()
    assert float(np.mean((ratio > 0.5) & (ratio < 2.0))) > 0.8
