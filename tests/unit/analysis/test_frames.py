"""Tables become DataFrames of fixed columns and types; latencies follow their definitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.frames import data_frame, is_finished, run_frames
from hermes_sim.core.tables import SCHEMAS, RunTables


def test_columns_keep_order_and_type(frames: dict[str, pd.DataFrame]) -> None:
    visits = frames["visits"]
    assert list(visits.columns) == list(SCHEMAS["visits"])
    assert {name: str(dtype) for name, dtype in visits.dtypes.items()} == SCHEMAS["visits"]


def test_categories_keep_the_order_of_first_appearance() -> None:
    frame = data_frame({"link": np.array(["b[2]", "b[10]", "a", "b[2]"], dtype=object)}, {"link": "category"})
    assert list(frame["link"].cat.categories) == ["b[2]", "b[10]", "a"]
    assert list(frame["link"]) == ["b[2]", "b[10]", "a", "b[2]"]


@pytest.mark.parametrize("table", [{}, {"a": np.zeros(1), "b": np.zeros(1)}])
def test_missing_and_unknown_columns_are_refused(table: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="not in both"):
        data_frame(table, {"a": "float64"})


def test_latencies_by_definition(frames: dict[str, pd.DataFrame]) -> None:
    requests = frames["requests"]
    np.testing.assert_array_equal(requests["ttft_s"], [1.0, 2.0, np.nan, np.nan, 4.0])
    np.testing.assert_array_equal(requests["tpot_s"], [0.5, np.nan, np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(requests["e2e_s"], [3.0, 2.0, 2.0, np.nan, 6.0])


def test_an_unfinished_request_has_ttft_but_no_e2e(tables: RunTables) -> None:
    tables.requests["status"][4] = "unfinished"
    last = run_frames(tables)["requests"].iloc[4]
    assert last["ttft_s"] == 4.0
    assert np.isnan(last["e2e_s"])
    assert np.isnan(last["tpot_s"])


def test_only_finished_requests_count_as_finished(frames: dict[str, pd.DataFrame]) -> None:
    assert list(is_finished(frames["requests"])) == [True, True, True, False, True]


def test_histogram_rows_hold_both_edges(frames: dict[str, pd.DataFrame]) -> None:
    assert frames["itl"].to_dict("list") == {
        "from_s": [0.0, 0.25, 0.75],
        "to_s": [0.25, 0.75, 1.25],
        "num_gaps": [0, 4, 2],
    }
