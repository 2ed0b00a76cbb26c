"""Adapters that requests name: Zipf's law, one a session, and a column of a trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hermes_sim.core.rng import stream
from hermes_sim.workload.adapters import Adapters, with_adapters
from hermes_sim.workload.readers.table import Table
from hermes_sim.workload.requests import request_table


def table_of(number: int, session: list[int] | None = None):  # type: ignore[no-untyped-def]
    return request_table(np.arange(float(number)), [10] * number, [5] * number, session=session)


def test_popularity() -> None:
    adapters = Adapters(num_adapters=4, share=0.8)
    drawn = with_adapters(table_of(20_000), adapters, stream(1, "adapters")).adapter
    assert drawn is not None
    shares = 0.8 * np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    for adapter, share in zip(range(-1, 4), [0.2, *shares], strict=True):
        assert abs((drawn == adapter).mean() - share) < 5 * np.sqrt(share / 20_000)
    few = with_adapters(table_of(50), adapters, stream(1, "adapters")).adapter
    np.testing.assert_array_equal(few, drawn[:50])


def test_turns_of_a_session_name_one() -> None:
    session = [0, 1, 0, 1, 0, -1]
    drawn = with_adapters(table_of(6, session), Adapters(num_adapters=1000), stream(1, "adapters")).adapter
    assert drawn is not None
    assert len(set(drawn[[0, 2, 4]].tolist())) == len(set(drawn[[1, 3]].tolist())) == 1


def test_column_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,num_prompt_tokens,num_output_tokens,adapter\n0,5,5,law\n1,5,5,\n2,5,5,code\n3,5,5,law\n")
    adapter = Table(path=str(path)).requests(1, Path).adapter
    assert adapter is not None
    assert adapter.tolist() == [0, -1, 1, 0]
