"""Tables become DataFrames of fixed columns and types; latencies follow their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hermes_sim.analysis.frames import data_frame, is_finished, run_frames
from hermes_sim.core.tables import RECORDED_SCHEMAS, SCHEMAS, RunTables


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


def test_tpot_is_that_of_the_longest_sample(tables: RunTables) -> None:
    # Three samples of 3, 2 and 2 tokens: request 0 had 5 tokens in the same time.
    tables.requests["num_output_tokens"][0], tables.requests["num_longest_sample_tokens"][0] = 7, 3
    assert run_frames(tables)["requests"]["tpot_s"][0] == 1.0


def test_the_client_is_later_than_the_engine(tables: RunTables) -> None:
    tables.requests["engine_first_token_s"][4] = 7.75
    last = run_frames(tables)["requests"].iloc[4]
    assert (last["ttft_s"], last["engine_ttft_s"]) == (4.0, 3.75)


def test_recorded_tables_are_there_if_they_were_recorded(tables: RunTables) -> None:
    assert "steps" not in run_frames(tables)
    empty = {
        name: {column: np.zeros(0, object if dtype == "category" else dtype) for column, dtype in schema.items()}
        for name, schema in RECORDED_SCHEMAS.items()
    }
    frames = run_frames(replace(tables, **empty))
    assert list(frames["decisions"].columns) == list(RECORDED_SCHEMAS["decisions"])
    assert len(frames["steps"]) == 0


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
